"""A message that its task cannot read."""

from __future__ import annotations

from aipod.errors import InvalidArgument

__all__ = ["Unreadable"]


class Unreadable(InvalidArgument):
    """The message is not what its task expects, and never will be: it goes to the dead letters with this sentence."""

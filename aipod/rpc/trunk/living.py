"""What happens to the trunks of this process when it forks, and when it ends.

gRPC survives neither with a thread inside it: the child of a fork is aborted at one of its first calls, and the end of
the interpreter takes the thread down in the middle of C++. So the streams end before; calls open new ones.
"""

from __future__ import annotations

import atexit
import os
from typing import Protocol

__all__ = ["enter", "leave"]


class Living(Protocol):
    """What may have threads in gRPC."""

    def halt(self) -> None:
        """Have none until :meth:`go_on`."""

    def go_on(self) -> None: ...


_living: set[Living] = set()
_watching: list[bool] = []


def enter(one: Living) -> None:
    """It may have threads in gRPC from now on."""
    if not _watching:
        _watching.append(True)
        atexit.register(_halt)
        os.register_at_fork(before=_halt, after_in_parent=_go_on, after_in_child=_living.clear)
    _living.add(one)


def leave(one: Living) -> None:
    """It has none any more."""
    _living.discard(one)


def _halt() -> None:
    for one in list(_living):
        one.halt()


def _go_on() -> None:
    for one in list(_living):
        one.go_on()

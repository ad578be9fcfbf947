"""What comes out: closed windows, and messages that are in none.

Each message that goes in comes out once for good: among the ``releases`` of a window, as :class:`Done`, as a settled
:class:`Late`, or as :class:`Ahead`. Whoever acts on outcomes does so in their order, key by key: what is said of a
message may rest on a window that was closed before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from aipod.stream.message import Message
from aipod.stream.result import Members, Recorded, ranges_of

__all__ = ["FINISHING", "Ahead", "Closed", "Done", "Late", "Outcome", "Reason", "Window"]

Reason = Literal["full", "time", "gap", "idle", "max_messages", "max_wait", "pressure", "end", "early", "amended"]

# Why a window in time is over. After any other reason ("max_messages", "max_wait", "pressure") a further part goes on.
FINISHING = frozenset({"time", "gap", "idle", "end", "amended"})


class Window(NamedTuple):
    """Messages of one key that are to be predicted together.

    Attributes:
        key: Their key.
        id: Which of the key's windows it is: ``s`` and its first position, or ``t`` and its start in microseconds, with
            ``.1``, ``.2``… for further parts of one that had to be closed in between.
        start: The beginning in unix seconds: of the window, or the time of its oldest member if it has no bounds.
        end: The first instant that is not in it, or the time of its newest member.
        messages: In the order of the stream.
        reason: Why it was closed.
        revision: How many results of this window came before.
        releases: Positions of the messages that are in no other open window; done when this one is recorded.
        watermark: How far its key's time had come, in unix seconds, lateness taken off.
        final: False for an early result: the window is still open.
        amends: The revision that an amended one takes the place of.
    """

    key: str
    id: str
    start: float
    end: float
    messages: tuple[Message, ...]
    reason: str
    revision: int = 0
    releases: tuple[int, ...] = ()
    watermark: float = -math.inf
    final: bool = True
    amends: Recorded | None = None

    def recorded(self, source: str = "") -> Recorded:
        """Say what of it a record will have; ``source`` is the stream that it was cut from."""
        members = ranges_of(message.seq for message in self.messages)
        return Recorded(self.key, self.id, self.revision, self.start, self.end, self.reason, members, source)

    def unsettled(self, members: Sequence[Message]) -> Sequence[Message]:
        """Pick those of the members that no revision before has settled: they have become nothing yet."""
        if self.amends is None:
            return members
        settled = Members(self.amends.members)
        return [message for message in members if message.seq not in settled]


class Closed(NamedTuple):
    """A window to be predicted and recorded."""

    window: Window


class Done(NamedTuple):
    """A message that is in no open window, and is recorded in every one it belongs to: to be acknowledged.

    Attributes:
        recorded: One of them, if a record of an earlier life says so.
    """

    message: Message
    recorded: Recorded | None


class Late(NamedTuple):
    """A message that belongs into a window that was closed without it.

    Attributes:
        recorded: That window, if it is still known.
        settled: Whether that is all there is to it; False if it sits in another, open window, or if another ``Late`` of
            the same message follows.
    """

    message: Message
    recorded: Recorded | None
    settled: bool


class Ahead(NamedTuple):
    """A message whose own time cannot be believed."""

    message: Message


Outcome = Closed | Done | Late | Ahead

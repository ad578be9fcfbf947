"""What a restart must know of a record, picked from it while it is read, newest result first."""

from __future__ import annotations

from aipod.stream.result import Recorded

__all__ = ["UNSETTLED", "Recall", "settles"]

# Reasons of results that do not say how far their key has come: those of a part of a window do not finish it.
UNSETTLED = ("early", "amended", "max_messages", "max_wait", "pressure")


def settles(recorded: Recorded) -> bool:
    """Whether a window's close is final and its own: no early result, no part, no correction of an older window."""
    return recorded.reason not in UNSETTLED


class Recall:
    """Picks the last result of each key, the last that settles one of its windows, and all that are recent.

    An early result, a part or a correction does not say how far its key has come; hence the second.

    Args:
        since: Results that were stored then or later (unix seconds) are recent.
        floor: So are results with a member above it.
    """

    def __init__(self, since: float, floor: int) -> None:
        self._since = since
        self._floor = floor
        self._keys: set[str] = set()
        self._settled: set[str] = set()
        self._found: list[Recorded] = []

    def offer(self, recorded: Recorded, stored: float) -> bool:
        """Take a result or pass it over, newest first; whether it is recent."""
        recent = stored >= self._since or recorded.last > self._floor
        newest = recorded.key not in self._keys
        settling = settles(recorded) and recorded.key not in self._settled
        if recent or newest or settling:
            self._found.append(recorded)
            self._keys.add(recorded.key)
            if settling:
                self._settled.add(recorded.key)
        return recent

    def oldest_first(self) -> list[Recorded]:
        return self._found[::-1]

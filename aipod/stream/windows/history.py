"""What was recorded in earlier lives, and is obeyed.

A restart reads again everything above the floor: the highest position up to which all is acknowledged. The record says
what has become of some of that. It is complete in two ways, which all else rests on:

* The windows of one key are recorded in the order in which they were closed, and are closed in the order of their ends.
  So if a window is recorded, every one of that key that was closed before it is recorded too.
* A message is acknowledged after everything that holds it is recorded. So whatever is neither acknowledged nor recorded
  is read again, in the old order, with the old timestamps, and falls into the same windows.

From that follow the rules, for a message that is read again:

1. A member of a recorded window is done with that window. It still makes its key's time pass, as it did before.
2. **count**: whatever is not above the key's last recorded member is done. The next window begins behind it.
3. **sliding**: the same, but after a full window the next begins at its member number ``step``: from there on members
   go back into the ring, as such that were in a window already, unless the ring had been given up (its first one was
   acknowledged). After a window closed for any other reason the ring begins afresh.
4. **tumbling, hopping**: a recorded part of a window that is not finished is followed by its next part. Into a finished
   one nothing comes any more: no member means late. So does a window that ends no later than a finished one, since all
   of those were closed before it.
5. **session**: the same with the end of a finished session, its gap included, as the bound. Sessions that were cut
   bound nothing: another goes on behind them.
6. Where time is the messages' own, a recorded window says how far its key's time had come at least. If it was finished
   that is all that matters; if not, its key's time may have been further. Then a message that was late before can be in
   a window now, but none that was in a window is late.
7. An early result that is recorded is not made again, and whatever else comes of its window has a higher revision.
8. A record of windows of another shape (the task was changed) says of its members that they are done, and nothing else;
   only their names are taken, so that one of the new shape with the same start begins with a further part.

What is only known from results that a record no longer has, or was not asked for, cannot be obeyed; a window that is
then made anew has the identity of the old one, and the record refuses it.
"""

from __future__ import annotations

import heapq
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from aipod.stream.result import Recorded
from aipod.stream.windows.spec import COUNTED, WindowSpec

__all__ = ["History", "Holdings", "is_of", "latest", "micros", "place_of"]

_TIMED = re.compile(r"t(-?[0-9]{1,30})(?:\.([0-9]{1,9}))?")
_FIRST = re.compile(r"s[0-9]{1,20}")
# So many windows of one key take long to be looked through; so many keys are forgotten at a time.
_MANY = 256
_PIECE = 1000
# Reasons that tell a session from a window of counted messages; both are named after their first position.
_OF_TIME = frozenset({"gap", "max_messages", "max_wait", "amended"})


class Holdings:
    """Recorded windows that can be asked which of them holds a message."""

    __slots__ = ("_firsts", "_reach", "last")

    def __init__(self, windows: Iterable[Recorded]) -> None:
        ranges = [(first, last, window) for window in windows for first, last in window.members]
        ranges.sort(key=lambda one: one[0])
        self._firsts = [first for first, _, _ in ranges]
        # For each range the one of all before it, and it, that goes furthest: windows may overlap.
        self._reach: list[tuple[int, Recorded]] = []
        for _, last, window in ranges:
            furthest = self._reach[-1] if self._reach else (0, window)
            self._reach.append((last, window) if last >= furthest[0] else furthest)
        self.last = self._reach[-1][0] if self._reach else 0

    def holding(self, seq: int) -> Recorded | None:
        at = bisect_right(self._firsts, seq) - 1
        if at < 0 or self._reach[at][0] < seq:
            return None
        return self._reach[at][1]


class History:
    """What was recorded of keys that have not been seen yet.

    Args:
        recorded: In the order in which it was recorded, at least for each key.
        remember: Of how many keys to remember how far their time had come, once no message of a recorded window of
            theirs can come again; the oldest are dropped.
    """

    def __init__(self, recorded: Iterable[Recorded], remember: int) -> None:
        self._expected: dict[str, list[Recorded]] = {}
        self._behind: dict[str, list[Recorded]] = {}
        self._remember = remember
        for one in recorded:
            if one.members:
                self._expected.setdefault(one.key, []).append(one)
        # The expected keys by the last of their members; keys that were taken since are passed over.
        self._lasts: list[tuple[int, str]] = []
        for key, windows in self._expected.items():
            heapq.heappush(self._lasts, (max(window.last for window in windows), key))

    def __len__(self) -> int:
        return len(self._expected) + len(self._behind)

    def take(self, key: str) -> list[Recorded]:
        """Hand over what is known of a key."""
        return self._expected.pop(key, None) or self._behind.pop(key, [])

    def long(self) -> list[str]:
        """List the keys of which so much is known that to make use of it takes a while."""
        return [key for key, windows in self._expected.items() if len(windows) > _MANY]

    def forget(self, floor: int) -> bool:
        """Nothing up to ``floor`` comes again. False if only a piece of what that means was done."""
        for _ in range(_PIECE):
            if not self._lasts or self._lasts[0][0] > floor:
                return True
            _, key = heapq.heappop(self._lasts)
            windows = self._expected.pop(key, None)
            if windows is not None and self._remember:
                self._behind[key] = windows
                if len(self._behind) > self._remember:
                    del self._behind[next(iter(self._behind))]
        return False


def latest(windows: Sequence[Recorded]) -> list[Recorded]:
    """Pick the last revision of each window of each key, without early results, in the order of the first."""
    found: dict[tuple[str, str], Recorded] = {}
    for window in windows:
        # Windows in time have the same id whatever their key.
        name = window.key, window.id
        if window.reason != "early" and (name not in found or found[name].revision <= window.revision):
            found[name] = window
    return list(found.values())


def is_of(spec: WindowSpec, window: Recorded) -> bool:
    """Whether ``spec`` can have made a recorded window."""
    if spec.kind in COUNTED:
        return _FIRST.fullmatch(window.id) is not None and window.reason not in _OF_TIME
    if spec.kind == "session":
        return _FIRST.fullmatch(window.id) is not None and window.reason != "full"
    place = place_of(window)
    size, step = micros(spec.size), micros(spec.step or spec.size)
    return (
        place is not None
        and abs(micros(window.end) - place[0] - size) <= 1
        and (place[0] - micros(spec.align)) % step == 0
    )


def place_of(window: Recorded) -> tuple[int, int] | None:
    """Read from its id where a window starts, in microseconds, and which part it is; None if it has no bounds."""
    match = _TIMED.fullmatch(window.id)
    return (int(match[1]), int(match[2] or 0)) if match is not None else None


def micros(seconds: float) -> int:
    """Give an instant or a duration in whole microseconds, in which bounds are exact."""
    return round(seconds * 1e6)

"""All windows of a task: messages and time go in, outcomes come out.

Pure: no clock, no broker, no loop. What comes out depends on what went in, on the order of it, and on the history.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from itertools import count

from aipod.stream.message import Message
from aipod.stream.result import Recorded
from aipod.stream.windows.count import CountWindows, SlidingWindows
from aipod.stream.windows.history import History, latest
from aipod.stream.windows.keyed import KeyWindows
from aipod.stream.windows.retained import Retained
from aipod.stream.windows.session import SessionWindows
from aipod.stream.windows.spec import Kind, WindowSpec
from aipod.stream.windows.timed import TimedWindows
from aipod.stream.windows.window import Ahead, Closed, Late, Outcome

__all__ = ["Windower"]

_MAKERS: dict[Kind, type[KeyWindows]] = {
    "count": CountWindows,
    "sliding": SlidingWindows,
    "tumbling": TimedWindows,
    "hopping": TimedWindows,
    "session": SessionWindows,
}
# No message is from before the year -1200; one that says so is as little to be believed as one from the future.
_EARLIEST = -1e11
# Of so many keys the past is forgotten at a time.
_PIECE = 1000


class Windower:
    """Cuts a stream into windows.

    To take in a long history takes long, and nothing of that is put off: it can be done in another thread.

    Args:
        spec: Which.
        history: What earlier lives recorded, for each key in the order in which it was recorded: at least the last of
            each key and the last that finished one of its windows, those with a member above the floor, and those that
            were recorded up to ``spec.reach`` seconds before the first message above the floor was stored. The rules
            that it is obeyed by stand in :mod:`aipod.stream.windows.history`.
        remember: Of how many keys without open windows to remember how far their time has come. A message that is late
            for one that was forgotten begins its window anew.
    """

    def __init__(self, spec: WindowSpec, history: Iterable[Recorded] = (), *, remember: int = 100_000) -> None:
        self.spec = spec
        self._make = _MAKERS[spec.kind]
        self._remember = remember if self._make.lasting else 0
        recorded = list(history)
        self._history = History(recorded, self._remember)
        self._amends = spec.late == "amend" and self._make.lasting
        self._retained = Retained(spec.retain, latest(recorded) if self._amends else ())
        # A key is in one of the two. Those at rest have nothing open and expect nothing, the longest at rest first.
        self._keys: dict[str, KeyWindows] = {}
        self._resting: dict[str, KeyWindows] = {}
        # Those of which messages may come again, by the last of these; one that is past that already may be among them.
        self._repeating: list[tuple[int, int, KeyWindows]] = []
        # A key has at most one valid entry, at its ``armed``; that may be too early, and is never too late.
        self._heap: list[tuple[float, int, KeyWindows]] = []
        self._entries = count()
        self._next = math.inf
        self._clock = -math.inf
        self._held = 0
        for key in self._history.long():
            self._find(key)

    def __repr__(self) -> str:
        return (
            f"<Windower {self.spec}: {self.open_messages} messages in {self.open_windows} windows of {self.keys} keys>"
        )

    @property
    def open_messages(self) -> int:
        """How many messages have come in and not out."""
        return self._held

    @property
    def open_windows(self) -> int:
        return sum(len(windows.open()) for windows in self._keys.values())

    @property
    def keys(self) -> int:
        """How many keys have open windows."""
        return sum(1 for windows in self._keys.values() if windows.open())

    def feed(self, message: Message) -> list[Outcome]:
        """Take the next message of the stream, after closing what is due when it was stored."""
        out: list[Outcome] = []
        stored = message.stored
        if stored > self._clock:
            self._clock = stored
            if self._amends:
                self._retained.expire(stored)
            if self._next <= stored:
                self._close_due(out)
        self._held += 1
        # Not a number is on no side of any bound.
        if self.spec.own_time and not _EARLIEST <= message.time <= stored + self.spec.max_ahead:
            out.append(Ahead(message))
        else:
            windows = self._keys.get(message.key) or self._find(message.key)
            windows.feed(message, out)
            if windows.due < windows.armed:
                self._arm(windows)
            elif windows.armed == math.inf and windows.past is None:
                self._rest(windows)
        return self._counted(out) if out else out

    def advance(self, now: float) -> list[Outcome]:
        """Close what is due at ``now`` on the server's clock. Only for when all that was stored before has been fed."""
        out: list[Outcome] = []
        if now > self._clock:
            self._clock = now
            if self._amends:
                self._retained.expire(now)
        if self._next <= self._clock:
            self._close_due(out)
        return self._counted(out)

    def relieve(self, messages: int) -> list[Outcome]:
        """Close the windows of the keys with the oldest messages early, until so many messages have come out."""
        out: list[Outcome] = []
        before = self._held
        for windows in self._oldest_first():
            if before - self._held >= messages:
                break
            closed: list[Outcome] = []
            windows.close("pressure", closed)
            out += self._counted(closed)
        return out

    def flush(self) -> list[Outcome]:
        """Close all windows: the stream has ended."""
        out: list[Outcome] = []
        for windows in self._oldest_first():
            windows.close("end", out)
        return self._counted(out)

    def deadline(self) -> float | None:
        """When :meth:`advance` will have something to close, on the server's clock; None if never."""
        while self._heap:
            due, _, windows = self._heap[0]
            if due == windows.armed == windows.due:
                break
            heapq.heappop(self._heap)
            if due == windows.armed:
                self._again(windows)
        self._next = self._heap[0][0] if self._heap else math.inf
        return self._next if self._heap else None

    def amended(self, recorded: Recorded) -> None:
        """A late message's window was recorded with it: the next one amends that."""
        self._retained.amended(recorded)

    def forget(self, floor: int) -> bool:
        """No message up to ``floor`` comes again. False if only a piece of what that means was done: call it again."""
        forgotten = self._history.forget(floor)
        for _ in range(_PIECE):
            if not self._repeating or self._repeating[0][0] > floor:
                return forgotten
            _, _, windows = heapq.heappop(self._repeating)
            if windows.past is not None:
                windows.past = None
                if windows.armed == math.inf:
                    self._rest(windows)
        return False

    def _find(self, key: str) -> KeyWindows:
        windows = self._resting.pop(key, None)
        if windows is None:
            recorded = self._history.take(key)
            windows = self._make(key, self.spec, recorded, self._retained)
            if windows.past is not None:
                # An early result is of a window that begins behind the closed ones, and is not to be made again either.
                last = max(window.last for window in recorded)
                heapq.heappush(self._repeating, (last, next(self._entries), windows))
        self._keys[key] = windows
        return windows

    def _arm(self, windows: KeyWindows) -> None:
        windows.armed = windows.due
        heapq.heappush(self._heap, (windows.due, next(self._entries), windows))
        self._next = self._heap[0][0]

    def _again(self, windows: KeyWindows) -> None:
        """Its entry has gone from the heap: make another, if it is waiting for anything."""
        windows.armed = math.inf
        if windows.due < math.inf:
            self._arm(windows)
        elif windows.past is None:
            self._rest(windows)

    def _rest(self, windows: KeyWindows) -> None:
        del self._keys[windows.key]
        if self._remember:
            self._resting[windows.key] = windows
            if len(self._resting) > self._remember:
                del self._resting[next(iter(self._resting))]

    def _close_due(self, out: list[Outcome]) -> None:
        heap = self._heap
        while heap and heap[0][0] <= self._clock:
            due, _, windows = heapq.heappop(heap)
            if due == windows.armed:
                if windows.due <= self._clock:
                    windows.advance(self._clock, out)
                self._again(windows)
        self._next = heap[0][0] if heap else math.inf

    def _oldest_first(self) -> list[KeyWindows]:
        holding = [
            (min(members[0].seq for members in opened), windows)
            for windows in self._keys.values()
            if (opened := windows.open())
        ]
        return [windows for _, windows in sorted(holding, key=lambda one: one[0])]

    def _counted(self, out: list[Outcome]) -> list[Outcome]:
        """Keep the account of what has come out."""
        for outcome in out:
            if isinstance(outcome, Closed):
                window = outcome.window
                self._held -= len(window.releases)
                if self._amends and window.final:
                    self._retained.keep(window.recorded(), self._clock)
            elif not isinstance(outcome, Late) or outcome.settled:
                self._held -= 1
        return out

"""Windows with bounds in time, aligned to an epoch: tumbling ones, and hopping ones, which overlap.

What may be closed when, so that a restart comes to the same:

* The windows of a key are finished in the order of their ends. Whatever finishes one finishes those that end earlier
  with it, so that one number, ``_bound``, says which are over.
* A message makes time pass before it is placed, and closes what that ends before anything that it fills.
* A window that is closed because it is full, or under pressure, is not finished: its next part takes the rest.

Bounds are integers, in microseconds: no message falls between two windows, or into both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType

from aipod.stream.message import Message
from aipod.stream.result import Recorded
from aipod.stream.windows.history import Holdings, is_of, latest, micros, place_of
from aipod.stream.windows.keyed import KeyWindows
from aipod.stream.windows.retained import Retained
from aipod.stream.windows.spec import WindowSpec
from aipod.stream.windows.window import FINISHING, Closed, Done, Outcome, Reason, Window

__all__ = ["TimedWindows"]


# What most keys have of the past, shared by all of them.
_NOTHING = Holdings(())
_NO_HOLDINGS: Mapping[int, Holdings] = MappingProxyType({})
_NO_PARTS: Mapping[int, list[Recorded]] = MappingProxyType({})


class _Part:
    """The open part of a window; empty where a part was closed and nothing has come since."""

    __slots__ = ("due", "messages", "number", "revision", "start")

    def __init__(self, start: int, number: int = 0) -> None:
        self.start = start
        self.number = number
        self.revision = 0
        self.messages: list[Message] = []
        self.due = math.inf

    def next(self) -> None:
        self.number += 1
        self.revision = 0
        self.messages = []
        self.due = math.inf


class _Shape:
    """A spec's bounds in microseconds; which windows an instant is in."""

    __slots__ = ("align", "lateness", "overlap", "size", "step")

    def __init__(self, spec: WindowSpec) -> None:
        self.size = max(1, micros(spec.size))
        self.step = max(1, micros(spec.step)) if spec.kind == "hopping" else self.size
        self.align = micros(spec.align)
        self.lateness = micros(spec.lateness)
        self.overlap = self.size > self.step

    def starts(self, instant: int) -> range:
        last = instant - (instant - self.align) % self.step
        earlier = (self.size - 1 - (instant - last)) // self.step
        return range(last - earlier * self.step, last + 1, self.step)


@lru_cache(maxsize=64)
def _shape_of(spec: WindowSpec) -> _Shape:
    # One for all keys.
    return _Shape(spec)


class TimedWindows(KeyWindows):
    """The tumbling or hopping windows of a key."""

    __slots__ = ("_bound", "_dealt", "_foreign", "_open", "_parts", "_shape", "_shared", "_time")

    lasting = True

    def __init__(self, key: str, spec: WindowSpec, recorded: Sequence[Recorded], retained: Retained) -> None:
        super().__init__(key, spec, recorded, retained)
        self._shape = _shape_of(spec)
        self._open: dict[int, _Part] = {}
        # In how many open windows each message is; of windows that overlap only.
        self._shared: dict[int, int] = {}
        # Windows that end at this instant or earlier are over; the newest time of a message.
        self._bound: float = -math.inf
        self._time: float = -math.inf
        # What is recorded of each window, by start, and who is held by that; and by windows of another shape.
        self._parts: Mapping[int, list[Recorded]] = _NO_PARTS
        self._dealt: Mapping[int, Holdings] = _NO_HOLDINGS
        self._foreign = _NOTHING
        if recorded:
            self._obey(recorded)

    def feed(self, message: Message, out: list[Outcome]) -> None:
        own = self.spec.own_time
        instant = micros(message.time if own else message.stored)
        if instant > self._time:
            self._time = instant
            if own:
                self._finish(instant - self._shape.lateness, "time", out)
        again = self.past is not None and self._repeats(message.seq)
        recorded = self._foreign.holding(message.seq) if again else None
        if recorded is not None:
            out.append(Done(message, recorded))
            return
        late: list[int] = []
        parts: list[_Part] = []
        amended = False
        for start in self._shape.starts(instant):
            if again and (held := self._dealt.get(start, _NOTHING).holding(message.seq)) is not None:
                recorded = held
                amended = amended or held.reason == "amended"
            elif start + self._shape.size <= self._bound:
                late.append(start)
            else:
                parts.append(self._part(start))
        if parts:
            self._place(message, parts, out)
        known = [self._known(start) for start in late]
        if amended:
            # An earlier life knew it to be late, and dealt with the windows that are not known before it amended one.
            known = [window for window in known if window is not None]
        if known:
            self._late(message, known, bool(parts), out)
        elif not parts:
            out.append(Done(message, recorded))

    def advance(self, now: float, out: list[Outcome]) -> None:
        ended = [part.start for part in self._open.values() if part.due <= now]
        if ended:
            self._finish(max(ended) + self._shape.size, "idle" if self.spec.own_time else "time", out)
        self._rearm()

    def close(self, reason: Reason, out: list[Outcome]) -> None:
        if reason in FINISHING:
            self._finish(max(self._open, default=-math.inf) + self._shape.size, reason, out)
        else:
            for start in sorted(self._open):
                self._cut(self._open[start], reason, out)
        self._rearm()

    def open(self) -> Sequence[Sequence[Message]]:
        return [part.messages for part in self._open.values() if part.messages]

    def _place(self, message: Message, parts: Sequence[_Part], out: list[Outcome]) -> None:
        spec = self.spec
        if self._shape.overlap:
            self._shared[message.seq] = len(parts)
        for part in parts:
            part.messages.append(message)
            if len(part.messages) == 1:
                self._opened(part, message)
        for part in parts:
            if len(part.messages) >= spec.max_messages:
                self._cut(part, "max_messages", out)
                self._rearm()
            elif spec.early and len(part.messages) % spec.early == 0:
                window = self._window(part, "early", (), final=False)
                if window.revision == part.revision:
                    out.append(Closed(window))
                part.revision += 1

    def _part(self, start: int) -> _Part:
        part = self._open.get(start)
        if part is None:
            part = self._open[start] = _Part(start)
        return part

    def _opened(self, part: _Part, first: Message) -> None:
        if self.spec.own_time:
            part.due = first.stored + self.spec.wait
        else:
            part.due = (part.start + self._shape.size + self._shape.lateness) / 1e6
        self.due = min(self.due, part.due)

    def _rearm(self) -> None:
        self.due = min((part.due for part in self._open.values()), default=math.inf)

    def _finish(self, bound: float, reason: Reason, out: list[Outcome]) -> None:
        """Close what ends at ``bound`` or earlier, for good."""
        if bound <= self._bound:
            return
        self._bound = bound
        ended = sorted(start for start in self._open if start + self._shape.size <= bound)
        for start in ended:
            part = self._open.pop(start)
            if part.messages:
                out.append(Closed(self._window(part, reason, self._released(part))))
        if ended:
            self._rearm()

    def _cut(self, part: _Part, reason: Reason, out: list[Outcome]) -> None:
        """Close a part; the window goes on."""
        if part.messages:
            out.append(Closed(self._window(part, reason, self._released(part))))
            part.next()

    def _released(self, part: _Part) -> tuple[int, ...]:
        if not self._shape.overlap:
            return tuple([message.seq for message in part.messages])
        shared, released = self._shared, []
        for message in part.messages:
            if shared[message.seq] == 1:
                del shared[message.seq]
                released.append(message.seq)
            else:
                shared[message.seq] -= 1
        return tuple(released)

    def _window(self, part: _Part, reason: Reason, releases: tuple[int, ...], *, final: bool = True) -> Window:
        name = f"t{part.start}.{part.number}" if part.number else f"t{part.start}"
        return Window(
            self.key,
            name,
            part.start / 1e6,
            (part.start + self._shape.size) / 1e6,
            tuple(part.messages),
            reason,
            max(part.revision, self._first_revision(name)),
            releases,
            (self._time - self._shape.lateness) / 1e6,
            final,
        )

    def _obey(self, recorded: Sequence[Recorded]) -> None:
        known: dict[int, list[Recorded]] = {}
        others: list[Recorded] = []
        # The first number of each start that no recorded part has, be that of a window of another shape.
        free: dict[int, int] = {}
        for window in latest(recorded):
            place = place_of(window)
            if place is not None:
                free[place[0]] = max(place[1] + 1, free.get(place[0], 0))
            if place is not None and is_of(self.spec, window):
                known.setdefault(place[0], []).append(window)
                if window.reason in FINISHING:
                    self._bound = max(self._bound, place[0] + self._shape.size)
            else:
                others.append(window)
        self._parts = known
        self._dealt = {start: Holdings(parts) for start, parts in known.items()}
        self._foreign = Holdings(others)
        for window in recorded if self.spec.own_time else ():
            place = place_of(window)
            if place is not None and is_of(self.spec, window):
                # A member is no older than that.
                self._time = max(self._time, place[0])
                self._bound = max(self._bound, place[0] - self._shape.lateness)
        for start, number in free.items():
            if start + self._shape.size > self._bound:
                self._open[start] = _Part(start, number)

    def _known(self, start: int) -> Recorded | None:
        """Find the last part of a closed window."""
        parts = self._parts.get(start, []) if self.past is not None else []
        name = f"t{start}"
        kept = [one for one in self.retained.of(self.key) if one.id.partition(".")[0] == name and is_of(self.spec, one)]
        return next(reversed([*parts, *kept]), None)

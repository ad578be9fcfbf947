"""Windows as plainly as they can be said: the whole list is there, and every question is asked of all of it again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from aipod.stream.message import Message
from aipod.stream.windows import Closed, WindowSpec
from aipod.stream.windows.window import FINISHING, Outcome

# Key, id, revision, reason, start, end, members.
Cut = tuple[str, str, int, str, float, float, tuple[int, ...]]


def message(seq: int, stored: float, key: str = "", time: float | None = None) -> Message:
    return Message(seq, stored, "subject", b"", key=key, time=stored if time is None else time)


def cuts(outcomes: Sequence[Outcome]) -> list[Cut]:
    """The windows among outcomes, as plain values."""
    return [cut(one.window) for one in outcomes if isinstance(one, Closed)]


def cut(window: Any) -> Cut:
    members = tuple(member.seq for member in window.messages)
    return (window.key, window.id, window.revision, window.reason, window.start, window.end, members)


class Reference:
    """What a stream becomes if time passes with its messages alone.

    Attributes:
        windows: All that are closed.
        late: Positions of messages that were late for at least one window.
        ahead: Positions of those whose time is not believed.
    """

    def __init__(self, spec: WindowSpec, messages: Sequence[Message]) -> None:
        self.spec = spec
        self.windows: list[Cut] = []
        self.late: set[int] = set()
        self.ahead = {
            one.seq for one in messages if spec.own_time and not -1e11 <= one.time <= one.stored + spec.max_ahead
        }
        for key in sorted({one.key for one in messages}):
            mine = [one for one in messages if one.key == key and one.seq not in self.ahead]
            if spec.kind in ("count", "sliding"):
                self._counted(mine, messages)
            elif spec.kind == "session":
                self._sessions(key, mine, messages)
            else:
                self._timed(key, mine, messages)

    def _time(self, one: Message) -> float:
        return one.time if self.spec.own_time else one.stored

    def _before(self, mine: Sequence[Message], messages: Sequence[Message], instant: float) -> list[Message]:
        """Those that came before anything that was stored at that instant or later."""
        stop = next((one.seq for one in messages if one.stored >= instant), None)
        return [one for one in mine if stop is None or one.seq < stop]

    def _add(self, members: Sequence[Message], reason: str, revision: int = 0, bounds: Any = None) -> None:
        times = [self._time(one) for one in members]
        start, end, name = bounds or (min(times), max(times), f"s{members[0].seq}")
        self.windows.append((members[0].key, name, revision, reason, start, end, tuple(one.seq for one in members)))

    def _counted(self, mine: Sequence[Message], messages: Sequence[Message]) -> None:
        size, early = int(self.spec.size), self.spec.early
        step = int(self.spec.step) or size
        begin = shown = 0
        while begin < len(mine):
            ring = self._before(mine[begin : begin + size], messages, mine[begin].stored + self.spec.wait)
            waits = any(one.stored >= mine[begin].stored + self.spec.wait for one in messages)
            early_ones = [
                number for number in range(1, len(ring) + 1) if early and number % early == 0 and number < size
            ]
            for revision, number in enumerate(early_ones):
                self._add(ring[:number], "early", revision)
            if len(ring) == size:
                self._add(ring, "full", len(early_ones))
                begin, shown = begin + step, begin + size
            elif waits:
                if begin + len(ring) > shown:
                    self._add(ring, "idle", len(early_ones))
                begin = shown = begin + len(ring)
            else:
                return

    def _timed(self, key: str, mine: Sequence[Message], messages: Sequence[Message]) -> None:
        spec = self.spec
        parts: dict[float, list[list[Message]]] = {}
        over = float("-inf")

        def finish(bound: float, reason: str) -> None:
            nonlocal over
            for start in sorted(parts):
                if over < start + spec.size <= bound:
                    self._part(start, parts[start], reason)
            over = max(over, bound)

        for one in messages:
            for start in sorted(parts):
                open_part = parts[start][-1]
                if not spec.own_time and start + spec.size + spec.lateness <= one.stored:
                    finish(start + spec.size, "time")
                waited = open_part and open_part[0].stored + spec.wait <= one.stored
                if spec.own_time and over < start + spec.size and waited:
                    finish(start + spec.size, "idle")
            if one.key != key or one.seq in self.ahead:
                continue
            if spec.own_time:
                finish(one.time - spec.lateness, "time")
            for start in self.starts(self._time(one)):
                if start + spec.size <= over:
                    self.late.add(one.seq)
                    continue
                parts.setdefault(start, [[]])[-1].append(one)
            for start in self.starts(self._time(one)):
                if start + spec.size > over:
                    count = len(parts[start][-1])
                    if count == spec.max_messages:
                        self._part(start, parts[start], "max_messages")
                        parts[start].append([])
                    elif spec.early and count % spec.early == 0:
                        self._part(start, parts[start], "early")

    def starts(self, time: float) -> Iterator[float]:
        step = self.spec.step or self.spec.size
        start = self.spec.align + ((time - self.spec.align) // step) * step
        found = []
        while start + self.spec.size > time:
            found.append(start)
            start -= step
        return reversed(found)

    def _part(self, start: float, parts: Sequence[Sequence[Message]], reason: str) -> None:
        members, number = parts[-1], len(parts) - 1
        early = self.spec.early
        shown = sum(1 for size in range(1, len(members) + (reason != "early")) if early and size % early == 0)
        if reason == "max_messages" and early and len(members) % early == 0:
            shown -= 1
        name = f"t{round(start * 1e6)}" + (f".{number}" if number else "")
        if members:
            self._add(members, reason, shown, (start, start + self.spec.size, name))

    def _sessions(self, key: str, mine: Sequence[Message], messages: Sequence[Message]) -> None:
        spec, gap = self.spec, self.spec.size
        opened: list[list[Message]] = []
        over = watermark = float("-inf")

        def end(members: Sequence[Message]) -> float:
            return max(self._time(one) for one in members)

        def close(members: list[Message], reason: str) -> None:
            nonlocal over
            for other in sorted(opened, key=end) if reason in FINISHING else [members]:
                if other is members or end(other) < end(members):
                    opened.remove(other)
                    self._add(other, reason)
                    over = max(over, end(other) + gap) if reason in FINISHING else over

        for one in messages:
            while True:
                dues = [(members[-1].stored + gap + spec.lateness, 0, members) for members in opened]
                dues += [(members[0].stored + spec.wait, 1, members) for members in opened]
                due, cut_short, members = min(dues, key=lambda it: it[:2], default=(float("inf"), 0, []))
                if due > one.stored:
                    break
                close(members, "max_wait" if cut_short else "idle" if spec.own_time else "gap")
            if one.key != key or one.seq in self.ahead:
                continue
            time = self._time(one)
            if spec.own_time:
                watermark = max(watermark, time - spec.lateness)
                for members in sorted(opened, key=end):
                    if end(members) + gap <= watermark:
                        close(members, "gap")
            near = [members for members in opened if any(abs(self._time(other) - time) < gap for other in members)]
            if not near and (time < over or (spec.own_time and time + gap <= watermark)):
                self.late.add(one.seq)
                continue
            if not near:
                near = [[]]
                opened += near
            near[0].append(one)
            if sum(len(members) for members in near) > spec.max_messages:
                close(near[0], "max_messages")
                continue
            for other in near[1:]:
                opened.remove(other)
                near[0][:] = sorted([*near[0], *other], key=lambda it: it.seq)
            if len(near[0]) == spec.max_messages:
                close(near[0], "max_messages")

"""Sessions: messages of a key with no gap between them.

Open sessions of a key are at least a gap apart: a message that comes between two of them makes them one. They are
finished in the order of their ends; whatever finishes one finishes those that end earlier with it, so that one number,
``_bound``, says what is over: nothing begins before it any more, though older ones may still join an open session.
A session that is cut (it is full, or too long, or under pressure) moves no bound.

A message of its own time is also late if a session of it alone would be over, which is one gap later than its time is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from aipod.stream.message import Message
from aipod.stream.result import Recorded
from aipod.stream.windows.history import is_of, latest
from aipod.stream.windows.keyed import KeyWindows
from aipod.stream.windows.retained import Retained
from aipod.stream.windows.spec import WindowSpec
from aipod.stream.windows.window import FINISHING, Closed, Done, Outcome, Reason, Window

__all__ = ["SessionWindows"]


class _Session:
    __slots__ = ("end", "first_stored", "last_stored", "messages", "revision", "start")

    def __init__(self, message: Message, time: float) -> None:
        self.messages = [message]
        self.start = self.end = time
        self.first_stored = self.last_stored = message.stored
        self.revision = 0

    def add(self, message: Message, time: float) -> None:
        self.messages.append(message)
        self.start, self.end = min(self.start, time), max(self.end, time)
        self.last_stored = message.stored

    def merge(self, other: _Session) -> None:
        self.messages = sorted([*self.messages, *other.messages], key=lambda message: message.seq)
        self.start, self.end = min(self.start, other.start), max(self.end, other.end)
        self.first_stored = min(self.first_stored, other.first_stored)
        self.last_stored = max(self.last_stored, other.last_stored)
        self.revision = max(self.revision, other.revision)


class SessionWindows(KeyWindows):
    """The sessions of a key."""

    __slots__ = ("_bound", "_known", "_open", "_times", "_watermark")

    lasting = True

    def __init__(self, key: str, spec: WindowSpec, recorded: Sequence[Recorded], retained: Retained) -> None:
        super().__init__(key, spec, recorded, retained)
        self._open: list[_Session] = []
        self._known = [window for window in latest(recorded) if is_of(spec, window) and window.reason in FINISHING]
        self._bound = max((window.end + spec.size for window in self._known), default=-math.inf)
        self._watermark = -math.inf
        # How far the key's time had come when a recorded window was closed, which was after its last member: what came
        # before that can be older, and be in a session that was open then.
        self._times = sorted(((one.last, one.end) for one in recorded if is_of(spec, one)), reverse=True)

    def feed(self, message: Message, out: list[Outcome]) -> None:
        spec = self.spec
        time = message.time if spec.own_time else message.stored
        while self._times and self._times[-1][0] < message.seq:
            self._pass(self._times.pop()[1], out)
        self._pass(time, out)
        recorded = self.past.holding(message.seq) if self.past is not None and self._repeats(message.seq) else None
        if recorded is not None:
            out.append(Done(message, recorded))
            return
        gap = spec.size
        near = [one for one in self._open if one.start - gap < time < one.end + gap]
        if near:
            self._join(near, message, time, out)
        elif time < self._bound or (spec.own_time and time + gap <= self._watermark):
            self._late(message, [self._closed_at(time)], False, out)
        else:
            self._open.append(_Session(message, time))
            self._grown(self._open[-1], out)

    def advance(self, now: float, out: list[Outcome]) -> None:
        # What became due first happened first, also where nobody looked in between.
        while self.due <= now:
            session = min(self._open, key=self._due)
            if self._silent(session) <= session.first_stored + self.spec.wait:
                self._finish(session.end, "idle" if self.spec.own_time else "gap", out)
            else:
                self._cut(session, "max_wait", out)
            self._rearm()

    def close(self, reason: Reason, out: list[Outcome]) -> None:
        for session in sorted(self._open, key=lambda session: session.end):
            if reason in FINISHING:
                self._finish(session.end, reason, out)
            else:
                self._cut(session, reason, out)
        self._rearm()

    def open(self) -> Sequence[Sequence[Message]]:
        return [session.messages for session in self._open]

    def _join(self, near: Sequence[_Session], message: Message, time: float, out: list[Outcome]) -> None:
        session, *others = near
        session.add(message, time)
        if len(session.messages) + sum(len(other.messages) for other in others) <= self.spec.max_messages:
            for other in others:
                session.merge(other)
                self._open.remove(other)
            self._grown(session, out)
        else:
            # Together they would be too large, and apart they would be too close: one of them goes.
            self._cut(session, "max_messages", out)
            self._rearm()

    def _grown(self, session: _Session, out: list[Outcome]) -> None:
        count, spec = len(session.messages), self.spec
        if count >= spec.max_messages:
            self._cut(session, "max_messages", out)
        elif spec.early and count % spec.early == 0:
            window = self._window(session, "early", final=False)
            if window.revision == session.revision:
                out.append(Closed(window))
            session.revision += 1
        self._rearm()

    def _silent(self, session: _Session) -> float:
        return session.last_stored + self.spec.size + self.spec.lateness

    def _due(self, session: _Session) -> float:
        return min(self._silent(session), session.first_stored + self.spec.wait)

    def _rearm(self) -> None:
        self.due = min((self._due(session) for session in self._open), default=math.inf)

    def _pass(self, time: float, out: list[Outcome]) -> None:
        """The key's time has come to here: finish what is over."""
        if time - self.spec.lateness <= self._watermark:
            return
        self._watermark = time - self.spec.lateness
        ended = [session.end for session in self._open if session.end + self.spec.size <= self._watermark]
        if ended:
            self._finish(max(ended), "gap", out)
            self._rearm()

    def _finish(self, end: float, reason: Reason, out: list[Outcome]) -> None:
        """Close what ends at ``end`` or earlier, for good."""
        ended = sorted((one for one in self._open if one.end <= end), key=lambda session: session.end)
        for session in ended:
            self._open.remove(session)
            self._bound = max(self._bound, session.end + self.spec.size)
            out.append(Closed(self._window(session, reason)))

    def _cut(self, session: _Session, reason: Reason, out: list[Outcome]) -> None:
        self._open.remove(session)
        out.append(Closed(self._window(session, reason)))

    def _window(self, session: _Session, reason: Reason, *, final: bool = True) -> Window:
        messages = tuple(session.messages)
        name = f"s{messages[0].seq}"
        return Window(
            self.key,
            name,
            session.start,
            session.end,
            messages,
            reason,
            max(session.revision, self._first_revision(name)),
            tuple([message.seq for message in messages]) if final else (),
            self._watermark,
            final,
        )

    def _closed_at(self, time: float) -> Recorded | None:
        """Find the finished session that a late message would have been in."""
        kept = [one for one in self.retained.of(self.key) if is_of(self.spec, one) and one.reason in FINISHING]
        windows = [*(self._known if self.past is not None else ()), *kept]
        return next((one for one in reversed(windows) if one.start <= time < one.end + self.spec.size), None)

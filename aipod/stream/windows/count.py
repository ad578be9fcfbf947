"""Windows of so many messages of a key."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from itertools import islice

from aipod.stream.message import Message
from aipod.stream.result import Recorded, expand
from aipod.stream.windows.history import is_of, latest
from aipod.stream.windows.keyed import KeyWindows
from aipod.stream.windows.retained import Retained
from aipod.stream.windows.spec import WindowSpec
from aipod.stream.windows.window import Closed, Done, Outcome, Reason, Window

__all__ = ["CountWindows", "SlidingWindows"]


class CountWindows(KeyWindows):
    """One after another: the next begins where the last one ended."""

    __slots__ = ("_last", "_messages", "_revision")

    lasting = False

    def __init__(self, key: str, spec: WindowSpec, recorded: Sequence[Recorded], retained: Retained) -> None:
        super().__init__(key, spec, recorded, retained)
        self._messages: list[Message] = []
        self._revision = 0
        self._last = max((window.last for window in latest(recorded) if is_of(spec, window)), default=0)

    def feed(self, message: Message, out: list[Outcome]) -> None:
        if self.past is not None and self._obeys(message, out):
            return
        messages = self._messages
        messages.append(message)
        count, spec = len(messages), self.spec
        if count == spec.size:
            self._emit("full", out)
        else:
            if count == 1:
                self.due = message.stored + spec.wait
            if spec.early and count % spec.early == 0:
                window = self._window("early", (), final=False)
                if window.revision == self._revision:
                    out.append(Closed(window))
                self._revision += 1

    def advance(self, now: float, out: list[Outcome]) -> None:
        if self.due <= now:
            self._emit("idle", out)

    def close(self, reason: Reason, out: list[Outcome]) -> None:
        if self._messages:
            self._emit(reason, out)

    def open(self) -> Sequence[Sequence[Message]]:
        return (self._messages,) if self._messages else ()

    def _obeys(self, message: Message, out: list[Outcome]) -> bool:
        if not self._repeats(message.seq):
            return False
        recorded = self.past.holding(message.seq) if self.past is not None else None
        if recorded is None and message.seq > self._last:
            return False
        out.append(Done(message, recorded))
        return True

    def _emit(self, reason: Reason, out: list[Outcome]) -> None:
        out.append(Closed(self._window(reason, tuple([message.seq for message in self._messages]))))
        self._messages = []
        self._revision = 0
        self.due = math.inf

    def _window(self, reason: Reason, releases: tuple[int, ...], *, final: bool = True) -> Window:
        messages = self._messages
        name = f"s{messages[0].seq}"
        if self.spec.own_time:
            times = [message.time for message in messages]
            start, end = min(times), max(times)
        else:
            start, end = messages[0].stored, messages[-1].stored
        return Window(
            self.key,
            name,
            start,
            end,
            tuple(messages),
            reason,
            max(self._revision, self._first_revision(name)),
            releases,
            end - self.spec.lateness,
            final,
        )


class SlidingWindows(CountWindows):
    """A ring: each full window shares its members, but for the first ``step``, with the next.

    The last ``_fresh`` messages of the ring have not been in a window; with none of those there is nothing to emit.
    """

    __slots__ = ("_carried", "_fresh")

    def __init__(self, key: str, spec: WindowSpec, recorded: Sequence[Recorded], retained: Retained) -> None:
        super().__init__(key, spec, recorded, retained)
        self._fresh = 0
        self._carried: deque[int] = deque()
        last = next((one for one in latest(recorded) if is_of(spec, one) and one.last == self._last), None)
        if last is not None and last.reason == "full":
            # In the order in which they will come; the next one that is expected is the first.
            self._carried.extend(islice(expand(last.members), int(spec.step), None))

    def feed(self, message: Message, out: list[Outcome]) -> None:
        if self.past is not None and self._obeys(message, out):
            return
        self._push(message)
        self._fresh += 1
        if len(self._messages) == self.spec.size:
            self._emit("full", out)

    def advance(self, now: float, out: list[Outcome]) -> None:
        if self.due <= now:
            self._give_up("idle", out)

    def close(self, reason: Reason, out: list[Outcome]) -> None:
        if self._messages:
            self._give_up(reason, out)

    def _obeys(self, message: Message, out: list[Outcome]) -> bool:
        if self._carried and message.seq >= self._carried[0]:
            if message.seq == self._carried.popleft():
                self._push(message)
                return True
            # Its first one does not come again, so the ring had been given up.
            self._carried.clear()
        return super()._obeys(message, out)

    def _push(self, message: Message) -> None:
        if not self._messages:
            self.due = message.stored + self.spec.wait
        self._messages.append(message)

    def _emit(self, reason: Reason, out: list[Outcome]) -> None:
        ring, step = self._messages, int(self.spec.step)
        out.append(Closed(self._window(reason, tuple([message.seq for message in ring[:step]]))))
        self._messages = ring[step:]
        self._fresh = 0
        self.due = self._messages[0].stored + self.spec.wait if self._messages else math.inf

    def _give_up(self, reason: Reason, out: list[Outcome]) -> None:
        if self._fresh:
            super()._emit(reason, out)
        else:
            out.extend(Done(message, None) for message in self._messages)
            self._messages = []
            self.due = math.inf
        self._fresh = 0
        self._carried.clear()

"""Messages go through the windows: in stream order, each once, and what comes out goes where it belongs.

===========  ==========================================================================================================
``Closed``   to the operator, which may have to make us wait: the model or a sink is slow, and so are we
``Done``     acknowledged, once the other sinks have the recorded result that holds it
``Late``     by the task's policy: dropped, into the dead letters, or into a corrected result
``Ahead``    into the dead letters
===========  ==========================================================================================================

Time passes in two ways. While there are messages, the stream's own timestamps move the windows on. When there are none,
the broker's clock does, but only as far as it is certain that nothing older can still arrive.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol
from zlib import crc32

from aipod.stream.burial import Burial
from aipod.stream.errors import Unreadable, Unwritable
from aipod.stream.inference import Inference
from aipod.stream.message import Message
from aipod.stream.operator import Operator
from aipod.stream.recording import Recording
from aipod.stream.result import Identity, Ranges, Recorded, expand
from aipod.stream.statistics import Statistics
from aipod.stream.tasks import StreamTask
from aipod.stream.tasks.source import PRESSURE
from aipod.stream.windows import Ahead, Closed, Done, Late, Outcome, Window, Windower
from aipod.stream.windows.spec import COUNTED

__all__ = ["Feed", "Parts", "Source", "partition_of"]

# So many messages are read and sorted into windows before others get their turn on the loop.
_TURN = 256
# How often to look, in seconds, where nothing tells that time has come.
_GLANCE = 1.0
_FORGET_SECONDS = 5.0
# How much longer than ``ack_wait`` a delivery may take, in seconds.
_SLACK = 5.0
# What is stored at an instant may be counted by the broker a moment later.
_MARGIN = 0.05
_NAP = 0.02
# What part of what open windows hold is given back under pressure.
_RELIEF = 0.25


def partition_of(key: str, partitions: int) -> int:
    """Say whose a key is; the same in every process and for ever."""
    return crc32(key.encode()) % partitions


class Source(Protocol):
    """Where messages come from: see :class:`~aipod.stream.broker.intake.Intake`, which is the one for a broker."""

    @property
    def held_messages(self) -> int: ...
    @property
    def held_bytes(self) -> int: ...
    @property
    def floor(self) -> int: ...
    @property
    def caught_up(self) -> bool: ...
    async def get(self, timeout: float | None = None) -> list[Message]: ...
    async def settled(self) -> float | None: ...
    def now(self) -> float: ...
    def done(self, seqs: Iterable[int]) -> None: ...


@dataclass(frozen=True)
class Parts:
    """What a feed works with: where messages come from, and what becomes of them.

    Attributes:
        origin: The stream that messages are of, as :mod:`aipod.stream.origin` names it; "" for none.
        recalled: The last position in the windower's history; -1 if there is none.
        unacknowledged: Asks the broker how many messages are delivered and not acknowledged.
        fetch: Reads messages again, from the stream, by position; those that are gone are not in the answer.
    """

    intake: Source
    windower: Windower
    inference: Inference
    recording: Recording
    burial: Burial
    statistics: Statistics
    unacknowledged: Callable[[], Awaitable[int]]
    fetch: Callable[[Ranges], Awaitable[list[Message]]]
    origin: str = ""
    recalled: int = -1


class Feed:
    """One partition of a task at work. Cancelled at any moment it loses nothing: what is not done comes again.

    Attributes:
        operator: Where windows go; to be closed by whoever made the feed.
    """

    def __init__(self, task: StreamTask, partition: int, parts: Parts) -> None:
        self._task = task
        self._partition = partition
        self._read = task.reading().read
        self._parts = parts
        self._intake = parts.intake
        self._windower = parts.windower
        self._statistics = parts.statistics
        self.operator = Operator(
            task.name,
            parts.inference,
            parts.recording,
            parts.burial,
            self._recorded,
            parts.statistics,
            task.model.concurrency,
            parts.origin,
        )
        # A message that comes after its window's time is late, if the window has one: so the time must be certain.
        self._margin = 0.0 if task.window.kind in COUNTED else _MARGIN
        self._nap = 0.0
        self._forgotten, self._forget_at = -1, 0.0
        self._done: list[int] = []
        self._supplied: dict[Identity, Unwritable | None] = {}

    async def run(self, *, once: bool = False) -> None:
        """Go on for ever, or, if ``once``, until all that was there has become results.

        Raises:
            AipodError: What the operator or the burial cannot go on with.
        """
        while True:
            batch = await self._next(self._patience(once))
            if batch:
                await self._take(batch)
            elif once and self._intake.caught_up and await self._intake.settled() is not None:
                await self._settle(self._windower.flush())
                self._acknowledge()
                await self.operator.drain()
                return await self._see_acknowledged()
            await self._pass_time()
            await self._relieve()
            self._acknowledge()
            self._forget()

    async def _see_acknowledged(self) -> None:
        """Wait until the broker has every acknowledgement.

        A message that was read from the stream is acknowledged when it is delivered again, ``ack_wait`` after somebody
        who is gone had it.
        """
        end = time.monotonic() + self._task.source.ack_wait + _SLACK
        while time.monotonic() < end:
            # What is new comes too late for this time, and is given back.
            await self._intake.get(_NAP)
            if await self._parts.unacknowledged() <= self._intake.held_messages:
                return

    async def _next(self, patience: float | None) -> list[Message]:
        """Get what there is to be taken in; [] after ``patience`` seconds, or when something else is to be done."""
        if not (self._is_full and self.operator.in_flight):
            return await self._intake.get(patience)
        # It may be that nothing comes any more before what is in flight has given back what it holds.
        batch = await self._intake.get(0.0)
        if not batch:
            await self.operator.movement(_GLANCE if patience is None else min(patience, _GLANCE))
        return batch

    async def _take(self, batch: Sequence[Message]) -> None:
        for first in range(0, len(batch), _TURN):
            piece = batch[first : first + _TURN]
            ours = self._ours(piece)
            # All at once, and before any of them is buried: so many of so many are too many.
            self._parts.burial.passed(len(ours))
            self._statistics.messages += len(ours)
            self._statistics.bytes += sum([len(message.data) for message, _ in ours])
            for message, error in ours:
                if error is not None:
                    await self._unreadable(message, error)
                elif outcomes := self._windower.feed(message):
                    await self._settle(outcomes)
            if len(piece) == _TURN:
                await asyncio.sleep(0)

    def _ours(self, messages: Sequence[Message]) -> list[tuple[Message, Unreadable | None]]:
        """Read messages, and pass over those of other partitions; with the others, why they cannot be read, if so."""
        partitions, ours = self._task.partitions, []
        for message in messages:
            error, whose = None, self._partition
            try:
                self._read(message)
                if partitions > 1:
                    whose = partition_of(message.key, partitions)
            except Unreadable as unreadable:
                error, whose = unreadable, 0  # nobody can tell
            if whose == self._partition:
                ours.append((message, error))
            else:
                self._done.append(message.seq)
        return ours

    async def _settle(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Closed):
                self._acknowledge()
                self._statistics.windows += 1
                self._statistics.window_messages.add(len(outcome.window.messages))
                await self.operator.submit(outcome.window)
            elif isinstance(outcome, Done):
                if outcome.recorded is not None:
                    await self._supply(outcome.recorded, outcome.message)
                self._finish(outcome.message)
            elif isinstance(outcome, Late):
                await self._late(outcome)
            else:
                await self._ahead(outcome)

    def _forget(self) -> None:
        # Only what earlier lives recorded is there to be forgotten.
        now = time.monotonic()
        if now >= self._forget_at and self._forgotten < self._parts.recalled:
            floor = self._intake.floor
            if self._windower.forget(floor):
                self._forgotten, self._forget_at = floor, now + _FORGET_SECONDS

    def _finish(self, message: Message) -> None:
        # It can be in a window that is closed and not recorded yet.
        if not self.operator.after(message.key, message.seq):
            self._done.append(message.seq)

    def _recorded(self, seqs: Sequence[int], window: Window) -> None:
        self._intake.done(seqs)
        self._statistics.latency_seconds.add(max(0.0, self._intake.now() - window.messages[-1].stored))

    def _acknowledge(self) -> None:
        if self._done:
            self._intake.done(self._done)
            self._done = []

    async def _supply(self, recorded: Recorded, member: Message) -> None:
        """See to it that the other sinks have a recorded window; what they will never take is buried, as it was to be
        when the window was recorded."""
        identity = recorded.identity
        if identity not in self._supplied:
            self._supplied[identity] = None
            try:
                await self._parts.recording.supply(recorded)
            except Unwritable as refusal:
                self._supplied[identity] = refusal
        refused = self._supplied[identity]
        if refused is not None:
            await self._parts.burial.bury([member], str(refused), refused.__cause__)

    async def _unreadable(self, message: Message, error: Unreadable) -> None:
        self._statistics.unreadable += 1
        await self._parts.burial.bury([message], str(error), error)
        self._done.append(message.seq)

    async def _ahead(self, outcome: Ahead) -> None:
        message = outcome.message
        self._statistics.ahead += 1
        lead = message.time - message.stored
        limit = self._task.window.max_ahead
        reason = f"its time is {lead:.3f} s ahead of when it was stored, and {limit:g} s are believed (max_ahead)"
        await self._parts.burial.bury([message], reason)
        self._done.append(message.seq)

    async def _late(self, outcome: Late) -> None:
        message, policy = outcome.message, self._task.window.late
        self._statistics.late += 1
        # Until the close that it is late for is recorded, a crash may still undo it.
        await self.operator.landed(message.key)
        if policy == "amend" and outcome.recorded is not None and await self._amend(message, outcome.recorded):
            pass
        elif policy != "drop":
            window = f"window {outcome.recorded.id}" if outcome.recorded is not None else "its window"
            await self._parts.burial.bury([message], f"it came after {window} of key {message.key!r} was closed")
        if outcome.settled:
            self._parts.inference.forget([message.seq])
            self._finish(message)

    async def _amend(self, message: Message, recorded: Recorded) -> bool:
        """Record the window once more, with a message that came late; False if its other members are gone."""
        wanted = [seq for seq in expand(recorded.members) if seq != message.seq]
        messages = await self._parts.fetch(recorded.members)
        if len(messages) < len(wanted):
            return False
        for other in messages:
            self._read(other)
        whole = sorted([message, *(other for other in messages if other.seq != message.seq)], key=lambda one: one.seq)
        window = Window(
            key=recorded.key,
            id=recorded.id,
            start=recorded.start,
            end=recorded.end,
            messages=tuple(whole),
            reason="amended",
            revision=recorded.revision + 1,
            releases=(),
            watermark=message.time,
            amends=recorded,
        )
        # Only what is recorded can be amended by the next late one, and lets this one be acknowledged.
        flight = await self.operator.submit(window)
        await self.operator.settled(flight)
        if flight.recorded is not None:
            self._windower.amended(flight.recorded)
        return True

    def _patience(self, once: bool) -> float | None:
        """How long to wait for messages, in seconds; None for ever."""
        if not self._intake.caught_up:
            return _GLANCE
        if once:
            return _NAP
        deadline = self._windower.deadline()
        return None if deadline is None else max(self._nap, deadline + self._margin - self._intake.now())

    async def _pass_time(self) -> None:
        deadline = self._windower.deadline()
        if deadline is None or not self._intake.caught_up or self._intake.now() < deadline + self._margin:
            return
        now = self._intake.now()
        if self._margin:
            settled = await self._intake.settled()
            now = deadline - _NAP if settled is None else settled - self._margin
        # Where the broker's clock is not as far as we believed, nobody is served by asking it without a pause.
        self._nap = 0.0 if now >= deadline else _NAP
        await self._settle(self._windower.advance(now))

    @property
    def _is_full(self) -> bool:
        source, intake = self._task.source, self._intake
        taken = max(intake.held_messages / source.max_ack_pending, intake.held_bytes / source.max_bytes)
        return taken >= PRESSURE

    async def _relieve(self) -> None:
        """Where open windows hold all that may be held, nothing more can come to close them: then close some early."""
        if not self._is_full or not self._windower.open_messages or self.operator.in_flight:
            return
        if self._task.pressure == "pause" and not self._margin:
            # They are closed by their age. Others would come after their windows, which must stay open for them.
            await self._settle(self._windower.advance(self._intake.now()))
        else:
            await self._settle(self._windower.relieve(max(1, int(self._windower.open_messages * _RELIEF))))

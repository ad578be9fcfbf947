"""What a partition of a task works with while this process has the lease, put together and taken apart.

It begins with what the record says and with what the consumer holds unacknowledged, so it needs nothing of what an
earlier one knew; and it may end at any moment.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType

from aipod.errors import Unavailable
from aipod.stream.broker.connection import Connection
from aipod.stream.broker.consumer import ConsumerSpec, ConsumerState, ensure
from aipod.stream.broker.intake import Intake
from aipod.stream.broker.lease import Lease
from aipod.stream.broker.reader import Reader, get_message
from aipod.stream.burial import Burial
from aipod.stream.dead import DeadLetters
from aipod.stream.errors import Fenced
from aipod.stream.expiry import Expiry
from aipod.stream.feed import Feed, Parts, partition_of
from aipod.stream.inference import Inference, model_of
from aipod.stream.message import Message
from aipod.stream.operator import Operator
from aipod.stream.origin import check_origin, origin_of
from aipod.stream.recording import Recording
from aipod.stream.result import Ranges, Recorded
from aipod.stream.retry import Retry
from aipod.stream.sinks.opening import open_sink
from aipod.stream.statistics import Statistics
from aipod.stream.tasks import StreamTask
from aipod.stream.windows import Windower

__all__ = ["Tenure", "consumer_of"]

# A sink may date a result by a clock of its own, which is not the broker's.
_CLOCKS_APART = 60.0
_PIECE = 1000
_TOGETHER = 16


def consumer_of(task: StreamTask, partition: int) -> ConsumerSpec:
    """Say what the consumer of a partition is: each has one of its own, and each sees all messages."""
    source = task.source
    durable = source.durable if task.partitions == 1 else f"{source.durable}-{partition}"
    return ConsumerSpec(durable, source.stream, source.subjects, source.ack_wait, source.max_ack_pending, source.start)


class Tenure:
    """An async context manager: with its block, everything in it is open, and nothing is in flight afterwards.

    Args:
        lease: Under which it works; None if nobody contends for the task.

    Attributes:
        feed: To be run, and its operator to be watched.
    """

    feed: Feed

    def __init__(
        self,
        task: StreamTask,
        partition: int,
        connection: Connection,
        lease: Lease | None,
        statistics: Statistics,
        log: logging.Logger,
    ) -> None:
        self._task = task
        self._partition = partition
        self._connection = connection
        self._lease = lease
        self._statistics = statistics
        self._log = log
        self._stack = AsyncExitStack()
        self._spec = consumer_of(task, partition)

    async def __aenter__(self) -> Tenure:
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _open(self) -> None:
        task, statistics = self._task, self._statistics
        consumer = await self._retry("the broker")(partial(ensure, self._connection, self._spec))
        recording = await self._recording()
        burial = await self._burial(consumer)
        recalled = await self._recall(recording, consumer)
        windower, last = await asyncio.to_thread(self._windower, recalled, consumer.floor)
        intake = Intake(
            self._connection,
            self._spec,
            consumer,
            max_bytes=task.source.max_bytes,
            on_deleted=task.source.on_deleted,
            sure=self._leads,
        )
        intake.removals.tell = Expiry(origin_of(consumer), task.partitions > 1, statistics, self._log)
        # First what is in flight ends, then what is held is given back.
        self._stack.push_async_callback(intake.leave)
        parts = Parts(
            intake,
            windower,
            await self._inference(burial),
            recording,
            burial,
            statistics,
            self._unacknowledged,
            partial(self._fetch, consumer.stream),
            origin=origin_of(consumer),
            recalled=last,
        )
        self.feed = Feed(task, self._partition, parts)
        self._stack.push_async_callback(self.feed.operator.close)
        await intake.start()
        statistics.gauges = partial(_gauges, intake, windower, self.feed.operator)
        self._log.info("running from message %d on", consumer.floor + 1)

    async def _recording(self) -> Recording:
        task = self._task
        part = self._partition if task.partitions > 1 else None
        sinks = [open_sink(each, task.name, self._connection, partition=part) for each in task.sinks]
        recording = Recording(sinks, self._retry, self._statistics, self._lead)
        self._stack.push_async_callback(recording.close)
        await recording.open()
        return recording

    async def _inference(self, burial: Burial) -> Inference:
        predict = await self._stack.enter_async_context(model_of(self._task.model))
        return Inference(predict, self._task.preparing(), self._retry("the model"), burial, self._statistics)

    async def _burial(self, consumer: ConsumerState) -> Burial:
        task, dead = self._task, self._task.dead_letters
        letters = DeadLetters(
            self._connection,
            task.name,
            task.dead_subject,
            source=consumer.stream,
            origin=origin_of(consumer),
            create=dead.create,
            stream=dead.stream,
        )
        retry = self._retry("dead letters")
        await retry(letters.open)
        return Burial(task.name, letters, dead, retry, self._statistics, self._lead, self._log)

    async def _recall(self, recording: Recording, consumer: ConsumerState) -> list[Recorded]:
        """What a restart obeys: no window with a message above the floor was recorded before the first such message was
        stored, except for parts of windows that go on."""
        if recording.record is None:
            self._log.warning("none of the sinks can be read back: after a crash some results may be there twice")
            return []
        since = await self._retry("the broker")(partial(self._stored_after, consumer))
        return await recording.recall(since - self._task.window.reach - _CLOCKS_APART, consumer.floor, self._admit)

    async def _admit(self, recalled: list[Recorded]) -> None:
        """Refuse a record of another stream; beside the loop, since it may be long."""
        if recalled:
            # As it is now: what was recorded a moment ago can be of messages that came after the first look.
            look = partial(ensure, self._connection, self._spec, create=False)
            stream = await self._retry("the broker")(look)
            await asyncio.to_thread(check_origin, self._task.name, recalled, stream)

    def _windower(self, recalled: list[Recorded], floor: int) -> tuple[Windower, int]:
        """Make windows that go on from what is recorded, which is used up; they, and the last position of that.

        For another thread: of a task that was long away there are millions of results, and the lease is to be renewed
        meanwhile.
        """
        partitions = self._task.partitions
        ours = [one for one in recalled if partition_of(one.key, partitions) == self._partition]
        windower = Windower(self._task.window, ours)
        while not windower.forget(floor):
            pass
        last = max((one.last for one in ours), default=-1)
        del ours
        while recalled:
            del recalled[-_PIECE:]  # even to let go of millions at once would hold up everybody
        return windower, last

    async def _stored_after(self, consumer: ConsumerState) -> float:
        first = await get_message(self._connection, consumer.stream, seq=consumer.floor + 1, subject=">")
        return first.stored if first is not None else consumer.time or time.time()

    async def _unacknowledged(self) -> int:
        look = partial(ensure, self._connection, self._spec, create=False)
        return (await self._retry("the broker")(look)).ack_pending

    async def _fetch(self, stream: str, ranges: Ranges) -> list[Message]:
        reader = Reader(self._connection, stream, self._task.source.subjects)

        async def read(first: int, last: int) -> list[Message]:
            return [message async for messages in reader.read(first, last) for message in messages]

        found: list[Message] = []
        # Between the members of a window there are those of other keys: so many ranges, and each is a question.
        for at in range(0, len(ranges), _TOGETHER):
            for messages in await asyncio.gather(*(read(*each) for each in ranges[at : at + _TOGETHER])):
                found += messages
        return found

    def _leads(self) -> bool:
        return self._lease is None or self._lease.held()

    def _lead(self) -> None:
        """Make sure that nobody else leads: to be asked before everything that only the leader may do.

        Raises:
            Fenced: Another process has taken over.
            Unavailable: Perhaps one has, which the next renewal of the lease will show. Until then, to be tried again.
        """
        if self._lease is None or self._lease.held():
            return
        if self._lease.lost.is_set():
            raise Fenced(self._task.name)
        raise Unavailable(f"the lease was not renewed for {self._lease.age:.1f} s, and may be another's")

    def _retry(self, what: str) -> Retry:
        def failed() -> None:
            self._statistics.retries += 1

        return Retry(what, self._log, failed=failed)


def _gauges(intake: Intake, windower: Windower, operator: Operator) -> dict[str, float]:
    return {
        "open_windows": windower.open_windows,
        "open_messages": windower.open_messages,
        "keys": windower.keys,
        "held_messages": intake.held_messages,
        "held_bytes": intake.held_bytes,
        "in_flight": operator.in_flight,
        "lag": intake.lag,
        "position": intake.position,
        "floor": intake.floor,
        "redelivered": intake.redelivered,
    }

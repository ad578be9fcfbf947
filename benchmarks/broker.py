"""A broker to measure with: messages that are there beforehand, consumers, and how far these have come."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import nats
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, ConsumerInfo, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from aipod.stream.dev import DevServer
from benchmarks.harness import Process

MESSAGE_BYTES = 200
# More than any workload leaves open, so that nobody waits for room.
MAX_ACK_PENDING = 250_000
SOURCE, RESULTS = "source", "results"
_LONGEST = 180.0
_LOOK = 0.01
# Growth from one second to the next that is none.
_STILL = 1.002


@dataclass(frozen=True)
class Observed:
    """What a consumer did, and what its process used.

    Attributes:
        seconds: From its first delivery to the last result, or acknowledgement.
        cpu_seconds: Of its process, meanwhile.
    """

    seconds: float
    cpu_seconds: float


class Broker:
    """A JetStream in a directory of its own, from ``with`` to its end. Every stream is a file there."""

    def __enter__(self) -> Broker:
        self._directory = tempfile.TemporaryDirectory(prefix="aipod-bench-")
        self._server = DevServer(Path(self._directory.name))
        self.url = self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()
        self._directory.cleanup()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        client = await nats.connect(self.url)
        try:
            yield Connection(client)
        finally:
            await client.close()


class Connection:
    """What a measurement asks of the broker."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.jetstream: JetStreamContext = client.jetstream(timeout=30.0)

    async def fresh(self, stream: str) -> None:
        """Make a stream of the subject that has its name, and of those below; what was there is gone, consumers too."""
        with suppress(NotFoundError):
            await self.jetstream.delete_stream(stream)
        await self.jetstream.add_stream(
            StreamConfig(stream, subjects=[stream, f"{stream}.>"], storage=StorageType.FILE)
        )

    async def publish(self, stream: str, keys: Iterable[int]) -> None:
        """Publish a message for each key, and return when all of them are stored."""
        count = 0
        for count, key in enumerate(keys, 1):
            await self._client.publish(stream, message(key, count))
        await self._client.flush()
        end = time.monotonic() + _LONGEST
        while (await self.jetstream.stream_info(stream)).state.messages < count:
            if time.monotonic() > end:
                raise RuntimeError("not all messages were stored")
            await asyncio.sleep(_LOOK)

    async def publish_at(self, rate: float, count: int, stream: str) -> list[float]:
        """Publish by the clock; the unix times just before."""
        begin, sent = time.monotonic(), []
        for number in range(count):
            await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
            sent.append(time.time())
            await self._client.publish(stream, message(0, number))
        await self._client.flush()
        return sent

    async def add_consumer(self, stream: str, durable: str) -> None:
        config = ConsumerConfig(durable_name=durable, ack_wait=60.0, max_ack_pending=MAX_ACK_PENDING)
        await self.jetstream.add_consumer(stream, config)

    async def forget(self, stream: str, durable: str) -> None:
        """Take away a consumer, so that the next of its name begins at the beginning."""
        with suppress(NotFoundError):
            await self.jetstream.delete_consumer(stream, durable)

    async def observe(self, process: Process, stream: str, durable: str, messages: int, results: int) -> Observed:
        """Watch a consumer from its first delivery until all messages are acknowledged and all results are stored."""

        async def begun(state: ConsumerInfo) -> bool:
            return state.delivered is not None and state.delivered.consumer_seq > 0

        async def finished(state: ConsumerInfo) -> bool:
            acknowledged = state.ack_floor is not None and state.ack_floor.stream_seq >= messages
            return acknowledged and (await self.jetstream.stream_info(RESULTS)).state.messages >= results

        await self._until(begun, process, stream, durable)
        began, cpu = time.perf_counter(), process.cpu_seconds()
        await self._until(finished, process, stream, durable)
        return Observed(time.perf_counter() - began, process.cpu_seconds() - cpu)

    async def until_waiting(self, process: Process, stream: str, durable: str) -> None:
        """Until the consumer is there and somebody asks for its messages."""

        async def waiting(state: ConsumerInfo) -> bool:
            return bool(state.num_waiting)

        await self._until(waiting, process, stream, durable)

    async def until_done(self, process: Process, stream: str, durable: str, messages: int) -> None:
        async def done(state: ConsumerInfo) -> bool:
            return state.ack_floor is not None and state.ack_floor.stream_seq >= messages

        await self._until(done, process, stream, durable)

    async def until_held(self, process: Process, stream: str, durable: str, messages: int) -> None:
        """Until all messages are delivered, none is acknowledged, and the process has stopped growing."""
        size = 0

        async def held(state: ConsumerInfo) -> bool:
            nonlocal size
            before, size = size, process.resident_bytes()
            return state.num_ack_pending == messages and size <= before * _STILL

        await self._until(held, process, stream, durable, every=1.0)

    async def stored(self, stream: str) -> AsyncIterator[tuple[float, bytes]]:
        """What a stream holds: when each message was stored, in unix seconds, and its payload."""
        last = (await self.jetstream.stream_info(stream)).state.last_seq
        for seq in range(1, last + 1):
            found = await self.jetstream.get_msg(stream, seq)
            assert found.time is not None
            yield found.time.timestamp(), found.data or b""

    async def _until(
        self,
        so: Callable[[ConsumerInfo], Awaitable[bool]],
        process: Process,
        stream: str,
        durable: str,
        every: float = _LOOK,
    ) -> None:
        """Look at a consumer until it is so, for as long as the process lives."""
        end = time.monotonic() + _LONGEST
        while True:
            with suppress(NotFoundError):
                if await so(await self.jetstream.consumer_info(stream, durable)):
                    return
            process.check()
            if time.monotonic() > end:
                raise RuntimeError(f"this takes longer than {_LONGEST:g} s")
            await asyncio.sleep(every)


def message(key: int, number: int) -> bytes:
    """A reading of a device, as JSON of just the size that all have."""
    reading: dict[str, Any] = {"device": f"device-{key:05}", "value": number % 1000 / 8, "number": number, "text": ""}
    short = MESSAGE_BYTES - len(json.dumps(reading))
    return json.dumps({**reading, "text": "x" * short}).encode()

"""What the tests of the intake share: a stream of numbers, and intakes that are put away again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

from brokers import Nats

from aipod.errors import Unavailable
from aipod.stream.broker.connection import Connect, Connection, connect
from aipod.stream.broker.consumer import ConsumerSpec, ConsumerState, ensure
from aipod.stream.broker.intake import Intake
from aipod.stream.message import Message

# Seconds that a test may take, its waits for conditions included.
_BOUND = 60.0


class Numbers:
    """A stream ``name`` of ``<name>.<subject>`` whose messages are numbers, counted on from 1."""

    def __init__(self, conn: Connection, nats: Nats, name: str) -> None:
        self.conn = conn
        self.nats = nats
        self.name = name
        self.published = 0
        self._intakes: list[Intake] = []
        self._others: list[Connection] = []

    async def publish(self, count: int, subject: str = "a") -> None:
        for _ in range(count):
            self.published += 1
            await self.conn.nc.publish(f"{self.name}.{subject}", b"%d" % self.published)
        await self.conn.nc.flush()
        await self.settle()

    async def settle(self) -> None:
        """Wait until all that was published is stored."""
        while (await self.info())["state"]["last_seq"] < self.published:
            await asyncio.sleep(0.005)

    async def info(self) -> dict[str, Any]:
        return await self.conn.api(f"STREAM.INFO.{self.name}")

    async def consumer(self, durable: str = "d") -> dict[str, Any]:
        return await self.conn.api(f"CONSUMER.INFO.{self.name}.{durable}")

    def spec(self, **more: Any) -> ConsumerSpec:
        return ConsumerSpec(**{"durable": "d", "stream": self.name, "ack_wait": 1.0, **more})

    async def intake(
        self,
        spec: ConsumerSpec | None = None,
        conn: Connection | None = None,
        delivered: int | None = None,
        state: ConsumerState | None = None,
        **more: Any,
    ) -> Intake:
        conn, spec = conn or self.conn, spec or self.spec()
        intake = Intake(conn, spec, state or await ensure(conn, spec), **more)
        self._intakes.append(intake)
        await intake.start(delivered=delivered)
        return intake

    async def crashed(self, intake: Intake, conn: Connection) -> None:
        """End an intake as SIGKILL would: nothing is said to the broker, its connection is just gone."""
        self._intakes.remove(intake)
        await conn.nc.close()
        await intake.leave()

    async def other(self) -> Connection:
        conn = await connect(self.conn.spec, wait=5)
        self._others.append(conn)
        return conn

    async def close(self) -> None:
        for intake in self._intakes:
            await intake.leave()
        for conn in [*self._others, self.conn]:
            await conn.close()


async def take(intake: Intake, count: int, bound: float = 20.0) -> list[Message]:
    """Get so many messages, neither more nor less, and check their order."""
    messages: list[Message] = []
    end = time.monotonic() + bound
    while len(messages) < count:
        left = end - time.monotonic()
        assert left > 0, f"{len(messages)} of {count} came"
        messages += await intake.get(left)
    assert len(messages) == count
    seqs = [message.seq for message in messages]
    assert seqs == sorted(set(seqs))
    return messages


async def all_acknowledged(numbers: Numbers, *intakes: Intake, bound: float = 20.0) -> None:
    """Wait until the broker has every acknowledgement; nothing new may come meanwhile."""
    end = time.monotonic() + bound
    while True:
        left: object = "the broker is away"
        with contextlib.suppress(Unavailable):
            about = await numbers.consumer()
            if not (left := about["num_ack_pending"] + about["num_pending"]):
                return
        assert time.monotonic() < end, f"not acknowledged: {left}"
        for intake in intakes:
            assert await intake.get(0.02) == []
        await asyncio.sleep(0.005)


def values_of(messages: list[Message]) -> list[int]:
    return [int(message.data) for message in messages]


async def steal(numbers: Numbers, conn: Connection, count: int) -> None:
    """Take deliveries of the same durable away, and never acknowledge them."""
    sub = await conn.js.pull_subscribe_bind(durable="d", stream=numbers.name)
    left = count
    while left:
        left -= len(await sub.fetch(left, timeout=5))
    await sub.unsubscribe()


async def idle_with_one(numbers: Numbers) -> Intake:
    """An intake that holds one message, which is all that it may, and asks for nothing."""
    intake = await numbers.intake(numbers.spec(ack_wait=60.0), max_bytes=1, look_every=600.0)
    await numbers.publish(1)
    await take(intake, 1)
    while (await numbers.consumer())["num_waiting"]:  # its requests run out
        assert await intake.get(0.1) == []
    return intake


def run(nats: Nats, body: Callable[[Numbers], Awaitable[None]], **stream: Any) -> None:
    async def main() -> None:
        conn = await connect(Connect(servers=(nats.url,)), wait=5)
        name = nats.unique("numbers")
        numbers = Numbers(conn, nats, name)
        try:
            await conn.js.add_stream(name=name, subjects=[f"{name}.>"], **stream)
            # A wait for what never comes is a failure, and not the end of the run.
            await asyncio.wait_for(body(numbers), _BOUND)
        finally:
            await numbers.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())

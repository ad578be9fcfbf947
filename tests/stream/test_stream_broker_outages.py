"""The intake while its broker is killed, restarted, frozen or away.

Where a test says ``ack_wait=60``, a redelivery would come far too late for it.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from typing import Any

import pytest
from brokers import Nats, until
from intakes import Numbers, all_acknowledged, idle_with_one, run, steal, take, values_of

from aipod.errors import AipodError
from aipod.stream.broker.connection import Connection


def test_a_pull_that_is_lost_when_the_broker_restarts_is_made_again(own_nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        intake = await numbers.intake(numbers.spec(ack_wait=60.0))
        await numbers.publish(10)
        await take(intake, 10)
        for kill in (own_nats.server.kill, own_nats.server.stop):
            getting = asyncio.ensure_future(intake.get(20.0))
            await asyncio.to_thread(kill)
            await until(lambda: not numbers.conn.connected)
            generation = numbers.conn.generation
            await asyncio.to_thread(own_nats.server.start)
            await until(lambda generation=generation: numbers.conn.generation > generation)
            await numbers.publish(1)
            back = time.monotonic()
            assert values_of(await getting) == [numbers.published]
            assert time.monotonic() - back < 10  # two seconds, but a machine may be busy
        intake.done(range(1, 13))
        await all_acknowledged(numbers, intake)

    run(own_nats, body)


def test_what_was_delivered_and_lost_before_a_reconnection_is_found_by_it(own_nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        intake = await idle_with_one(numbers)
        thief = await numbers.other()
        await numbers.publish(2)
        await steal(numbers, thief, 2)
        await asyncio.to_thread(own_nats.server.restart)
        await until(lambda: numbers.conn.generation == 2)
        intake.done([1])
        assert values_of(await take(intake, 2, bound=10)) == [2, 3]

    run(own_nats, body)


def test_an_error_that_nobody_foresaw_ends_no_acknowledging(nats: Nats, caplog: pytest.LogCaptureFixture) -> None:
    async def body(numbers: Numbers) -> None:
        await numbers.publish(4)
        intake = await numbers.intake()
        await take(intake, 4)
        publish = numbers.conn.nc.publish

        async def broken(*_: Any, **__: Any) -> None:
            numbers.conn.nc.publish = publish  # type: ignore[method-assign]
            raise RuntimeError("nobody foresaw this")

        numbers.conn.nc.publish = broken  # type: ignore[method-assign]
        intake.done([1, 2])
        await until(lambda: "nobody foresaw this" in caplog.text)
        intake.done([3, 4])
        while (await numbers.consumer())["num_ack_pending"] > 2:
            await asyncio.sleep(0.01)

    run(nats, body)


def test_an_acknowledgement_while_the_broker_is_away_is_made_up_for(own_nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        intake = await numbers.intake()
        await numbers.publish(100)
        await take(intake, 100)
        own_nats.server.kill()
        await until(lambda: not numbers.conn.connected)
        assert not intake.caught_up or await intake.settled() is None
        intake.done(range(1, 101))
        assert await intake.get(0.3) == []
        await asyncio.to_thread(own_nats.server.start)
        await until(lambda: numbers.conn.connected)
        await all_acknowledged(numbers, intake)
        assert intake.held_messages == 0

    run(own_nats, body)


def test_a_broker_that_freezes_is_no_more_than_a_pause(own_nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        intake = await numbers.intake()
        await numbers.publish(10)
        await take(intake, 10)
        os.kill(own_nats.server.pid, signal.SIGSTOP)
        try:
            assert await intake.get(2.5) == []
        finally:
            os.kill(own_nats.server.pid, signal.SIGCONT)
        await numbers.publish(10)
        await take(intake, 10)
        intake.done(range(1, 21))
        await all_acknowledged(numbers, intake)

    run(own_nats, body)


def test_nothing_is_lost_doubled_or_out_of_order_while_the_broker_is_killed_again_and_again(own_nats: Nats) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    total = 5000

    async def publish(numbers: Numbers, conn: Connection) -> None:
        for first in range(1, total + 1, 100):
            missing = list(range(first, first + 100))
            while missing:
                sent = [
                    conn.js.publish(
                        f"{numbers.name}.a", b"%d" % number, timeout=1, headers={"Nats-Msg-Id": str(number)}
                    )
                    for number in missing
                ]
                results = await asyncio.gather(*sent, return_exceptions=True)
                missing = [n for n, result in zip(missing, results, strict=True) if isinstance(result, Exception)]
                await asyncio.sleep(0.01)

    async def kill() -> None:
        for _ in range(5):
            await asyncio.sleep(chance.uniform(0.1, 0.5))
            await asyncio.to_thread(own_nats.server.kill)
            await asyncio.to_thread(own_nats.server.start)

    async def body(numbers: Numbers) -> None:
        intake = await numbers.intake(numbers.spec(max_ack_pending=1000))
        killing = asyncio.ensure_future(kill())
        publishing = asyncio.ensure_future(publish(numbers, await numbers.other()))
        seqs: list[int] = []
        values: list[int] = []
        waiting: list[int] = []
        while len(seqs) < total or not killing.done():
            messages = await intake.get(10.0 if len(seqs) < total else 0.1)
            seqs += [message.seq for message in messages]
            values += values_of(messages)
            waiting += [message.seq for message in messages]
            if len(waiting) > 200 or len(seqs) == total:
                intake.done(waiting)
                waiting = []
        await asyncio.gather(killing, publishing)
        assert seqs == list(range(1, total + 1))
        assert sorted(values) == list(range(1, total + 1))
        await all_acknowledged(numbers, intake)

    run(own_nats, body)


def test_leaving_while_the_broker_is_away_is_quick_and_silent(own_nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        intake = await numbers.intake()
        await numbers.publish(10)
        await take(intake, 10)
        own_nats.server.kill()
        await until(lambda: not numbers.conn.connected)
        await asyncio.wait_for(intake.leave(), 5)

    run(own_nats, body)


def test_errors_of_the_broker_s_client_never_come_through(own_nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        intake = await numbers.intake()
        await numbers.publish(10)
        await take(intake, 10)
        await numbers.conn.nc.close()  # the worst that can happen to it
        try:
            assert await intake.get(0.3) == []
        except AipodError:
            pytest.fail("it may come back")

    run(own_nats, body)

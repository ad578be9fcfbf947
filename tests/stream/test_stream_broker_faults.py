"""The intake when things break: what is lost on the way is read from the stream, and nobody waits for a redelivery.

Where a test says ``ack_wait=60``, a redelivery would come far too late for it.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time

import pytest
from brokers import Nats, until
from intakes import Numbers, all_acknowledged, run, take

from aipod.errors import AipodError, ConfigError, Unavailable
from aipod.stream.broker.connection import Connection
from aipod.stream.broker.consumer import NoStream, ensure
from aipod.stream.broker.intake import Intake
from aipod.stream.message import Message


def _values(messages: list[Message]) -> list[int]:
    return [int(message.data) for message in messages]


async def _steal(numbers: Numbers, conn: Connection, count: int) -> None:
    """Take deliveries of the same durable away, and never acknowledge them."""
    sub = await conn.js.pull_subscribe_bind(durable="d", stream=numbers.name)
    left = count
    while left:
        left -= len(await sub.fetch(left, timeout=5))
    await sub.unsubscribe()


def test_deliveries_that_went_elsewhere_are_read_from_the_stream(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        spec = numbers.spec(ack_wait=60.0)
        await numbers.publish(300)
        state = await ensure(numbers.conn, spec)
        await _steal(numbers, await numbers.other(), 250)
        intake = await numbers.intake(spec, state=state)
        assert _values(await take(intake, 300)) == list(range(1, 301))

    run(nats, body)


def test_a_lost_end_is_found_without_a_delivery_behind_it(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        intake = await numbers.intake(numbers.spec(ack_wait=60.0, max_ack_pending=1000), look_every=0.2)
        await numbers.publish(1)
        await take(intake, 1)
        thief = await numbers.other()
        stealing = asyncio.ensure_future(_steal(numbers, thief, 1))
        values: list[int] = []
        while not stealing.done():
            await numbers.publish(1)
            values += _values(await intake.get(0.05))
        while len(values) < numbers.published - 1:
            messages = await intake.get(5.0)
            assert messages
            values += _values(messages)
        assert values == list(range(2, numbers.published + 1))

    run(nats, body)


def test_two_that_pull_from_one_consumer_are_both_complete(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        spec = numbers.spec(ack_wait=60.0)
        one = await numbers.intake(spec, look_every=0.2)
        other = await numbers.intake(spec, await numbers.other(), look_every=0.2)

        async def collect(intake: Intake) -> list[int]:
            values: list[int] = []
            while len(values) < 2000:
                messages = await intake.get(5.0)
                assert messages
                values += _values(messages)
                intake.done(message.seq for message in messages)
            return values

        collecting = asyncio.gather(collect(one), collect(other))
        for _ in range(20):
            await numbers.publish(100)
        for values in await collecting:
            assert values == list(range(1, 2001))

    run(nats, body)


def test_after_a_crash_everything_is_there_at_once(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        spec = numbers.spec(ack_wait=60.0)
        await numbers.publish(1500)
        lost = await numbers.other()
        first = await numbers.intake(spec, lost)
        await take(first, 1500)
        first.done([*range(1, 101), *range(500, 600)])
        await until(lambda: lost.nc.pending_data_size == 0)
        while (await numbers.consumer())["num_ack_pending"] > 1300:
            await asyncio.sleep(0.01)
        await numbers.crashed(first, lost)
        second = await numbers.intake(spec)
        assert (second.state.floor, second.state.delivered) == (100, 1500)
        # Those in the middle are done; the windows know that, and the intake hands them out again.
        assert _values(await take(second, 1400, bound=10)) == list(range(101, 1501))

    run(nats, body)


def test_redeliveries_after_a_crash_are_acknowledged_as_soon_as_their_messages_are_done(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        spec = numbers.spec(max_ack_pending=100)
        await numbers.publish(150)
        lost = await numbers.other()
        first = await numbers.intake(spec, lost)
        await take(first, 100)
        await numbers.crashed(first, lost)
        second = await numbers.intake(spec)
        await take(second, 100)  # as many as may be out, none of which can be acknowledged yet
        second.done(range(1, 51))
        assert _values(await take(second, 50)) == list(range(101, 151))
        second.done(range(51, 151))
        await all_acknowledged(numbers, second)

    run(nats, body)


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
            assert _values(await getting) == [numbers.published]
            assert time.monotonic() - back < 10  # two seconds, but a machine may be busy
        intake.done(range(1, 13))
        await all_acknowledged(numbers, intake)

    run(own_nats, body)


def test_what_was_delivered_and_lost_before_a_reconnection_is_found_by_it(own_nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        intake = await numbers.intake(numbers.spec(ack_wait=60.0), max_bytes=1, look_every=600.0)
        await numbers.publish(1)
        await take(intake, 1)
        # It holds more than it may, so it asks for nothing more, and its requests run out.
        while (await numbers.consumer())["num_waiting"]:
            assert await intake.get(0.1) == []
        thief = await numbers.other()
        await numbers.publish(2)
        await _steal(numbers, thief, 2)
        await asyncio.to_thread(own_nats.server.restart)
        await until(lambda: numbers.conn.generation == 2)
        intake.done([1])
        assert _values(await take(intake, 2, bound=10)) == [2, 3]

    run(own_nats, body)


def test_what_was_read_from_the_stream_is_kept_alive_once_it_has_been_delivered_again(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        await numbers.publish(10)
        lost = await numbers.other()
        first = await numbers.intake(conn=lost)
        await take(first, 10)
        await numbers.crashed(first, lost)
        second = await numbers.intake()
        await take(second, 10)
        while second.redelivered < 10:
            assert await second.get(0.1) == []
        end = time.monotonic() + 2.5  # ack_wait is one second
        while time.monotonic() < end:
            assert await second.get(0.2) == []
        assert second.redelivered == 10
        second.done(range(1, 11))
        await all_acknowledged(numbers)

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
            values += _values(messages)
            waiting += [message.seq for message in messages]
            if len(waiting) > 200 or len(seqs) == total:
                intake.done(waiting)
                waiting = []
        await asyncio.gather(killing, publishing)
        assert seqs == list(range(1, total + 1))
        assert sorted(values) == list(range(1, total + 1))
        await all_acknowledged(numbers, intake)

    run(own_nats, body)


def test_a_purge_leaves_a_gap_of_nothing(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        spec = numbers.spec(ack_wait=60.0, max_ack_pending=10)
        await numbers.publish(100)
        intake = await numbers.intake(spec)
        await take(intake, 10)
        await numbers.conn.js.purge_stream(numbers.name, seq=51)
        intake.done(range(1, 11))
        values: list[int] = []
        while not values or values[-1] < 100:
            messages = await intake.get(5.0)
            assert messages
            values += _values(messages)
            intake.done(message.seq for message in messages)
        # What was on its way already still comes.
        assert values[-50:] == list(range(51, 101))
        await numbers.conn.js.purge_stream(numbers.name)
        await numbers.publish(1)
        assert _values(await take(intake, 1)) == [101]

    run(nats, body)


def test_what_was_deleted_from_the_stream_is_not_missed_after_a_crash(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        spec = numbers.spec(ack_wait=60.0)
        await numbers.publish(200)
        lost = await numbers.other()
        first = await numbers.intake(spec, lost)
        await take(first, 200)
        await numbers.crashed(first, lost)
        for seq in (1, 2, 77, 200):
            await numbers.conn.js.delete_msg(numbers.name, seq)
        second = await numbers.intake(spec)
        assert _values(await take(second, 196)) == [n for n in range(3, 200) if n != 77]
        await numbers.publish(1)
        assert _values(await take(second, 1)) == [201]

    run(nats, body)


def test_a_consumer_that_is_deleted_is_made_again_behind_what_is_done(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        intake = await numbers.intake()
        await numbers.publish(20)
        await take(intake, 20)
        intake.done([*range(1, 11), 15])
        while (await numbers.consumer())["num_ack_pending"] != 9:
            await asyncio.sleep(0.01)
        await numbers.conn.js.delete_consumer(numbers.name, "d")
        await numbers.publish(5)
        assert _values(await take(intake, 5)) == list(range(21, 26))
        intake.done(range(11, 26))
        await all_acknowledged(numbers, intake)
        assert (await numbers.consumer())["config"]["opt_start_seq"] == 11

    run(nats, body)


def test_a_consumer_that_is_deleted_ends_the_task_that_says_so(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        intake = await numbers.intake(on_deleted="fail")
        await numbers.conn.js.delete_consumer(numbers.name, "d")
        with pytest.raises(ConfigError, match="was deleted while its task ran"):
            await intake.get(10.0)

    run(nats, body)


def test_a_stream_that_is_deleted_is_waited_for_and_then_all_begins_anew(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        intake = await numbers.intake()
        await numbers.publish(5)
        await take(intake, 5)
        await numbers.conn.js.delete_stream(numbers.name)
        assert await intake.get(1.0) == []
        assert not intake.caught_up
        await numbers.conn.js.add_stream(name=numbers.name, subjects=[f"{numbers.name}.>"])
        with pytest.raises(Unavailable, match="was made anew"):
            await intake.get(10.0)

    run(nats, body)


def test_a_stream_that_is_deleted_ends_the_task_that_says_so(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        intake = await numbers.intake(on_deleted="fail")
        await numbers.conn.js.delete_stream(numbers.name)
        with pytest.raises(NoStream):
            await intake.get(10.0)

    run(nats, body)


def test_a_consumer_that_somebody_changed_is_noticed(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        intake = await numbers.intake(look_every=0.2)
        assert await intake.get(0.05) == []
        config = (await numbers.consumer())["config"]
        config["max_deliver"] = 3
        request = {"stream_name": numbers.name, "config": config, "action": "update"}
        await numbers.conn.api(f"CONSUMER.DURABLE.CREATE.{numbers.name}.d", request)
        with pytest.raises(ConfigError, match="max_deliver is 3, and the task needs -1"):
            await intake.get(10.0)

    run(nats, body)


def test_pulls_that_were_abandoned_do_not_stall_those_that_follow(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        spec = numbers.spec(ack_wait=60.0)
        for _ in range(5):
            lost = await numbers.other()
            abandoned = await numbers.intake(spec, lost)
            assert await abandoned.get(0.02) == []
            await numbers.crashed(abandoned, lost)
        intake = await numbers.intake(spec)
        for _ in range(20):
            await numbers.publish(1)
            assert _values(await take(intake, 1, bound=10)) == [numbers.published]

    run(nats, body)


def test_what_is_done_twice_or_was_never_handed_out_is_no_matter(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        intake = await numbers.intake()
        await numbers.publish(3)
        await take(intake, 3)
        intake.done([1, 2, 3])
        intake.done([3, 2, 1, 99])
        assert intake.held_bytes == 0
        await all_acknowledged(numbers, intake)

    run(nats, body)


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

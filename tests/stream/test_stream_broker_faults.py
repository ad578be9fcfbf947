"""The intake when things break: what is lost on the way is read from the stream, and nobody waits for a redelivery.

Where a test says ``ack_wait=60``, a redelivery would come far too late for it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from brokers import Nats, until
from intakes import Numbers, all_acknowledged, idle_with_one, run, steal, take, values_of

from aipod.errors import ConfigError, Unavailable
from aipod.stream.broker.connection import Connect, connect
from aipod.stream.broker.consumer import ensure
from aipod.stream.broker.intake import Intake
from aipod.stream.errors import NoStream


def test_deliveries_that_went_elsewhere_are_read_from_the_stream(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        spec = numbers.spec(ack_wait=60.0)
        await numbers.publish(300)
        state = await ensure(numbers.conn, spec)
        await steal(numbers, await numbers.other(), 250)
        intake = await numbers.intake(spec, state=state)
        assert values_of(await take(intake, 300)) == list(range(1, 301))

    run(nats, body)


def test_a_redelivery_behind_a_gap_does_not_close_it(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        intake = await idle_with_one(numbers)
        await numbers.publish(2)
        await steal(numbers, await numbers.other(), 2)
        # The first is delivered again, behind those two, and right before the next new one.
        await numbers.conn.nc.publish(intake._held[1][0], b"-NAK")
        await numbers.publish(1)
        intake._max_bytes = 1_000_000
        assert values_of(await take(intake, 3, bound=10)) == [2, 3, 4]
        assert intake.redelivered == 1

    run(nats, body)


def test_what_is_stored_and_was_never_asked_for_is_not_settled(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        intake = await idle_with_one(numbers)
        assert await intake.settled() is not None
        await numbers.publish(1)
        assert intake.caught_up  # as far as it can know
        assert await intake.settled() is None
        intake.done([1])
        (message,) = await take(intake, 1)
        settled = await intake.settled()
        assert settled is not None and settled > message.stored

    run(nats, body)


def test_requests_that_vanish_without_a_word_are_made_again(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        async with _swallowing(numbers.nats) as (url, swallow):
            conn = await connect(Connect(servers=(url,)), wait=5)
            try:
                swallow.set()
                intake = await numbers.intake(numbers.spec(ack_wait=60.0), conn, look_every=600.0)
                await numbers.publish(5)
                assert await intake.get(0.1) == []
                swallow.clear()
                assert values_of(await take(intake, 5)) == [1, 2, 3, 4, 5]
                assert conn.generation == 1
            finally:
                await conn.close()

    run(nats, body)


@asynccontextmanager
async def _swallowing(nats: Nats) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A way to the broker that loses pull requests while an event is set."""
    swallow = asyncio.Event()
    request = re.compile(rb"PUB \S+\.CONSUMER\.MSG\.NEXT\.[^\r]*\r\n[^\r]*\r\n")
    pumps: list[asyncio.Task[None]] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upwards: bool) -> None:
        while data := await reader.read(65_536):
            writer.write(request.sub(b"", data) if upwards and swallow.is_set() else data)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", nats.server.port)
        pumps.append(asyncio.ensure_future(pump(reader, back, True)))
        pumps.append(asyncio.ensure_future(pump(there, writer, False)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}", swallow
    finally:
        server.close()
        await asyncio.gather(*pumps, return_exceptions=True)


def test_a_lost_end_is_found_without_a_delivery_behind_it(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        intake = await numbers.intake(numbers.spec(ack_wait=60.0, max_ack_pending=1000), look_every=0.2)
        await numbers.publish(1)
        await take(intake, 1)
        thief = await numbers.other()
        stealing = asyncio.ensure_future(steal(numbers, thief, 1))
        values: list[int] = []
        while not stealing.done():
            await numbers.publish(1)
            values += values_of(await intake.get(0.05))
        while len(values) < numbers.published - 1:
            messages = await intake.get(5.0)
            assert messages
            values += values_of(messages)
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
                values += values_of(messages)
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
        assert values_of(await take(second, 1400, bound=10)) == list(range(101, 1501))

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
        assert values_of(await take(second, 50)) == list(range(101, 151))
        second.done(range(51, 151))
        await all_acknowledged(numbers, second)

    run(nats, body)


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
            values += values_of(messages)
            intake.done(message.seq for message in messages)
        # What was on its way already still comes.
        assert values[-50:] == list(range(51, 101))
        await numbers.conn.js.purge_stream(numbers.name)
        await numbers.publish(1)
        assert values_of(await take(intake, 1)) == [101]

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
        assert values_of(await take(second, 196)) == [n for n in range(3, 200) if n != 77]
        await numbers.publish(1)
        assert values_of(await take(second, 1)) == [201]

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
        assert values_of(await take(intake, 5)) == list(range(21, 26))
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
            assert values_of(await take(intake, 1, bound=10)) == [numbers.published]

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

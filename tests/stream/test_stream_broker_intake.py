"""The intake when nothing breaks: in order, each once, bounded, acknowledged when done."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import pytest
from brokers import Nats, until
from intakes import Numbers, all_acknowledged, run, take, values_of

from aipod.stream.broker.reader import Reader
from aipod.stream.message import Message


def test_messages_come_in_order_each_once_and_are_acknowledged_when_done(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        intake = await numbers.intake()
        assert await intake.get(0.05) == []
        await numbers.publish(2500)
        messages = await take(intake, 2500)
        assert values_of(messages) == list(range(1, 2501))
        assert intake.held_messages == 2500 and intake.position == 2500 and intake.floor == 0
        intake.done(range(1, 1001))
        assert intake.floor == 1000
        intake.done(range(1001, 2501))
        assert (intake.floor, intake.held_messages, intake.held_bytes) == (2500, 0, 0)
        await all_acknowledged(numbers)
        assert intake.redelivered == 0

    run(nats, body)


def test_a_message_is_as_it_was_published_and_the_same_when_read_from_the_stream(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        subject = f"{numbers.name}.a.b"
        odd = {"plain": "x", "Grad": "grün 20°", "crlf": "a\r\nb: c", "": "dropped", "empty": "", "colon": "a:b"}
        await numbers.conn.js.publish(subject, b"\x00\xff", headers=odd)
        await numbers.conn.js.publish(subject, b"", headers={"": "only"})
        await numbers.conn.js.publish(subject, b"")
        delivered = await take(await numbers.intake(), 3)
        read = await take(await numbers.intake(numbers.spec(durable="e"), delivered=3), 3)
        assert delivered[0].headers == {
            "plain": "x",
            "Grad": "grün 20°",
            "crlf": "a  b: c",
            "empty": "",
            "colon": "a:b",
        }
        assert [message.headers for message in delivered[1:]] == [{}, {}]
        for one, two in zip(delivered, read, strict=True):
            assert (one.seq, one.stored, one.subject, one.data, one.headers) == (
                two.seq,
                two.stored,
                two.subject,
                two.data,
                two.headers,
            )

    run(nats, body)


def test_several_subjects_and_wildcards_come_in_stream_order(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        subjects = ("x.1", "y", "z", "x.2")
        for _ in range(20):
            for subject in subjects:
                await numbers.publish(1, subject)
        spec = numbers.spec(subjects=(f"{numbers.name}.x.*", f"{numbers.name}.z"))
        expected = [number for number in range(1, 81) if number % 4 != 2]
        first = await numbers.intake(spec)
        assert values_of(await take(first, 60)) == expected
        await first.leave()
        # All of it was delivered and nothing acknowledged, so the next one reads it from the stream.
        second = await numbers.intake(spec)
        assert values_of(await take(second, 60)) == expected
        second.done(expected)
        await all_acknowledged(numbers, second)

    run(nats, body)


def test_a_rare_subject_and_then_a_frequent_one_are_read_whole_and_in_bounded_pieces(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        await numbers.publish(1, "a")
        await numbers.publish(3000, "b")
        await numbers.publish(3000, "a")
        reader = Reader(numbers.conn, numbers.name, (f"{numbers.name}.a", f"{numbers.name}.none"))
        pieces = [piece async for piece in reader.read(1, 6001)]
        assert values_of([message for piece in pieces for message in piece]) == [1, *range(3002, 6002)]
        assert max(map(len, pieces)) <= 2048
        assert [piece async for piece in reader.read(2, 3001)] == []
        assert values_of([message for piece in [p async for p in reader.read(6001, 9999)] for message in piece]) == [
            6001
        ]

    run(nats, body)


def test_large_messages_are_read_in_pieces_of_few_and_each_about_once(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        large = b"x" * 500_000
        for first in range(0, 200, 20):
            await asyncio.gather(*(numbers.conn.js.publish(f"{numbers.name}.a", large) for _ in range(20)))
            del first
        read = 0
        ask = numbers.conn.api

        async def counted(what: str, *more: Any, **named: Any) -> Any:
            nonlocal read
            read += what.startswith("STREAM.MSG.GET")
            return await ask(what, *more, **named)

        numbers.conn.api = counted  # type: ignore[method-assign]
        reader = Reader(numbers.conn, numbers.name, (f"{numbers.name}.>",))
        pieces = [piece async for piece in reader.read(1, 200)]
        assert [message.seq for piece in pieces for message in piece] == list(range(1, 201))
        assert max(sum(len(message.data) for message in piece) for piece in pieces) <= 48 << 20
        assert read <= 300

    run(nats, body)


def test_no_more_is_held_than_the_consumer_lets_out(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        await numbers.publish(100)
        intake = await numbers.intake(numbers.spec(max_ack_pending=32))
        first = await take(intake, 32)
        assert await intake.get(0.3) == []
        assert not intake.caught_up and intake.lag == 68
        intake.done(message.seq for message in first[:8])
        assert values_of(await take(intake, 8)) == list(range(33, 41))
        assert await intake.get(0.1) == []
        intake.done(range(9, 41))
        for seqs in (range(41, 73), range(73, 101)):
            await take(intake, len(seqs))
            intake.done(seqs)
        await all_acknowledged(numbers)
        assert intake.redelivered == 0

    run(nats, body)


def test_who_reads_slowly_is_sent_no_more_than_was_asked_for_and_misses_nothing(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        await numbers.publish(6000)
        intake = await numbers.intake()
        messages: list[Message] = []
        while len(messages) < 6000:
            messages += await intake.get(5.0)
            # Two requests of 1000 are out at most, and nobody reads what they bring.
            await numbers.info()
            sent = (await numbers.consumer())["delivered"]["stream_seq"]
            assert sent <= len(messages) + 2000
        assert values_of(messages) == list(range(1, 6001))

    run(nats, body)


def test_what_is_held_is_bounded_in_bytes_too(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        for _ in range(40):
            await numbers.conn.js.publish(f"{numbers.name}.a", bytes(500_000))
        intake = await numbers.intake(max_bytes=4_000_000)
        got: list[Message] = []
        while batch := await intake.get(0.5):
            got += batch
        # One request more may be on its way, and none asks for less than the largest message.
        assert 8 <= len(got) <= 14
        assert not intake.caught_up
        seen = len(got)
        while seen < 40:
            intake.done(message.seq for message in got)
            got = await intake.get(5.0)
            seen += len(got)
        intake.done(message.seq for message in got)
        await all_acknowledged(numbers)

    run(nats, body)


def test_a_message_as_large_as_the_broker_allows_comes_through(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        size = numbers.conn.nc.max_payload
        headers = {"h": "x" * 60_000}
        await numbers.conn.js.publish(f"{numbers.name}.a", bytes(size - 61_000), headers=headers)
        await numbers.conn.js.publish(f"{numbers.name}.a", bytes(size))
        intake = await numbers.intake(max_bytes=1000)
        assert len((await take(intake, 1))[0].data) == size - 61_000
        intake.done([1])
        assert len((await take(intake, 1))[0].data) == size
        intake.done([2])
        await all_acknowledged(numbers)

    run(nats, body)


def test_a_get_that_is_cancelled_again_and_again_loses_nothing(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        intake = await numbers.intake()
        await numbers.publish(300)
        await intake.leave()
        intake = await numbers.intake()  # from the stream first, then from deliveries
        publishing = asyncio.ensure_future(numbers.publish(300))
        values: list[int] = []
        patience = itertools.cycle((0.0005, 0.002, 0.0, 0.2))
        while len(values) < 600:
            getting = asyncio.ensure_future(intake.get(1.0))
            done, _ = await asyncio.wait({getting}, timeout=next(patience))
            if not done:
                getting.cancel()
                await asyncio.wait({getting})
            if not getting.cancelled():
                values += values_of(getting.result())
        await publishing
        assert values == list(range(1, 601))

    run(nats, body)


def test_what_is_worked_on_for_long_is_not_delivered_again(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        await numbers.publish(50)
        intake = await numbers.intake()
        await take(intake, 50)
        end = time.monotonic() + 2.6  # ack_wait is one second
        while time.monotonic() < end:
            assert await intake.get(0.2) == []
        assert intake.redelivered == 0
        assert (await numbers.consumer())["num_redelivered"] == 0
        intake.done(range(1, 51))
        await all_acknowledged(numbers)

    run(nats, body)


def test_who_leaves_gives_back_at_once_what_it_held(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        await numbers.publish(20)
        spec = numbers.spec(ack_wait=60.0)
        first = await numbers.intake(spec)
        await take(first, 20)
        first.done(range(1, 11))
        await first.leave()
        assert first.held_messages == 0
        await first.leave()
        second = await numbers.intake(spec)
        assert second.state.floor == 10
        assert values_of(await take(second, 10, bound=5)) == list(range(11, 21))
        # Given back, so it is delivered again without the wait of a minute, and can be acknowledged.
        second.done(range(11, 21))
        await all_acknowledged(numbers, second)

    run(nats, body)


def test_what_is_done_while_it_is_uncertain_who_leads_is_acknowledged_when_it_is_certain(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        certain = False
        intake = await numbers.intake(numbers.spec(ack_wait=60.0), sure=lambda: certain)
        await numbers.publish(10)
        await take(intake, 10)
        intake.done(range(1, 5))
        intake.done(range(5, 7))
        assert await intake.get(0.3) == []
        assert (await numbers.consumer())["num_ack_pending"] == intake.held_messages == 10
        certain = True
        assert await intake.get(0.3) == []
        assert intake.held_messages == 4
        intake.done(range(7, 9))
        certain = False
        intake.done([9])
        await intake.leave()
        assert (await numbers.consumer())["ack_floor"]["stream_seq"] == 8

    run(nats, body)


def test_caught_up_and_lag_tell_where_it_stands(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        empty = await numbers.intake(numbers.spec(durable="empty"))
        assert empty.caught_up and empty.lag == 0
        await numbers.publish(30)
        intake = await numbers.intake(numbers.spec(max_ack_pending=10))
        assert not intake.caught_up and intake.lag >= 20
        assert await intake.settled() is None
        for _ in range(3):
            messages = await take(intake, 10)
            intake.done(message.seq for message in messages)
        assert intake.caught_up and intake.lag == 0

    run(nats, body)


def test_a_settled_time_is_the_broker_s_and_behind_every_message(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        intake = await numbers.intake()
        before = await intake.settled()
        assert before is not None
        await numbers.publish(5)
        messages = await take(intake, 5)
        assert all(message.stored > before for message in messages)
        after = await intake.settled()
        assert after is not None and after > messages[-1].stored
        assert intake.now() >= after
        # What is stored and not handed out yet makes it uncertain, even before its delivery has arrived.
        publishing = await numbers.conn.js.publish(f"{numbers.name}.a", b"6")
        assert publishing.seq == 6
        settled = await intake.settled()
        (message,) = await take(intake, 1)
        assert settled is None or settled < message.stored

    run(nats, body)


def test_the_clock_of_an_intake_is_right_before_anything_came(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        await numbers.publish(1)
        intake = await numbers.intake(numbers.spec(start="new"))
        assert abs(intake.now() - time.time()) < 5  # broker and test are on one machine

    run(nats, body)


@pytest.mark.parametrize("retention", ["workqueue", "interest"])
def test_streams_that_drop_what_is_acknowledged_work_alike(nats: Nats, retention: str) -> None:
    async def body(numbers: Numbers) -> None:
        intake = await numbers.intake()
        await numbers.publish(100)
        await take(intake, 100)
        intake.done(range(1, 101, 2))
        await until(lambda: intake.held_messages == 50)
        await intake.leave()
        again = await numbers.intake()
        left = values_of(await take(again, 50))
        assert left == list(range(2, 101, 2))
        again.done(left)
        await all_acknowledged(numbers, again)
        assert (await numbers.info())["state"]["messages"] == 0

    run(nats, body, retention=retention)

"""What a stream removed before it was handed out is told: exactly, or, where nobody can know, at most so many."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest
from brokers import Nats, until
from intakes import Numbers, run, take

from aipod.stream.broker.consumer import ensure
from aipod.stream.broker.intake import Intake
from aipod.stream.broker.removals import Removals

Gaps = list[tuple[int, int, bool]]


def _told(intake: Intake) -> Gaps:
    """Where all that an intake tells of will be."""
    gaps: Gaps = []
    intake.removals.tell = lambda first, last, exact: gaps.append((first, last, exact))
    return gaps


async def _something_is(told: Gaps, intake: Intake) -> None:
    end = time.monotonic() + 20
    while not told:
        assert time.monotonic() < end
        assert await intake.get(0.05) == []


async def _crash_with(numbers: Numbers, count: int, **spec: Any) -> None:
    """Take so many messages, and vanish without a word."""
    lost = await numbers.other()
    intake = await numbers.intake(numbers.spec(ack_wait=60.0, **spec), lost)
    await take(intake, count)
    await numbers.crashed(intake, lost)


def test_what_was_removed_while_nobody_took_it_is_told_before_anything_else_comes(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        await (await numbers.intake()).leave()
        await numbers.publish(20)
        intake = await numbers.intake()
        told = _told(intake)
        await take(intake, 5)
        assert told == [(1, 15, True)]
        await numbers.publish(3)
        await take(intake, 3)
        assert len(told) == 1
        assert (await numbers.intake()).state.first == 19

    run(nats, body, max_msgs=5)


def test_what_is_removed_ahead_of_one_that_is_too_slow_is_told(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        intake = await numbers.intake(numbers.spec(max_ack_pending=10, ack_wait=60.0))
        told = _told(intake)
        await numbers.publish(20)
        await take(intake, 10)
        await numbers.publish(80)
        intake.done(range(1, 11))
        await take(intake, 10)
        assert told == [(11, 80, True)]
        await numbers.conn.js.delete_msg(numbers.name, 95)
        intake.done(range(81, 91))
        await take(intake, 9)
        assert told[1:] == [(95, 95, True)]

    run(nats, body, max_msgs=20)


def test_what_is_removed_is_told_even_if_nothing_comes_behind_it(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        intake = await numbers.intake(numbers.spec(max_ack_pending=1, ack_wait=60.0), look_every=0.1)
        told = _told(intake)
        await numbers.publish(7)
        await take(intake, 1)
        await _something_is(told, intake)
        intake.done([1])
        await numbers.publish(1)
        await take(intake, 1)
        assert told == [(2, 7, True)]

    run(nats, body, max_age=0.5)


def test_what_is_purged_is_told_once_there_is_room_for_more(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        intake = await numbers.intake(numbers.spec(max_ack_pending=1, ack_wait=60.0), look_every=0.1)
        told = _told(intake)
        await numbers.publish(7)
        await take(intake, 1)
        await numbers.conn.js.purge_stream(numbers.name)
        intake.done([1])
        await _something_is(told, intake)
        assert told == [(2, 7, True)]

    run(nats, body)


def test_what_is_removed_between_the_two_answers_of_a_look_is_told(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        spec = numbers.spec(max_ack_pending=1)
        state = await ensure(numbers.conn, spec)
        removals = Removals(numbers.conn, spec, state)
        told: Gaps = []
        removals.tell = lambda first, last, exact: told.append((first, last, exact))
        # The stream still had what the consumer did not wait for any more.
        removals.looked(replace(state, delivered=1, first=1, last=7, num_pending=0), 1)
        removals.looked(replace(state, delivered=1, first=8, last=7, num_pending=0), 1)
        await removals.judge()
        assert told == [(2, 7, True)]

    run(nats, body)


def test_other_subjects_are_not_missed(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        spec = numbers.spec(subjects=(f"{numbers.name}.a",), ack_wait=60.0)
        intake = await numbers.intake(spec, look_every=0.05)
        told = _told(intake)
        for _ in range(3):
            await numbers.publish(1, "a")
            await numbers.publish(2, "b")
        await take(intake, 3)
        assert await intake.settled() is not None
        # All that is left of the stream is of others, and so is what it loses.
        await numbers.publish(10, "b")
        assert await intake.settled() is not None
        await numbers.publish(10, "b")
        for _ in range(5):
            assert await intake.get(0.1) == []
        assert (await numbers.info())["state"]["first_seq"] > intake.position
        assert told == []

    run(nats, body, max_msgs=10)


def test_of_some_subjects_of_a_stream_it_is_told_how_many_it_can_be_at_most(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        spec = numbers.spec(subjects=(f"{numbers.name}.a",))
        await (await numbers.intake(spec)).leave()
        for _ in range(10):
            await numbers.publish(1, "b")
            await numbers.publish(1, "a")
        intake = await numbers.intake(spec)
        told = _told(intake)
        await take(intake, 2)
        assert told == [(1, 16, False)]

    run(nats, body, max_msgs=4)


@pytest.mark.parametrize("subjects", [("{}.>",), (">",), ("{}.>", "more")])
def test_who_names_all_subjects_of_a_stream_takes_all_of_it(nats: Nats, subjects: tuple[str, ...]) -> None:
    async def body(numbers: Numbers) -> None:
        spec = numbers.spec(subjects=tuple(subject.format(numbers.name) for subject in subjects))
        if len(subjects) > 1:
            config = (await numbers.info())["config"]
            more = f"{numbers.name}more"
            await numbers.conn.api(f"STREAM.UPDATE.{numbers.name}", {**config, "subjects": [f"{numbers.name}.>", more]})
            spec = numbers.spec(subjects=(f"{numbers.name}.>", more))
        await (await numbers.intake(spec)).leave()
        await numbers.publish(20)
        intake = await numbers.intake(spec)
        told = _told(intake)
        await take(intake, 5)
        assert told == [(1, 15, True)]

    run(nats, body, max_msgs=5)


def test_what_was_deleted_after_somebody_had_it_may_have_been_processed(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        await numbers.publish(200)
        await _crash_with(numbers, 200)
        for seq in (77, 78, 150):
            await numbers.conn.js.delete_msg(numbers.name, seq)
        intake = await numbers.intake(numbers.spec(ack_wait=60.0))
        told = _told(intake)
        await take(intake, 197)
        assert told == [(77, 78, False), (150, 150, False)]

    run(nats, body)


@pytest.mark.parametrize("stream", [{"retention": "workqueue"}, {"retention": "interest"}, {"max_msgs_per_subject": 1}])
def test_where_streams_drop_what_is_done_it_is_not_missed(nats: Nats, stream: dict[str, Any]) -> None:
    async def body(numbers: Numbers) -> None:
        intake = await numbers.intake(numbers.spec(ack_wait=60.0))
        for number in range(20):
            await numbers.publish(1, f"s{number % 10}" if number else "open")
        await take(intake, intake.state.last or 20)
        intake.done(range(2, 21))
        while (await numbers.consumer())["num_ack_pending"] > 1:
            await asyncio.sleep(0.01)
        again = await numbers.intake(numbers.spec(ack_wait=60.0))
        told = _told(again)
        for _ in range(5):
            await again.get(0.02)
        assert again.position == 20
        assert told == []

    run(nats, body, **stream)


def test_what_has_arrived_is_handed_out_though_it_is_gone_from_the_stream(nats: Nats) -> None:
    async def body(numbers: Numbers) -> None:
        intake = await numbers.intake(numbers.spec(ack_wait=60.0))
        told = _told(intake)
        await numbers.publish(5)
        await until(lambda: len(intake._pulls.queue) == 5)
        await numbers.conn.js.purge_stream(numbers.name)
        intake._in_doubt = True  # as after a reconnection
        messages = await take(intake, 5)
        assert [int(message.data) for message in messages] == [1, 2, 3, 4, 5]
        intake.done(range(1, 6))
        assert await intake.get(0.1) == []
        assert told == []

    run(nats, body)

"""Results in a JetStream subject, with a real broker."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from itertools import count, pairwise
from typing import Any

import pytest
from stream_results import bodies, connected, make_stream, result_of, run

from aipod.errors import ConfigError, Unavailable
from aipod.stream.broker.connection import Connection
from aipod.stream.errors import Diverged, Fenced, TooLarge
from aipod.stream.result import Result
from aipod.stream.sinks import subject as module
from aipod.stream.sinks import sweep as sweeping
from aipod.stream.sinks.interface import Record
from aipod.stream.sinks.subject import SubjectSink

both = pytest.mark.parametrize("fenced", [False, True], ids=["by id", "fenced"])
SECOND = 1_000_000_000


async def _sink(connection: Connection, name: str, fenced: bool = False, **more: Any) -> SubjectSink:
    sink = SubjectSink(connection, f"{name}.{{key}}", more.pop("task", "t"), fenced=fenced, create=True, **more)
    await sink.open()
    return sink


async def _stored(connection: Connection, name: str) -> list[Result]:
    return [Result.read(message.data) for message in await bodies(connection, f"{name}-")]


@both
def test_a_result_is_stored_under_its_key_with_its_identity(nats: Any, fenced: bool) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            sink = await _sink(connection, name, fenced)
            assert isinstance(sink, Record)
            await sink.write(result_of(1, 3, "a.b ü"))
            await sink.write(result_of(4, 6, ""))
            [first, second] = await bodies(connection, f"{name}-")
            assert [first.subject, second.subject] == [f"{name}.a%2Eb%20%C3%BC", f"{name}._"]
            assert first.headers["Nats-Msg-Id"] == "t/a.b%20%C3%BC/s1/0"
            assert (first.headers["Aipod-Task"], first.headers["Aipod-Window"]) == ("t", "s1")
            assert json.loads(first.data)["window"]["members"] == [[1, 3]]

    run(work())


def test_a_subject_can_come_from_the_windows_first_message(nats: Any) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            template = f"{name}.{{task}}.{{subject:1}}.{{header:Site}}.{{key}}"
            sink = SubjectSink(connection, template, "t", create=True, stream=name)
            await sink.open()
            first = replace(result_of(1, 3, headers={"Site": "north"}), subject="sensors.pump.7")
            await sink.write(first)
            await sink.write(result_of(4, 6))
            assert [message.subject for message in await bodies(connection, name)] == [
                f"{name}.t.pump.north.k",
                f"{name}.t._._.k",
            ]
            # One key has two subjects; its last result is one of them.
            assert [one.id for one in await sink.recall(4e9, 100)] == ["s4"]

    run(work())


@both
def test_the_same_result_written_again_is_there_once(nats: Any, fenced: bool) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            for _ in range(2):  # the second time as another process would, that knows nothing
                sink = await _sink(connection, name, fenced)
                for _ in range(2):
                    await sink.write(result_of(1, 3))
            await sink.write(result_of(4, 6))
            assert [result.recorded.id for result in await _stored(connection, name)] == ["s1", "s4"]

    run(work())


@both
def test_a_window_that_is_there_with_other_members_is_said_to_be(nats: Any, fenced: bool) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            await (await _sink(connection, name, fenced)).write(result_of(1, 2))
            other = await _sink(connection, name, fenced)
            with pytest.raises(Diverged) as caught:
                await other.write(result_of(1, 3))
            assert caught.value.recorded.members == ((1, 2),)
            await other.write(result_of(3, 5))
            assert [result.recorded.members for result in await _stored(connection, name)] == [((1, 2),), ((3, 5),)]

    run(work())


def test_fenced_results_need_no_dedup_window(nats: Any) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            await make_stream(connection, f"{name}-", f"{name}.*", duplicate_window=SECOND // 10)
            sink = await _sink(connection, name, fenced=True)
            await sink.write(result_of(1, 3))
            behind = await _sink(connection, name, fenced=True)
            assert await behind._tail(f"{name}.k") == (1, 1)
            behind._remember(f"{name}.k", module._EMPTY)  # what it knew before an answer was lost
            await asyncio.sleep(0.3)  # the window is over: the broker has forgotten the identity
            await behind.write(result_of(1, 3))
            behind._remember(f"{name}.k", module._EMPTY)
            with pytest.raises(Diverged):
                await behind.write(result_of(1, 4))
            assert len(await _stored(connection, name)) == 1

    run(work())


def test_a_fenced_sink_stops_where_another_has_written(nats: Any) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            old, new = await _sink(connection, name, fenced=True), await _sink(connection, name, fenced=True)
            await old.write(result_of(1, 3))
            assert await old.recall(0.0, 0) == await new.recall(0.0, 0)
            await new.write(result_of(4, 6))
            await new.write(result_of(5, 6, "new key"))
            for late in (result_of(4, 5, id="x"), result_of(7, 9), result_of(7, 9, "new key")):
                with pytest.raises(Fenced):
                    await old.write(late)
            await new.write(result_of(7, 9))
            assert [result.recorded.id for result in await _stored(connection, name)] == ["s1", "s4", "s5", "s7"]

    run(work())


def test_a_fenced_sink_goes_on_when_its_subject_was_emptied(nats: Any) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            sink = await _sink(connection, name, fenced=True)
            await sink.write(result_of(1, 3))
            await connection.api(f"STREAM.PURGE.{name}-")
            await sink.write(result_of(4, 6))
            await sink.write(result_of(7, 9))
            assert (await connection.api(f"STREAM.INFO.{name}-"))["state"]["messages"] == 2

    run(work())


@both
def test_the_last_of_each_key_and_all_that_is_recent_is_recalled(nats: Any, fenced: bool) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            sink = await _sink(connection, name, fenced)
            for first in (1, 3, 5):
                await sink.write(result_of(first, first + 1, "a"))
                await sink.write(result_of(first, first, "b"))
            times = [message.time.timestamp() for message in await bodies(connection, f"{name}-")]

            def seen(recorded: list[Any]) -> list[str]:
                return [one.key + one.id for one in recorded]

            sink = await _sink(connection, name, fenced)
            assert seen(await sink.recall(times[-1] + 60, 6)) == ["as5", "bs5"]
            assert seen(await sink.recall(times[3] - 0.000_001, 2)) == ["bs3", "as5", "bs5"]
            everything = await sink.recall(0.0, 0)
            assert seen(everything) == ["as1", "bs1", "as3", "bs3", "as5", "bs5"]
            assert everything[0] == result_of(1, 2, "a").recorded
            # What was recalled as recent can be fetched, for another sink.
            again = await sink.stored(everything[2])
            assert again is not None and again.value == 1.5
            assert await sink.stored(result_of(99, 99).recorded) is None
            await sink.write(result_of(7, 8, "a"))

    run(work())


@both
def test_an_empty_stream_is_recalled_as_nothing(nats: Any, fenced: bool) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            sink = await _sink(connection, name, fenced)
            assert await sink.recall(0.0, 0) == []
            await sink.write(result_of(1, 3))
            await connection.api(f"STREAM.PURGE.{name}-")
            assert await sink.recall(0.0, 0) == []
            assert (await connection.api(f"CONSUMER.NAMES.{name}-")).get("total") == 0

    run(work())


@both
def test_the_close_that_a_correction_hides_is_recalled_too(nats: Any, fenced: bool) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            sink = await _sink(connection, name, fenced)
            await sink.write(result_of(1, 2, id="t0"))
            await sink.write(result_of(3, 4, id="t60"))
            sink = await _sink(connection, name, fenced)  # knows of no tails
            await sink.write(result_of(1, 5, id="t0", revision=1, reason="amended", members=((1, 2), (5, 5))))
            await sink.write(result_of(6, 7, id="t120", reason="early"))
            again = await _sink(connection, name, fenced)
            recalled = await again.recall(2e10 if fenced else 4e9, 100)
            assert [(one.id, one.reason) for one in recalled] == [("t60", "full"), ("t120", "early")]
            await again.write(result_of(6, 8, id="t120", revision=1))
            assert [one.id for one in await again.recall(4e9, 100)] == ["t120"]

    run(work())


def test_more_than_one_pull_is_read_and_ends(nats: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "_BATCH", 16)
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            sink = await _sink(connection, name)
            await asyncio.gather(*(sink.write(result_of(n, n, f"k{n}")) for n in range(1, 161)))
            assert len(await sink.recall(4e9, 1000)) == 160
            assert len(await sink.recall(0, 0)) == 160

    run(work())


def test_others_have_their_turn_while_much_is_read(nats: Any) -> None:
    name = nats.unique()

    async def work() -> None:
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        async with connected(nats.url) as connection:
            await connection.js.add_stream(name=name, subjects=[f"{name}.>"])
            large = [b"x" * 150_000] * 4
            for data in [b"x"] * 480 + large:
                await connection.nc.publish(f"{name}.k", data)
            await connection.nc.flush()
            while (await connection.api(f"STREAM.INFO.{name}"))["state"]["last_seq"] < 484:
                await asyncio.sleep(0.01)
            turning = asyncio.ensure_future(turn())
            pieces, seen = [], []
            async for piece in sweeping.sweep(connection, name, f"{name}.k", since=0.0):
                pieces.append(piece)
                seen.append(turns)
            turning.cancel()
        assert sum(map(len, pieces)) == 484
        assert max(map(len, pieces)) <= 50
        assert max(sum(len(one.data) for one in piece) for piece in pieces) <= 400_000
        assert all(before < after for before, after in pairwise(seen))

    run(work())


def test_a_reading_that_the_broker_forgets_is_begun_again(nats: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "_BATCH", 4)
    monkeypatch.setattr(sweeping, "_PATIENCE", 0.5)
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            sink = await _sink(connection, name)
            for n in range(1, 13):
                await sink.write(result_of(n, n))
            with pytest.raises(Unavailable):
                async for _ in sweeping.sweep(connection, f"{name}-", f"{name}.*", since=0.0):
                    [consumer] = (await connection.api(f"CONSUMER.NAMES.{name}-"))["consumers"]
                    await connection.api(f"CONSUMER.DELETE.{name}-.{consumer}")
            assert len(await sink.recall(0, 0)) == 12

    run(work())


@pytest.mark.parametrize("lost", [range(5, 7), range(9, 13)], ids=["in the middle", "at the end"])
def test_a_reading_that_lost_messages_is_begun_again(nats: Any, lost: range, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "_BATCH", 12)
    name = nats.unique()
    arriving = sweeping._Reading._next

    async def lossy(reading: sweeping._Reading) -> Any:
        while (msg := await arriving(reading)).reply and msg.metadata.sequence.consumer in lost:
            pass
        return msg

    async def work() -> None:
        async with connected(nats.url) as connection:
            sink = await _sink(connection, name)
            for n in range(1, 13):
                await sink.write(result_of(n, n))
            with monkeypatch.context() as patch:
                patch.setattr(sweeping._Reading, "_next", lossy)
                with pytest.raises(Unavailable):
                    await sink.recall(0, 0)
            assert len(await sink.recall(0, 0)) == 12

    run(work())


@both
@pytest.mark.parametrize(
    ("payload", "says"), [(b"hello", "no result of a window"), (result_of(1, 2, task="other").encode(), "task 'other'")]
)
def test_what_is_not_the_tasks_own_is_refused(nats: Any, fenced: bool, payload: bytes, says: str) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            sink = await _sink(connection, name, fenced)
            await connection.js.publish(f"{name}.k", payload)
            with pytest.raises(ConfigError, match=f"{says}.*a subject of its own"):
                await sink.recall(0.0, 0)
            if fenced:
                with pytest.raises(ConfigError, match="a subject of its own"):
                    await sink.write(result_of(1, 3))

    run(work())


@both
def test_a_subject_without_a_stream_is_waited_for(nats: Any, fenced: bool) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            sink = SubjectSink(connection, f"{name}.{{key}}", "t", fenced=fenced)
            with pytest.raises(Unavailable, match="no stream takes subject"):
                await sink.open()
            await make_stream(connection, name, f"{name}.>")
            await sink.open()
            await connection.api(f"STREAM.DELETE.{name}")
            with pytest.raises(Unavailable, match=r"no stream takes subject|read from stream"):
                await sink.write(result_of(1, 3))
            await make_stream(connection, name, f"{name}.>")
            await sink.write(result_of(1, 3))

    run(work())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"retention": "workqueue"}, "must be limits"),
        ({"retention": "interest"}, "must be limits"),
        ({"no_ack": True}, "acknowledges nothing"),
    ],
)
def test_a_stream_that_cannot_be_a_record_is_refused(nats: Any, settings: dict[str, Any], says: str) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            await make_stream(connection, name, f"{name}.>", **settings)
            with pytest.raises(ConfigError, match=says):
                await SubjectSink(connection, f"{name}.{{key}}", "t").open()

    run(work())


def test_a_subject_in_two_streams_or_in_another_one_is_refused(nats: Any) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            await make_stream(connection, f"{name}1", f"{name}.a")
            with pytest.raises(ConfigError, match="not in 'elsewhere' alone"):
                await SubjectSink(connection, f"{name}.a", "t", stream="elsewhere").open()
            await make_stream(connection, f"{name}2", f"{name}.b")
            with pytest.raises(ConfigError, match="one stream must have all of it"):
                await SubjectSink(connection, f"{name}.{{key}}", "t").open()

    run(work())


def test_a_name_that_is_taken_is_refused_with_a_sentence(nats: Any) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            await make_stream(connection, name, f"other.{name}")
            with pytest.raises(ConfigError, match="make it by hand"):
                await SubjectSink(connection, f"{name}.{{key}}", "t", stream=name, create=True).open()

    run(work())


@both
def test_a_result_that_no_message_can_hold_is_too_large(nats: Any, fenced: bool) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            await make_stream(connection, f"{name}-", f"{name}.*", max_msg_size=10_000)
            sink = await _sink(connection, name, fenced)
            limit = connection.nc.max_payload
            for size in (limit, limit - 200):  # the second is so only with its headers
                with pytest.raises(TooLarge) as caught:
                    await sink.write(result_of(1, 3, value="x" * size))
                assert caught.value.limit == limit < caught.value.size
            with pytest.raises(TooLarge) as caught:
                await sink.write(result_of(1, 3, value="x" * 20_000))
            assert caught.value.limit == 10_000 < caught.value.size
            await sink.write(result_of(1, 3))  # the connection is unharmed
            assert connection.generation == 1

    run(work())


@both
def test_a_result_at_the_limit_of_the_broker_is_stored_or_too_large_and_harms_nothing(nats: Any, fenced: bool) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            sink = await _sink(connection, name, fenced)
            limit, stored = connection.nc.max_payload, 0
            for number in range(200, 500, 10):
                try:
                    await sink.write(result_of(number, number, value="x" * (limit - number)))
                    stored += 1
                except TooLarge as error:
                    assert error.limit == limit < error.size
            assert 0 < stored < 30
            assert connection.generation == 1

    run(work())


def test_a_full_stream_is_waited_for(nats: Any) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            await make_stream(connection, f"{name}-", f"{name}.*", max_msgs=1, discard="new")
            sink = await _sink(connection, name)
            await sink.write(result_of(1, 3))
            with pytest.raises(Unavailable, match="maximum messages exceeded"):
                await sink.write(result_of(4, 6))

    run(work())


@pytest.mark.parametrize(
    "answer",
    [
        b"hello",
        b"",
        b"[]",
        b"{}",
        b"null",
        b'{"error":"no"}',
        b'{"error":{"code":"x"}}',
        b'{"seq":1}',
        b'{"stream":"another","seq":1}',
    ],
)
def test_something_else_that_answers_on_the_subject_is_no_stream(nats: Any, answer: bytes) -> None:
    name = nats.unique()

    async def work() -> None:
        async with connected(nats.url) as connection:
            sink = await _sink(connection, name)
            await connection.api(f"STREAM.DELETE.{name}-")

            async def respond(message: Any) -> None:
                await message.respond(answer)

            await connection.nc.subscribe(f"{name}.k", cb=respond)
            with pytest.raises(ConfigError, match="something other than a stream"):
                await sink.write(result_of(1, 3))

    run(work())


@both
def test_nothing_is_lost_or_doubled_by_a_broker_that_is_killed(own_nats: Any, fenced: bool) -> None:
    name = own_nats.unique()

    async def work() -> None:
        async with connected(own_nats.url) as connection:
            sink = await _sink(connection, name, fenced)

            killed = asyncio.Event()

            async def write(key: str) -> int:
                for n in count(1):
                    while True:
                        try:
                            await sink.write(result_of(n, n, key))
                            break
                        except Unavailable:
                            await asyncio.sleep(0.02)
                    if killed.is_set():
                        return n
                raise AssertionError("unreachable")

            async def written_so_far() -> int:
                while True:
                    try:
                        return int((await connection.api(f"STREAM.INFO.{name}-"))["state"]["messages"])
                    except Unavailable:
                        await asyncio.sleep(0.02)

            async def kill() -> int:
                for _ in range(3):
                    await asyncio.to_thread(own_nats.server.kill)
                    await asyncio.to_thread(own_nats.server.start)
                    reached = await written_so_far()
                    while await written_so_far() < reached + 20:
                        await asyncio.sleep(0.01)
                killed.set()
                return 0

            written = sum(await asyncio.gather(write("a"), write("b"), kill()))
            found = [result.identity for result in await _stored(connection, name)]
            assert len(found) == len(set(found)) == written
            assert len(await sink.recall(0.0, 0)) == written

    run(work())


def test_away_is_said_at_once_and_nothing_is_sent_later(own_nats: Any) -> None:
    name = own_nats.unique()

    async def work() -> None:
        async with connected(own_nats.url) as connection:
            sink = await _sink(connection, name)
            await asyncio.to_thread(own_nats.server.stop)
            while connection.connected:
                await asyncio.sleep(0.01)
            with pytest.raises(Unavailable, match="away"):
                await sink.write(result_of(1, 3))
            await asyncio.to_thread(own_nats.server.start)
            while not connection.connected:
                await asyncio.sleep(0.01)
            await connection.nc.flush()
            assert (await connection.api(f"STREAM.INFO.{name}-"))["state"]["messages"] == 0

    run(work())

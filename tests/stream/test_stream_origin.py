"""A stream that was deleted and made again between two lives of a task: what its record says is of the old one."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from stream_lab import Lab, run

from aipod.errors import ConfigError, Unavailable
from aipod.stream import tenure as tenures
from aipod.stream.errors import Diverged, TaskStopped
from aipod.stream.result import Recorded, Result, expand
from aipod.stream.sinks.interface import Record
from aipod.stream.sinks.opening import open_sink
from aipod.stream.tasks import StreamTask

BEFORE = 12
KINDS = ("nats", "nats-fenced", "sql", "file")

each_kind = pytest.mark.parametrize("kind", KINDS)
fewer_and_more = pytest.mark.parametrize("count", [6, 25], ids=["fewer", "more"])


def sink_of(kind: str, lab: Lab, directory: Path, more: str = "") -> str:
    if kind == "sql":
        return f"sql:sqlite:///{directory}/results.db#results{more}"
    if kind == "file":
        return f"file:{directory}/results{more}"
    return f"{kind}:{lab.name}.out{more and '.' + more}.{{key}}"


async def clear(kind: str, lab: Lab, directory: Path) -> None:
    if kind == "sql":
        (directory / "results.db").unlink()
    elif kind == "file":
        shutil.rmtree(directory / "results")
    else:
        await lab.connection.api(f"STREAM.PURGE.R_{lab.name}")


def values(count: int) -> list[dict[str, Any]]:
    return [{"k": f"k{number % 2}", "v": number} for number in range(count)]


async def make_anew(lab: Lab) -> None:
    await lab.connection.api(f"STREAM.DELETE.E_{lab.name}")
    await lab.make("E", f"{lab.name}.in.>")


async def two_lives_of_the_stream(lab: Lab, task: StreamTask, count: int) -> None:
    """Have the task process one stream, and put ``count`` messages into another of that name."""
    await lab.publish(values(BEFORE))
    await lab.once(task)
    await make_anew(lab)
    await lab.publish(values(count))


async def recorded(lab: Lab, task: StreamTask) -> list[Recorded]:
    sink = open_sink(task.sinks[0], task.name, lab.connection)
    assert isinstance(sink, Record)
    await sink.open()
    try:
        return await sink.recall(0.0, 0)
    finally:
        await sink.close()


async def assert_all_is_recorded(lab: Lab, task: StreamTask, count: int) -> None:
    found = await recorded(lab, task)
    assert sorted(seq for one in found for seq in expand(one.members)) == list(range(1, count + 1))
    await lab.floor_is(count, task.source.durable)


async def assert_nothing_is_acknowledged(lab: Lab, count: int) -> None:
    info = await lab.connection.api(f"CONSUMER.INFO.E_{lab.name}.{lab.name}")
    assert (info["ack_floor"]["stream_seq"], info["num_ack_pending"], info["num_pending"]) == (0, 0, count)


@each_kind
@fewer_and_more
def test_a_record_of_a_stream_that_was_made_anew_is_refused_and_nothing_is_lost(
    lab: Lab, tmp_path: Path, kind: str, count: int
) -> None:
    async def main() -> None:
        async with lab:
            task = lab.task(sinks=[sink_of(kind, lab, tmp_path)])
            await two_lives_of_the_stream(lab, task, count)
            before = await recorded(lab, task)
            sentence = (
                rf"the record of task '{lab.name}' is of stream E_{lab.name} as made at \S+Z, and that was made anew at"
                r" \S+Z; give the task another name or another sink, or clear its results"
            )
            for _ in range(2):
                with pytest.raises(ConfigError, match=sentence):
                    await lab.once(task)
            await assert_nothing_is_acknowledged(lab, count)
            assert await recorded(lab, task) == before
            # A subject and a directory belong to one task, so there another name needs another one of these.
            sink = sink_of(kind, lab, tmp_path, "" if kind == "sql" else "2")
            other = lab.task(name=f"{lab.name}2", durable=f"{lab.name}2", sinks=[sink])
            await lab.once(other)
            await assert_all_is_recorded(lab, other, count)

    run(main())


@each_kind
@pytest.mark.parametrize("remedy", ["another sink", "clear"])
def test_the_other_remedies_make_results_of_all_messages_at_once(
    lab: Lab, tmp_path: Path, kind: str, remedy: str
) -> None:
    async def main() -> None:
        async with lab:
            task = lab.task(sinks=[sink_of(kind, lab, tmp_path)])
            await two_lives_of_the_stream(lab, task, BEFORE)
            if remedy == "clear":
                await clear(kind, lab, tmp_path)
            else:
                # Of the same task, with the same identities, in a stream that remembers the ids of the old ones.
                task = lab.task(sinks=[sink_of(kind, lab, tmp_path, "2")])
            await lab.once(task)
            await assert_all_is_recorded(lab, task, BEFORE)

    run(main())


@each_kind
def test_results_from_before_streams_were_named_are_obeyed_unless_the_stream_ends_before_them(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    async def main() -> None:
        async with lab:
            task = lab.task(sinks=[sink_of(kind, lab, tmp_path)])
            await lab.publish(values(BEFORE))
            with monkeypatch.context() as patch:
                patch.setattr(tenures, "origin_of", lambda stream: "")
                await lab.once(task)
            if kind == "sql":
                with sqlite3.connect(tmp_path / "results.db") as database:  # as ADD COLUMN leaves it
                    database.execute("UPDATE results SET source = NULL")
                database.close()
            before = await recorded(lab, task)
            assert {one.source for one in before} == {""}
            await lab.connection.api(f"CONSUMER.DELETE.E_{lab.name}.{lab.name}")
            await lab.once(task)
            assert await recorded(lab, task) == before
            await make_anew(lab)
            await lab.publish(values(6))
            sentence = rf"its record goes up to message {BEFORE}, and stream E_{lab.name} ends at 6: .* or clear its"
            with pytest.raises(TaskStopped, match=sentence):
                await lab.once(task)
            await assert_nothing_is_acknowledged(lab, 6)

    run(main())


@pytest.mark.parametrize("kind", ["sql", "file"])
def test_the_same_window_of_another_stream_is_never_taken_for_what_is_there(
    lab: Lab, tmp_path: Path, kind: str
) -> None:
    async def main() -> None:
        async with lab:
            sink = open_sink(lab.task(sinks=[sink_of(kind, lab, tmp_path)]).sinks[0], lab.name, lab.connection)
            await sink.open()
            try:
                for source in ("S@1", "S@1"):
                    await sink.write(Result(lab.name, Recorded("k", "s1", 0, 0.0, 1.0, "full", ((1, 4),), source), 1))
                with pytest.raises(Diverged):
                    await sink.write(Result(lab.name, Recorded("k", "s1", 0, 0.0, 1.0, "full", ((1, 4),), "S@2"), 1))
            finally:
                await sink.close()

    run(main())


def test_a_second_record_of_another_stream_is_refused_too(lab: Lab, tmp_path: Path) -> None:
    async def main() -> None:
        async with lab:
            task = lab.task(sinks=[sink_of(kind, lab, tmp_path) for kind in ("file", "sql")])
            await two_lives_of_the_stream(lab, task, BEFORE)
            await clear("file", lab, tmp_path)
            with pytest.raises(ConfigError, match="was made anew at"):
                await lab.once(task)
            await assert_nothing_is_acknowledged(lab, BEFORE)

    run(main())


def test_a_record_of_a_stream_of_another_name_is_refused(lab: Lab, tmp_path: Path) -> None:
    async def main() -> None:
        async with lab:
            task = lab.task(sinks=[sink_of("sql", lab, tmp_path)])
            await lab.publish(values(BEFORE))
            await lab.once(task)
            await lab.make("F", f"{lab.name}.more.>")
            other = lab.task(stream=f"F_{lab.name}", subjects=f"{lab.name}.more.>", sinks=[str(task.sinks[0])])
            with pytest.raises(ConfigError, match=rf"is of stream E_.* and the task reads stream F_{lab.name}; give"):
                await lab.once(other)

    run(main())


def test_a_record_beyond_the_end_of_its_own_stream_stops_the_task(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with lab:
            await two_lives_of_the_stream(lab, lab.task(), 4)
            await clear("nats", lab, Path())
            found = Recorded("k0", "s1", 0, 0.0, 1.0, "full", ((1, 5),))
            with monkeypatch.context() as patch:
                # As after a power failure: the stream is the same, and has lost its end.
                patch.setattr(tenures.Recording, "recall", recalling([found]))
                with pytest.raises(TaskStopped, match=r"goes up to message 5, and stream .* ends at 4: it has lost"):
                    await lab.once(lab.task())
            await assert_nothing_is_acknowledged(lab, 4)

    run(main())


def recalling(found: list[Recorded]) -> Any:
    async def recall(self: Any, since: float, floor: int, admit: Any) -> list[Recorded]:
        await admit(found)
        return found

    return recall


@each_kind
def test_a_stream_that_is_made_anew_under_a_running_task_stops_it_with_the_same_sentence(
    lab: Lab, tmp_path: Path, kind: str
) -> None:
    async def main() -> None:
        async with lab:
            task = lab.task(sinks=[sink_of(kind, lab, tmp_path)])
            await lab.publish(values(BEFORE))
            running = asyncio.ensure_future(lab.pipeline(task).run())
            await lab.floor_passes(BEFORE - 4)  # the last two windows are open, or are not
            await make_anew(lab)
            await lab.publish(values(BEFORE))
            await asyncio.wait({running}, timeout=20)
            with pytest.raises(Unavailable, match="was made anew or has lost its end"):
                running.result()
            with pytest.raises(ConfigError, match="was made anew at"):
                await lab.once(task)
            await assert_nothing_is_acknowledged(lab, BEFORE)

    run(main())


def test_a_dead_letter_of_a_stream_that_was_made_anew_is_another_one(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            task = lab.task(sinks=[f"{__name__}:nowhere"])
            for _ in range(2):
                await lab.publish([b"not JSON", *values(4)])
                await lab.once(task)
                await lab.floor_is(5)
                await make_anew(lab)
            assert [headers["Aipod-Sequence"] for headers, _ in await lab.dead()] == ["1", "1"]

    run(main())


def nowhere(result: Any) -> None:
    """A sink that cannot say what it holds, and so has nothing to be refused for."""

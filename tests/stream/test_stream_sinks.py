"""Standard output, functions, models, how a task's sinks are made, and the thread that they run on."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from stream_results import connected, result_of, run, until

from aipod.errors import ConfigError, InvalidArgument, ModelError, Overloaded, Unavailable, VersionNotFound
from aipod.model import AIModelBase
from aipod.rpc.client import AIClient
from aipod.rpc.server import Server
from aipod.stream.errors import TaskStopped
from aipod.stream.result import Result
from aipod.stream.sinks.files import FileSink
from aipod.stream.sinks.function import FunctionSink
from aipod.stream.sinks.interface import Record, Sink
from aipod.stream.sinks.model import ModelSink
from aipod.stream.sinks.opening import open_sink
from aipod.stream.sinks.sql import SqlSink
from aipod.stream.sinks.stdout import StdoutSink
from aipod.stream.sinks.subject import SubjectSink
from aipod.stream.sinks.thread import SinkThread
from aipod.stream.tasks.sinkspec import OPTIONS, SinkSpec


async def write(sink: Sink, *results: Result) -> None:
    await sink.open()
    try:
        for result in results:
            await sink.write(result)
    finally:
        await sink.close()


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    try:
        yield reading, writing
    finally:
        for descriptor in (reading, writing):
            try:
                os.close(descriptor)
            except OSError:
                continue


def test_stdout_has_one_line_for_each_result_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    print("before", end=" ")

    async def work() -> None:
        sink = StdoutSink("t")
        await sink.open()
        await sink.write(result_of(1, 3, "ключ", value="a\nb"))
        text = capfd.readouterr().out
        assert text.startswith("before {")
        assert text.count("\n") == 1
        assert json.loads(text.removeprefix("before "))["key"] == "ключ"
        await sink.close()
        assert not isinstance(sink, Record)

    run(work())


def test_a_closed_pipe_stops_the_task() -> None:
    with pipe() as (reading, writing):
        os.close(reading)
        with pytest.raises(TaskStopped, match="'t' has stopped: nobody reads"):
            run(write(StdoutSink("t", writing), result_of(1, 3)))


def test_a_reader_that_sleeps_blocks_neither_the_loop_nor_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aipod.stream.sinks.thread._PATIENCE", 0.1)

    async def work(writing: int, reading: int) -> None:
        sink = StdoutSink("t", writing)
        await sink.open()
        stuck = asyncio.ensure_future(sink.write(result_of(1, 3, value="x" * 1_000_000)))
        for _ in range(10):
            await asyncio.sleep(0.001)
        assert not stuck.done()
        await sink.close()
        os.close(reading)
        with pytest.raises(TaskStopped):
            await stuck

    with pipe() as (reading, writing):
        run(work(writing, reading))


@pytest.mark.parametrize("kind", ["def", "async def", "object", "decorated"])
def test_a_function_gets_each_result(kind: str) -> None:
    seen: list[Any] = []

    def plain(result: Result) -> None:
        seen.append((result, threading.current_thread().name))

    async def coroutine(result: Result) -> None:
        await asyncio.sleep(0)
        seen.append((result, threading.current_thread().name))

    class Store:
        async def __call__(self, result: Result) -> None:
            await coroutine(result)

    def timed(result: Result) -> Any:
        return coroutine(result)

    functions = {"def": plain, "async def": coroutine, "object": Store(), "decorated": timed}
    sink = FunctionSink(functions[kind], "m:f")
    run(write(sink, result_of(1, 3), result_of(4, 6)))
    assert [result for result, _ in seen] == [result_of(1, 3), result_of(4, 6)]
    assert {name == "aipod-function" for _, name in seen} == {kind == "def"}


def test_a_function_that_yields_is_refused_since_nothing_of_it_runs() -> None:
    def plain(result: Result) -> Any:
        yield result

    async def coroutine(result: Result) -> Any:
        yield result

    for function in (plain, coroutine):
        with pytest.raises(ConfigError, match="m:f yields"):
            run(write(FunctionSink(function, "m:f"), result_of(1, 3)))


@pytest.mark.parametrize(
    ("raised", "becomes"),
    [
        (ConnectionResetError("gone"), Unavailable),
        (TimeoutError("slow"), Unavailable),
        (Unavailable("wait"), Unavailable),
        (InvalidArgument("bad"), InvalidArgument),
        (ValueError("bug"), ModelError),
        (SystemExit(3), ModelError),
        (StopIteration(3), ModelError),
    ],
)
def test_what_a_function_raises_says_whether_it_is_tried_again(raised: BaseException, becomes: type[Exception]) -> None:
    def function(result: Result) -> None:
        raise raised

    with pytest.raises(becomes) as caught:
        run(write(FunctionSink(function, "m:f"), result_of(1, 3)))
    assert type(caught.value) is becomes


class Second(AIModelBase):
    def predict(self, result: Any, window: dict[str, Any]) -> Any:
        if result == "bad":
            raise InvalidArgument("no such result")
        if result == "busy":
            raise Overloaded("later")
        if result == "bug":
            raise ValueError("bug")
        return {"asked": result, "window": window}


@pytest.fixture
def second(tmp_path: Path) -> Iterator[str]:
    with Server(Second, port=0, data_path=tmp_path / "data", listen_host="127.0.0.1") as server:
        yield server.address


def test_it_is_foreseen_whether_a_model_server_has_a_version(second: str) -> None:
    def said(version: str, address: str = second) -> str:
        async def work() -> str:
            sink = ModelSink(address, version)
            try:
                return await sink.foresee()
            finally:
                await sink.close()

        return str(run(work()))

    assert "answers; no version is initialized there" in said("v")
    with AIClient(second, "v") as client:
        client.initialize()
        client.admin.set_alias("live", "v")
        assert said("v") == f"version v is at {second}"
        assert said("live") == f"version live is at {second}, as v"
        with pytest.raises(VersionNotFound, match="'lacking'"):
            said("lacking")
    with pytest.raises(Unavailable):
        said("v", f"127.0.0.1:{free_port()}")


def test_a_second_model_is_asked_and_its_answer_goes_on(second: str, tmp_path: Path) -> None:
    async def work() -> None:
        then = FileSink(str(tmp_path / "out"), "t")
        sink = ModelSink(second, then=then)
        assert not isinstance(sink, Record)
        await write(sink, result_of(1, 3, "k", value=[1, 2], dropped=((2, 2),)))
        [file] = (tmp_path / "out").glob("*.jsonl")
        document = json.loads(file.read_text())
        window = {"key": "k", "id": "s1", "revision": 0, "start": 1.0, "end": 3.0, "count": 3, "reason": "full"}
        assert document["result"] == {"asked": [1, 2], "window": window}
        assert (document["window"]["members"], document["dropped"]) == ([[1, 3]], [[2, 2]])
        await write(ModelSink(second), result_of(1, 3))

    run(work())


@pytest.mark.parametrize(("value", "raises"), [("bad", InvalidArgument), ("busy", Unavailable), ("bug", ModelError)])
def test_what_a_second_model_raises_says_whether_it_is_tried_again(
    second: str, value: str, raises: type[Exception]
) -> None:
    with pytest.raises(raises) as caught:
        run(write(ModelSink(second), result_of(1, 3, value=value)))
    assert type(caught.value) is raises


def test_a_second_model_that_is_away_is_waited_for() -> None:
    with pytest.raises(Unavailable):
        run(write(ModelSink("localhost:1", timeout=0.2), result_of(1, 3)))


def handler(result: Result) -> None:
    """For a task to name."""


def test_a_task_says_which_sink_it_is(nats: Any, tmp_path: Path) -> None:
    async def work() -> None:
        async with connected(nats.url) as connection:

            def made(text: Any, **more: Any) -> Sink:
                return open_sink(SinkSpec.parse(text), "t", connection, **more)

            plain, fenced = made("nats:results.{key}"), made("nats-fenced:results.{key}")
            assert isinstance(plain, SubjectSink) and isinstance(fenced, SubjectSink)
            assert (plain.name, fenced.name) == ("nats:results.{key}", "nats-fenced:results.{key}")
            assert isinstance(made({"to": "nats:r.{key}", "create": True, "stream": "R"}), SubjectSink)
            database = made(f"sql:sqlite:///{tmp_path}/x.db#table")
            assert isinstance(database, SqlSink)
            assert database.name.endswith("x.db#table")
            assert made(f"file:{tmp_path}/out").name == f"file:{tmp_path}/out"
            share = made({"to": f"file:{tmp_path}/out", "max_bytes": 5000}, partition=2)
            assert share.name == f"file:{tmp_path}/out/partition-2"
            assert isinstance(made("stdout"), StdoutSink)
            model = made({"to": "model:localhost:50052/v1", "timeout": 3, "sink": "stdout"})
            assert isinstance(model, ModelSink)
            assert model.name == "model:localhost:50052/v1"
            assert isinstance(made(f"{__name__}:handler"), FunctionSink)
            for sink in (plain, fenced, database, share):
                assert isinstance(sink, Record)
            await model.close()

    run(work())


def test_a_subject_without_a_broker_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs a broker"):
        open_sink(SinkSpec.parse("nats:results.{key}"), "t")


def test_a_thread_runs_one_thing_after_another() -> None:
    async def work() -> None:
        thread, seen = SinkThread("test"), []
        gate = threading.Event()
        first = asyncio.ensure_future(thread.run(gate.wait))
        given_up = asyncio.ensure_future(thread.run(seen.append, 1))
        last = asyncio.ensure_future(thread.run(seen.append, 2))
        await asyncio.sleep(0)
        given_up.cancel()
        gate.set()
        await asyncio.gather(first, last)
        assert seen == [1, 2]
        with pytest.raises(ZeroDivisionError):
            await thread.run(lambda: 1 / 0)
        await thread.end(lambda: seen.append(3))
        await thread.end()
        assert seen == [1, 2, 3]
        await until(lambda: "aipod-test" not in {one.name for one in threading.enumerate()})
        with pytest.raises(Unavailable):
            await thread.run(seen.append, 4)

    run(work())


def test_a_thread_that_was_never_used_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(ending: Callable[[], Any]) -> None:
        await ending()

    run(work(SinkThread("test").end))


@pytest.mark.parametrize(
    ("kind", "sink"), [("file", FileSink), ("sql", SqlSink), ("nats", SubjectSink), ("model", ModelSink)]
)
def test_a_sink_made_by_hand_has_the_defaults_of_one_in_a_task(kind: str, sink: type) -> None:
    given = inspect.signature(sink).parameters
    for option, (_, default) in OPTIONS[kind].items():
        if option in given and given[option].default is not inspect.Parameter.empty:
            assert given[option].default == default, option

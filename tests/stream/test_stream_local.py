"""A task tried on a file, without a broker."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from stream_lab import start_model
from stream_lab_model import sums
from waiting import eventually

from aipod.errors import ConfigError, Unavailable
from aipod.stream import local
from aipod.stream.local import run_file
from aipod.stream.tasks import StreamTask


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    child, address = start_model(tmp_path_factory.mktemp("model"))
    yield address
    child.stop()


def task(model: str, **own: Any) -> StreamTask:
    table = {
        "name": "tried",
        "subjects": ["local"],
        "key": "k",
        "window": "count:2",
        "model": model,
        "sinks": ["stdout"],
        **own,
    }
    return StreamTask.from_dict(table)


def events(directory: Path, *lines: Any) -> Path:
    file = directory / "events.jsonl"
    file.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
    return file


def printed(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def test_lines_become_results_and_what_is_open_at_the_end_is_closed(
    model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sent = [{"k": "a", "v": number} for number in range(1, 6)]
    counters = run_file(task(model), events(tmp_path, *sent[:3], b"", *sent[3:]))["counters"]
    results = printed(capfd)
    assert [result["result"] for result in results] == [sums(sent[:2]), sums(sent[2:4]), sums(sent[4:])]
    assert [result["window"]["reason"] for result in results] == ["full", "full", "end"]
    assert (counters["messages"], counters["results"]) == (5, 3)


def test_a_line_can_say_where_and_when_it_was(model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = [
        {"data": {"v": 1}, "subject": "plant.a", "stored": 100.0, "headers": {"Line": "7"}},
        {"data": {"v": 2}, "subject": "plant.a", "stored": "1970-01-01T00:01:41Z"},
        {"data": {"v": 3}, "subject": "plant.b", "stored": 102},
        {"data": {"v": 4}, "subject": "plant.a", "stored": 111},
    ]
    run_file(task(model, key="subject:1", window="tumbling:10s"), events(tmp_path, *lines))
    found = [(result["key"], result["window"]["start"], result["result"]["sum"]) for result in printed(capfd)]
    assert sorted(found) == [("a", 100.0, 3), ("a", 110.0, 4), ("b", 100.0, 3)]


def test_an_object_that_merely_has_data_is_a_payload(
    model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_file(task(model), events(tmp_path, {"k": "a", "v": 1, "data": 5}, {"k": "a", "v": 2, "data": 6}))
    assert printed(capfd)[0]["result"]["sum"] == 3


def test_of_what_is_typed_each_line_counts_at_once(
    model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found: list[dict[str, Any]] = []

    def type_slowly() -> None:
        with pipe.open("wb", buffering=0) as keyboard:
            keyboard.write(b'{"k": "a", "v": 1}\n{"k": "a", "v": 2}\n')
            found.extend(eventually(lambda: printed(capfd)))
            keyboard.write(b'{"k": "a", "v": 3}')

    person = threading.Thread(target=type_slowly)
    person.start()
    run_file(task(model), pipe)
    person.join()
    assert [result["result"]["sum"] for result in (*found, *printed(capfd))] == [3, 3]


def test_a_line_without_an_end_is_no_message(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_LONGEST_LINE", 1 << 20)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def write() -> None:
        with suppress(BrokenPipeError), pipe.open("wb", buffering=0) as endless:
            endless.write(b'{"k": "a", "v": 1}\n')
            while True:
                endless.write(b"x" * 10_000)

    program = threading.Thread(target=write)
    program.start()
    for endless in (pipe, Path("/dev/zero")):
        with pytest.raises(ConfigError, match=r"line \d: it has more than 1 MiB"):
            run_file(task(model), endless)
    program.join()


def test_nothing_waits_for_a_line_that_does_not_come(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pipe.open("r+b", buffering=0) as idle:
        idle.write(b'{"k": "a", "v": 1}\n{"k": "a", "v": 2}\n{"k": "a", "v": 3}\n')
        with pytest.raises(Unavailable):  # while the next line is awaited: there is no model
            run_file(task("127.0.0.1:9"), pipe)
        idle.write(b"\n")


def test_dead_letters_are_logged_with_their_line(
    model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    run_file(
        task(model, version="strict"),
        events(tmp_path, {"k": "a", "v": 1}, b"{", {"k": "a", "v": 2, "bad": True}),
    )
    assert printed(capfd)[0]["dropped"] == [[3, 3]]
    assert "line 2 is a dead letter" in caplog.text and "line 3 is a dead letter" in caplog.text


def test_late_messages_amend_windows_of_a_file_too(
    model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = [{"k": "a", "v": number, "t": at} for number, at in enumerate((1.0, 12.0, 2.0))]
    run_file(task(model, window="tumbling:10s", time="t", late="amend"), events(tmp_path, *lines))
    found = [(result["window"]["revision"], result["result"]["count"]) for result in printed(capfd)]
    assert found == [(0, 1), (1, 2), (0, 1)]


def test_it_runs_on_the_callers_own_thread_so_that_breakpoints_work(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prepared_here.py").write_text(
        "import threading\n"
        "seen = []\n"
        "def prepare(window):\n"
        "    seen.append(threading.current_thread())\n"
        "    return {'messages': [m.value for m in window.messages], 'window': {}}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    tried = task(model, prepare="prepared_here:prepare")
    run_file(tried, events(tmp_path, {"k": "a", "v": 1}, {"k": "a", "v": 2}))
    import prepared_here

    assert prepared_here.seen == [threading.current_thread()]
    assert printed(capfd)[0]["result"]["sum"] == 3


def test_what_is_wrong_is_raised_at_once(tmp_path: Path, model: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        run_file(task(model), tmp_path / "absent.jsonl")
    with pytest.raises(ConfigError, match="line 1: it is no message: stored is 'yesterday'"):
        run_file(task(model), events(tmp_path, {"data": 1, "stored": "yesterday"}))
    lines = events(tmp_path, {"k": "a", "v": 1}, {"k": "a", "v": 2})
    with pytest.raises(ConfigError, match="needs a broker"):
        run_file(task(model, sinks=["nats:results.{key}"]), lines)
    with pytest.raises(ConfigError, match="which a trial must not change"):
        run_file(task(model, sinks=[f"file:{tmp_path}/results"]), lines)
    assert not (tmp_path / "results").exists()
    with pytest.raises(Unavailable):
        run_file(task(f"127.0.0.1:{free_port()}", timeout=2.0), lines)

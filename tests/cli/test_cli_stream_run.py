"""``aipod stream run`` and its neighbours: the real command, a real broker, a real model server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import nats
import pytest
from cli_streams import World, toml
from grpc_health.v1 import health_pb2, health_pb2_grpc
from waiting import eventually

from aipod.stream.dev import DevServer

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[str]"]


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=20)[1]
    return process.returncode, errors


def test_flags_alone_describe_a_task_and_sigterm_ends_it_with_0(world: World, start: Start) -> None:
    process = start("stream", "run", *world.flags(model=f"{world.model}/default"), "--timeout", "5s")
    world.publish(1, 2, 3)
    eventually(lambda: world.sums() == [3])
    world.publish(4)
    eventually(lambda: world.sums() == [3, 7])
    code, errors = end(process)
    assert code == 0, errors
    [first, second] = world.results()
    assert (first["task"], first["key"], first["window"]["members"]) == (world.name, "a", [[1, 2]])
    assert second["window"]["members"] == [[3, 4]]


def test_what_was_open_at_sigterm_is_in_the_next_one_s_window(world: World, start: Start) -> None:
    process = start("stream", "run", *world.flags())
    world.publish(1, 2, 3)
    eventually(lambda: world.sums() == [3])
    assert end(process)[0] == 0
    world.publish(4)
    process = start("stream", "run", *world.flags())
    eventually(lambda: world.sums() == [3, 7])
    assert end(process)[0] == 0


def test_of_a_file_s_tasks_only_picks_and_once_drains_and_ends(world: World, desk: Path, aipod: Run) -> None:
    other = {
        **world.task,
        "name": f"{world.name}b",
        "subject": f"{world.name}b.in.>",
        "sink": f"nats:{world.name}b.out.x",
    }
    world.streams(f"{world.name}b")
    (desk / "tasks.toml").write_text(toml({**world.task, "partitions": 2}, {**other, "key": ""}))
    world.publish(1, 2, 3)
    world.publish(5, 6, name=f"{world.name}b")
    done = aipod("stream", "run", "tasks.toml", "--only", world.name, "--once")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert world.sums() == [3, 3]
    assert [result["window"]["reason"] for result in world.results()] == ["full", "end"]
    assert f"{world.name}: 3 messages became 2 results; 0 were late, and there are 0 dead letters\n" in done.stderr
    assert f"{world.name}b: " not in done.stderr
    assert world.sums(f"{world.name}b") == []


def test_a_dry_run_says_what_is_there_and_makes_nothing(world: World, desk: Path, aipod: Run) -> None:
    (desk / "tasks.toml").write_text(toml(world.task))
    done = aipod("stream", "run", "tasks.toml", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"consumer aipod-{world.name} of stream {world.name}-in would be made" in done.stdout
    assert f"{world.name}.out.* is in stream {world.name}-out" in done.stdout
    assert f"a stream for dead.{world.name} would be made" in done.stdout
    assert world.consumers() == []


def test_a_dry_run_finds_what_is_missing_and_ends_with_1(world: World, desk: Path, aipod: Run) -> None:
    (desk / "tasks.toml").write_text(toml({**world.task, "subject": "nowhere.>", "sink": "nats:nowhere2.{key}"}))
    done = aipod("stream", "run", "tasks.toml", "--dry-run")
    assert done.returncode == 1
    assert "PROBLEM: source: no stream holds subject 'nowhere.>'" in done.stdout
    assert "PROBLEM: sink nats:nowhere2.{key}: no stream takes subject 'nowhere2.*'" in done.stdout
    assert done.stderr == "aipod: 1 of 1 tasks cannot run like this; see PROBLEM above\n"


def test_a_dry_run_looks_at_models_databases_and_directories_and_makes_none(
    world: World, desk: Path, aipod: Run
) -> None:
    (desk / "file").write_text("")
    (desk / "data").mkdir(exist_ok=True)
    good = ["sql:sqlite:///new.db#results", "file:new", f"model:{world.model}/default", "stdout"]
    bad = ["sql:sqlite:///nowhere/x.db#r", "file:file/x", "model:127.0.0.1:9/v"]
    before = sorted(desk.iterdir())
    (desk / "tasks.toml").write_text(
        toml(
            {**world.task, "sink": good},
            {**world.task, "name": f"{world.name}b", "sink": bad, "model": "127.0.0.1:9"},
        )
    )
    done = aipod("stream", "run", "tasks.toml", "--dry-run")
    assert done.returncode == 1, done.stderr
    first, second = done.stdout.split(f"\n{world.name}b\n")
    assert "PROBLEM" not in first
    assert f"  model: {world.model} answers; " in first
    assert "  sink sql:sqlite:///new.db#results: the database and its table would be made\n" in first
    assert "  sink file:new: the directory would be made\n" in first
    assert f"  sink model:{world.model}/default: {world.model} answers; " in first
    for problem in (
        "model: ",
        "sink sql:sqlite:///nowhere/x.db#r: ",
        "sink file:file/x: ",
        "sink model:127.0.0.1:9/v: ",
    ):
        assert f"  PROBLEM: {problem}" in second
    assert sorted(desk.iterdir()) == sorted([*before, desk / "tasks.toml"])


def test_the_tasks_of_a_provider_can_be_looked_at_and_picked(
    world: World, desk: Path, aipod: Run, start: Start
) -> None:
    other = f"{world.name}b"
    world.streams(other)
    tables = [
        world.task,
        {**world.task, "name": other, "subject": f"{other}.in.>", "sink": f"nats:{other}.out.{{key}}"},
    ]
    (desk / "plant.py").write_text(f"async def tasks():\n    return {tables!r}\n")
    (desk / "events.jsonl").write_text("1\n2\n")
    asked, picked = ("--provider", "plant:tasks"), ("--provider", "plant:tasks", "--only", other)
    assert [line for line in aipod("stream", "check", *asked).stdout.splitlines() if line[0] != " "] == [
        world.name,
        other,
    ]
    assert aipod("stream", "check", *picked).stdout.startswith(f"{other}\n")
    dry = aipod("stream", "run", *picked, "--dry-run")
    assert (dry.returncode, dry.stdout.splitlines()[0]) == (0, other), dry.stderr
    stranger = aipod("stream", "status", *asked, "--only", "x")
    assert (
        stranger.stderr == f"aipod: there is no task 'x' in what the provider gives; there are {world.name}, {other}\n"
    )
    process = start("stream", "run", *picked)
    world.publish(1, 2)
    world.publish(3, "poison", name=other)
    eventually(lambda: world.sums(other) == [3])
    assert end(process)[0] == 0
    assert world.sums() == []
    rows = [line.split()[:2] for line in aipod("stream", "status", *asked).stdout.splitlines()]
    assert rows == [["TASK", "STATE"], [world.name, "new"], [other, "nobody"]]
    assert aipod("stream", "replay", *picked).stdout == f"{other}: 1 put back\n"


def test_a_command_whose_only_task_has_stopped_for_good_ends_with_1(world: World, start: Start) -> None:
    process = start("stream", "run", *world.flags(sink="stdout"))
    world.publish(1, 2)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["result"]["sum"] == 3
    process.stdout.close()
    process.stdout = None
    world.publish(3, 4)
    errors = process.communicate(timeout=20)[1]
    assert process.returncode == 1
    assert "nobody reads the standard output any more" in errors
    assert errors.endswith("aipod: every task has stopped for good; the log says why\n")


def test_a_task_is_tried_on_a_file_without_a_broker(world: World, desk: Path, aipod: Run) -> None:
    table = {**world.task, "nats": "nats://127.0.0.1:1", "key": ""}
    (desk / "tasks.toml").write_text(toml(table))
    (desk / "events.jsonl").write_text("1\n2\n3\n")
    done = aipod("stream", "run", "tasks.toml", "--from-file", "events.jsonl", "--stdout")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["result"]["sum"] for line in done.stdout.splitlines()] == [3, 3]
    flags = ("--from-file", "-", "--window", "count:3", "--model", world.model)
    done = aipod("stream", "run", *flags, stdin="1\n2\n3\n")
    assert [json.loads(line)["result"]["sum"] for line in done.stdout.splitlines()] == [6], done.stderr


def test_a_trial_that_waits_for_lines_ends_when_it_is_interrupted(world: World, start: Start) -> None:
    flags = ("--from-file", "-", "--window", "count:2", "--model", world.model)
    process = start("stream", "run", *flags, stdin=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("1\n2\n3\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["result"]["sum"] == 3
    process.send_signal(signal.SIGINT)
    process.wait(20)  # its standard input is open, and nobody writes there
    assert process.returncode == 130
    assert process.stderr is not None and "Fatal" not in process.stderr.read()


def test_results_can_go_to_standard_output_alone(world: World, desk: Path, aipod: Run) -> None:
    (desk / "tasks.toml").write_text(toml(world.task))
    world.publish(1, 2)
    done = aipod("stream", "run", "tasks.toml", "--stdout", "--once")
    assert [json.loads(line)["result"]["sum"] for line in done.stdout.splitlines()] == [3], done.stderr
    assert world.sums() == []


def workers_of(pid: int) -> list[int]:
    return [
        int(child) for listing in Path(f"/proc/{pid}/task").glob("*/children") for child in listing.read_text().split()
    ]


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def two(world: World, desk: Path, start: Start) -> tuple[World, str, Callable[..., subprocess.Popen[str]]]:
    """Two tasks in two workers."""
    other = f"{world.name}b"
    world.streams(other)
    second = {**world.task, "name": other, "subject": f"{other}.in.>", "sink": f"nats:{other}.out.{{key}}"}
    (desk / "tasks.toml").write_text(toml({**world.task, "lease_ttl": 1}, {**second, "lease_ttl": 1}))
    return world, other, lambda *more: start("stream", "run", "tasks.toml", "--workers", "2", *more)


def test_workers_share_the_tasks_and_one_that_is_killed_is_started_again(two: Any) -> None:
    world, other, start = two
    process = start()
    world.publish(1, 2)
    world.publish(3, 4, name=other)
    eventually(lambda: world.sums() == [3] and world.sums(other) == [7])
    before = workers_of(process.pid)
    assert len(before) == 2
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    world.publish(5, 6)
    world.publish(7, 8, name=other)
    eventually(lambda: world.sums() == [3, 11] and world.sums(other) == [7, 15])
    assert not set(before) & set(workers_of(process.pid))
    code, errors = end(process)
    assert code == 0, errors
    assert "ended by SIGKILL" in errors


def test_workers_end_with_a_supervisor_that_is_killed(two: Any) -> None:
    world, _, start = two
    process = start()
    world.publish(1, 2)
    eventually(lambda: world.sums() == [3])
    workers = workers_of(process.pid)
    process.kill()
    eventually(lambda: not any(map(is_there, workers)))


def test_once_ends_when_all_workers_are_done(two: Any) -> None:
    world, other, start = two
    world.publish(1, 2)
    world.publish(3, 4, name=other)
    process = start("--once")
    errors = process.communicate(timeout=30)[1]
    assert process.returncode == 0, errors
    assert (world.sums(), world.sums(other)) == ([3], [7])


def health(process: subprocess.Popen[str]) -> Callable[[], int]:
    """Ask a process that was started with --health-port 0."""
    assert process.stderr is not None
    line = next(line for line in process.stderr if "health on port" in line)
    port = line.split()[-1]

    def ask() -> int:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            return int(health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5).status)

    return ask


@pytest.mark.parametrize("workers", ["1", "2"])
def test_health_is_serving_while_tasks_run_and_their_broker_is_there(
    workers: str, world: World, desk: Path, start: Start, tmp_path: Path
) -> None:
    with DevServer(tmp_path / "own") as own:
        (desk / "tasks.toml").write_text(toml({**world.task, "nats": own.url}))
        asyncio.run(_make(own.url, world.name))
        arguments = ("tasks.toml", "--workers", workers, "--health-port", "0")
        process = start("stream", "run", *arguments, AIPOD_LISTEN_HOST="127.0.0.1")
        ask = health(process)
        serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        eventually(lambda: ask() == serving)
        own.kill()
        eventually(lambda: ask() == not_serving)
        own.start()
        eventually(lambda: ask() == serving)
        assert end(process)[0] == 0


async def _make(url: str, name: str) -> None:
    client = await nats.connect(url)
    for suffix in ("in", "out"):
        await client.jetstream().add_stream(name=f"{name}-{suffix}", subjects=[f"{name}.{suffix}.>"])
    await client.close()


def test_while_the_broker_is_not_there_it_waits_and_sigterm_ends_it_with_0(world: World, start: Start) -> None:
    process = start(
        "stream", "run", *world.flags(nats="nats://127.0.0.1:9"), "--health-port", "0", AIPOD_LISTEN_HOST="127.0.0.1"
    )
    assert health(process)() == health_pb2.HealthCheckResponse.NOT_SERVING
    assert end(process)[0] == 0


def test_a_model_that_is_stuck_does_not_keep_it_beyond_the_grace(world: World, desk: Path, start: Start) -> None:
    process = start("stream", "run", *world.flags(), "--grace", "1")
    world.publish("stuck", str(desk / "go"))
    pending = lambda js: js.consumer_info(f"{world.name}-in", f"aipod-{world.name}")  # noqa: E731
    eventually(lambda: world.consumers() and world.ask(pending).num_ack_pending == 2)
    code, errors = end(process)
    (desk / "go").touch()
    assert code == 0, errors


def test_a_second_signal_ends_it_at_once(world: World, desk: Path, start: Start) -> None:
    process = start("stream", "run", *world.flags(), "--grace", "600")
    world.publish("stuck", str(desk / "go"))
    pending = lambda js: js.consumer_info(f"{world.name}-in", f"aipod-{world.name}")  # noqa: E731
    eventually(lambda: world.consumers() and world.ask(pending).num_ack_pending == 2)
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    assert next(line for line in process.stderr if "SIGTERM: stopping" in line)
    code = end(process)[0]
    (desk / "go").touch()
    assert code == 128 + signal.SIGTERM

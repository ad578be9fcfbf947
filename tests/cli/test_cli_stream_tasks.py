"""What ``aipod stream`` says of tasks: check, status, replay, and what it refuses to run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_streams import World, toml
from waiting import eventually

from aipod.cli.stream.flags import tasks_of
from aipod.stream.dev import DevServer

ROOT = Path(__file__).parents[2]
Run = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[str]"]
Refused = Callable[..., str]

TASK = {
    "name": "vibration",
    "nats": "nats://broker:4222",
    "subject": "sensors.>",
    "window": "sliding:32:8",
    "key": "device",
    "model": "localhost:50051/v1",
    "sink": "nats:results.{key}",
}


@pytest.fixture
def tasks(desk: Path) -> Path:
    path = desk / "tasks.toml"
    path.write_text(toml(TASK, {**TASK, "name": "printed", "sink": "stdout"}))
    return path


def test_check_says_what_tasks_do_and_what_is_not_guaranteed(tasks: Path, aipod: Run) -> None:
    done = aipod("stream", "check", "tasks.toml")
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.split("\nprinted\n")
    assert first.startswith("vibration\n  source: sensors.> at broker:4222, as consumer aipod-vibration\n")
    assert "windows: sliding:32:8, by device" in first
    assert "model: version v1 at localhost:50051" in first
    assert "sink: nats:results.{key}" in first
    assert "dead letters: dead.vibration" in first
    assert "at least once" not in first
    assert "at least once" in second


def test_check_finds_all_that_is_wrong_at_once(desk: Path, refused: Refused) -> None:
    bad = {**TASK, "window": "count:0", "sink": "nowhere", "modle": "x"}
    (desk / "tasks.toml").write_text(toml(bad, {**TASK, "name": "b", "decode": "yaml"}))
    line = refused("stream", "check", "tasks.toml")
    heading, *lines = line.splitlines()
    assert heading == "aipod: tasks.toml: 4 problems"
    for problem in ("window", "'nowhere'", "modle", "yaml"):
        assert sum(problem in line for line in lines) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("run",), "Name a file of tasks or a provider, or say with flags what the task is."),
        (("run", "nowhere.toml"), "nowhere.toml: it cannot be read (No such file or directory)"),
        (
            ("run", "tasks.toml", "--only", "vibratoin"),
            "no task 'vibratoin' in tasks.toml; there are vibration, printed",
        ),
        (("run", "tasks.toml", "--window", "count:3"), "--window says what a task is, and so does the file; keep one."),
        (("run", "tasks.toml", "--user", "me"), "--user says what a task is, and so does the file; keep one."),
        (("run", "tasks.toml", "--from-file", "x"), "--only picks one of vibration, printed."),
        (("run", "tasks.toml", "--only", "printed", "--from-file", "x"), "x: the file cannot be read"),
        (("run", "tasks.toml", "--provider", "a:b"), "--provider says which tasks there are; leave out the file"),
        (("run", "--window", "count:2", "--provider", "a:b"), "--provider says which tasks there are; leave out"),
        (("status", "tasks.toml", "--provider", "a:b"), "--provider says which tasks there are; leave out the file"),
        (("run", "--provider", "a:b", "--stdout"), "--stdout is for trying tasks"),
        (("run", "tasks.toml", "--interval", "5"), "--interval is how often to ask a --provider, and there is none."),
        (("run", "tasks.toml", "--from-file", "x", "--once"), "--once means nothing with --from-file; leave out one"),
        (("run", "tasks.toml", "--from-file", "x", "--workers", "3"), "--workers means nothing with --from-file"),
        (("run", "tasks.toml", "--from-file", "x", "--health-port", "1"), "--health-port means nothing with --from"),
        (("run", "tasks.toml", "--from-file", "x", "--dry-run"), "--dry-run means nothing with --from-file"),
        (("run", "tasks.toml", "--dry-run", "--workers", "2"), "--workers means nothing with --dry-run"),
        (("run", "tasks.toml", "--dry-run", "--grace", "2"), "--grace means nothing with --dry-run"),
        (("run", "--subject", "a", "--stdout", "--sink", "file:x"), "--stdout is in place of every other sink"),
        (("run", "--provider", "a:b"), "there is no module 'a'"),
        (("run", "--provider", "nonsense"), "names no provider"),
        (("run", "--only", "x", "--subject", "a"), "--only picks tasks of a file or a provider, and there is neither."),
        (("run", "--subject", "a b", "--window", "count:1", "--sink", "stdout"), "'a b' is no subject"),
        (("run", "--subject", "a", "--sink", "stdout"), "window: "),
        (("run", "--subject", "a", "--window", "count:1", "--sink", "stdout", "--timeout", "soon"), "timeout"),
        (("run", "tasks.toml", "--grace", "soon"), "--grace is 'soon'; it must be a number of seconds"),
        (("run", "tasks.toml", "--log-level", "loud"), "--log-level is 'loud'; it must be one of DEBUG"),
        (("run", "tasks.toml", "--workers", "0"), "0 is not in the range"),
        (("run", "tasks.toml", "--share", "3/2"), "'3/2' is no share"),
        (("run", "tasks.toml", "--share", "1/2"), "--share is what a supervisor says to its workers"),
        (("status",), "Name a file of tasks or a provider, or say with flags what the task is."),
        (("status", "--name", "x"), "subjects"),
        (("replay", "--dead-letters", "--limit", "0"), "0 is not in the range"),
        (("replay", "nowhere.toml"), "nowhere.toml: it cannot be read"),
        (("check", "nowhere.toml"), "nowhere.toml: it cannot be read"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], sentence: str, tasks: Path, refused: Refused
) -> None:
    assert sentence in refused("stream", *arguments)


def test_a_password_stands_in_no_error(desk: Path, refused: Refused) -> None:
    line = refused("stream", "run", "--nats", "nats://me:s3cret@host:x", "--password", "s3cret", "--subject", "a")
    assert "s3cret" not in line


def test_a_broker_that_is_not_there_is_one_line_and_exit_code_1(tasks: Path, aipod: Run, world: World) -> None:
    done = aipod("stream", "status", "--nats", "nats://127.0.0.1:9", "--subject", "a", "--name", "x")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "127.0.0.1:9" in done.stderr


def test_status_follows_a_task_from_before_its_first_run_to_after_its_last(
    world: World, desk: Path, start: Start
) -> None:
    (desk / "tasks.toml").write_text(toml({**world.task, "lease_ttl": 1}))
    world.publish(1)
    looking = start("stream", "status", "tasks.toml", "--watch", "--every", "0.2", "--json")

    def look() -> dict[str, Any]:
        assert looking.stdout is not None
        [task] = json.loads(looking.stdout.readline())["tasks"]
        return dict(task)

    before = look()
    assert (before["task"], before["state"], before["partition"]) == (world.name, "new", None)
    process = start("stream", "run", "tasks.toml")
    world.publish(2, 3)
    now = eventually(lambda: (seen := look())["results"] == 1 and seen)
    assert (now["state"], now["lag"], now["ack_pending"], now["open_windows"], now["messages"]) == (
        "running",
        0,
        1,
        1,
        3,
    )
    assert now["oldest_seconds"] > 0
    assert now["holder"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    after = eventually(lambda: (seen := look())["state"] == "nobody" and seen)
    assert (after["holder"], after["lag"] + after["ack_pending"]) == ("", 1)
    looking.send_signal(signal.SIGINT)
    looking.communicate(timeout=20)
    assert looking.returncode == 0


def test_on_a_terminal_status_goes_on_until_sigint_whether_the_broker_is_there_or_not(
    world: World, desk: Path, tmp_path: Path
) -> None:
    with DevServer(tmp_path / "own") as own:
        (desk / "tasks.toml").write_text(toml({**world.task, "nats": own.url}))
        own.stop()
        terminal, ours = os.openpty()
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "aipod", "stream", "status", "tasks.toml", "--every", "0.2"]
        with (
            open(terminal, "rb", buffering=0) as shown,
            subprocess.Popen(command, cwd=desk, env=environment, stdout=ours, stderr=subprocess.PIPE) as process,
        ):
            os.close(ours)
            try:
                assert process.stderr is not None
                assert b"no broker answers" in process.stderr.readline()
                own.start()
                seen = b""
                while seen.count(b"TASK ") < 3:
                    seen += shown.read(4096)
                assert b"\x1b[H\x1b[2J" in seen
                process.send_signal(signal.SIGINT)
                assert process.wait(20) == 0
            finally:
                process.kill()


def test_status_is_a_table_of_all_tasks_and_says_what_is_broken(world: World, desk: Path, aipod: Run) -> None:
    broken = {**world.task, "name": "broken", "subject": "nowhere.>", "sink": "stdout"}
    parted = {**world.task, "name": "parted", "partitions": 2, "sink": "stdout"}
    (desk / "tasks.toml").write_text(toml(world.task, broken, parted))
    done = aipod("stream", "status", "tasks.toml")
    assert done.returncode == 0, done.stderr
    heading, *rows = done.stdout.splitlines()
    assert heading.split() == [
        "TASK",
        "STATE",
        "LAG",
        "UNACKED",
        "OLDEST",
        "WINDOWS",
        "LATE",
        "EXPIRED",
        "DEAD",
        "LETTERS",
        "MSG/S",
        "HOLDER",
    ]
    assert [row.split()[:2] for row in rows[:4]] == [
        [world.name, "new"],
        ["broken", "broken"],
        ["parted/0", "new"],
        ["parted/1", "new"],
    ]
    assert rows[4].startswith("broken: no stream holds subject 'nowhere.>'")


def test_replay_lists_dead_letters_and_puts_them_back(world: World, desk: Path, aipod: Run) -> None:
    (desk / "tasks.toml").write_text(toml(world.task))
    world.publish(1, "poison", 2, "poison")
    assert aipod("stream", "run", "tasks.toml", "--once").returncode == 0
    assert world.sums() == [1, 2]
    # Nobody runs it any more, and they are there all the same.
    looked = aipod("stream", "status", "tasks.toml", "--json")
    assert [task["dead_letters"] for task in json.loads(looked.stdout)["tasks"]] == [2]
    listed = aipod("stream", "replay", "--dead-letters", "tasks.toml", "--dry-run")
    assert listed.returncode == 0, listed.stderr
    assert sorted(line.split(": ")[:2] for line in listed.stdout.splitlines()) == [
        [world.name, f"{world.name}.in.a {seq}"] for seq in (2, 4)
    ]
    flags = ("--nats", world.nats, "--name", world.name)
    limited = ("--limit", "1", "--from", f"{world.name}.*.a")
    assert aipod("stream", "replay", "--dead-letters", *flags, *limited).stdout == f"{world.name}: 1 put back\n"
    assert aipod("stream", "replay", "--dead-letters", *flags).stdout == f"{world.name}: 1 put back\n"
    assert world.ask(lambda js: js.stream_info(f"{world.name}-in")).state.last_seq == 6


@pytest.mark.parametrize(
    ("subjects", "name"),
    [
        (("sensors.>",), "sensors"),
        (("plant.*.press_1", "other"), "plant-press_1"),
        (("-.a$b.ü",), "ab"),
        (("*",), "stream"),
        (("a" * 300,), "a" * 100),
        ((), "stream"),
    ],
)
def test_a_task_of_flags_without_a_name_is_named_after_its_subject(subjects: tuple[str, ...], name: str) -> None:
    (task,) = tasks_of(None, {"subjects": subjects, "window": "count:2"}, fillers={"sinks": "stdout", **FILLER})
    assert (task.name, task.source.durable) == (name, f"aipod-{name}")


FILLER = {"subjects": "local"}


def test_replay_of_what_never_had_dead_letters_says_that_there_are_none(world: World, aipod: Run) -> None:
    done = aipod("stream", "replay", "--dead-letters", "--nats", world.nats, "--name", world.name)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{world.name}: 0 put back\n", "")

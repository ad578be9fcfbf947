"""``aipod jobs``, ``log``, ``cancel`` and ``stop`` against a real server; and records as lines."""

from __future__ import annotations

import json
import re
import secrets
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from waiting import eventually

from aipod.cli.progress import Progress
from aipod.cli.records import record_line, state_line
from aipod.cli.text import cut, duration, size, table
from aipod.errors import ModelError, TrainingCancelled, TrainingFailed, VersionNotFound
from aipod.rpc.client import AIClient, JobInfo, TrainingJob

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[str]"]

UNKNOWN = "v1@20260101T000000000000Z-0000"


@pytest.fixture
def flags(pupil: AIClient) -> list[str]:
    return ["-a", pupil.address, "-v", pupil.version]


@pytest.fixture
def gate(desk: Path) -> Path:
    """What a training waits for that is told to."""
    return desk / f"gate-{secrets.token_hex(4)}"


@pytest.fixture
def running(pupil: AIClient, gate: Path) -> TrainingJob:
    """A job whose model has written a record, and waits."""
    job = pupil.start_training(gate=str(gate))
    eventually(lambda: job.progress)
    return job


def rows(output: str) -> list[dict[str, str]]:
    """A table that was printed."""
    head, *lines = output.splitlines()
    starts = [match.start() for match in re.finditer(r"\S+", head)]
    cells = [[line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)] for line in (head, *lines)]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[1:]]


def test_jobs_are_a_table_with_what_became_of_each(
    pupil: AIClient, flags: list[str], running: TrainingJob, gate: Path, aipod: Run
) -> None:
    [row] = rows(aipod("jobs", *flags).stdout)
    assert (row["JOB"], row["STATE"], row["DONE"], row["REVISION"]) == (running.id, "running", "25%", "")
    gate.touch()
    running.wait()
    with pytest.raises(ModelError, match="by"):
        pupil.train(epochs=1, fail="by\nnothing")
    done = aipod("jobs", *flags)
    first, second = rows(done.stdout)
    assert (first["STATE"], first["REVISION"], first["RESULT"]) == ("succeeded", "1", "accuracy 0.75, epochs 4")
    assert (second["STATE"], second["REVISION"], second["RESULT"]) == ("failed", "", "ValueError: by nothing")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", first["CREATED"])
    assert re.fullmatch(r"\d+:\d\d", first["TOOK"])
    assert (done.returncode, done.stderr) == (0, "")


def test_jobs_are_json_for_machines(pupil: AIClient, flags: list[str], aipod: Run) -> None:
    pupil.train(epochs=2)
    [job] = json.loads(aipod("jobs", *flags, "--json").stdout)
    info = pupil.job(job["id"]).info()
    # Its heartbeat and its latest record are asked for of those that run alone.
    assert job == json.loads(json.dumps(info._replace(latest=None, heartbeat=0.0)._asdict()))
    assert (job["parameters"], job["metrics"]) == ({"epochs": 2}, {"accuracy": 0.5, "epochs": 2})


def test_without_a_version_the_jobs_of_all_are_listed(pupil: AIClient, school: str, aipod: Run) -> None:
    pupil.train(epochs=1)
    with AIClient(school, version=f"{pupil.version}-too") as other:
        other.train(epochs=1)
    versions = {job["version"] for job in json.loads(aipod("jobs", "-a", school, "--json").stdout)}
    assert versions >= {pupil.version, f"{pupil.version}-too"}


def test_no_jobs_is_a_sentence_and_no_jobs_for_machines_is_an_empty_list(flags: list[str], aipod: Run) -> None:
    assert aipod("jobs", *flags).stdout == "no training jobs\n"
    assert aipod("jobs", *flags, "--json").stdout == "[]\n"


def test_the_log_is_that_of_the_latest_job_or_of_the_one_that_is_named(
    pupil: AIClient, flags: list[str], aipod: Run
) -> None:
    first = pupil.start_training(epochs=1, say="first 模型")
    first.wait()
    pupil.train(epochs=2)
    latest = aipod("log", *flags)
    assert [line.split("  ", 1)[1].strip() for line in latest.stdout.splitlines()] == [
        "50%  fitting  epoch 1, accuracy 0",
        "100%  fitting  epoch 2, accuracy 0.5",
    ]
    assert re.fullmatch(r"[^\n]+: succeeded, revision 2, accuracy 0.5, epochs 2\n", latest.stderr)
    named = aipod("log", "-a", pupil.address, "--job", first.id, PYTHONIOENCODING="latin-1")
    assert named.stdout.endswith("epoch 1, accuracy 0  first 模型\n")


def test_the_log_is_json_lines_for_machines_and_begins_where_one_wants(
    pupil: AIClient, flags: list[str], aipod: Run
) -> None:
    pupil.train(epochs=3)
    done = aipod("log", *flags, "--json", "--after", "1")
    assert [json.loads(line)["seq"] for line in done.stdout.splitlines()] == [2, 3]


def test_the_output_is_what_the_model_printed(pupil: AIClient, flags: list[str], aipod: Run) -> None:
    pupil.train(epochs=1)
    done = aipod("log", *flags, "--output")
    assert (done.returncode, done.stdout, done.stderr) == (0, "lesson one\n", "")


def test_a_log_is_followed_to_the_end_of_its_job(
    flags: list[str], running: TrainingJob, gate: Path, start: Start
) -> None:
    process = start("log", "-f", *flags)
    assert process.stdout is not None
    assert "epoch 1" in process.stdout.readline()
    gate.touch()
    output, errors = process.communicate(timeout=60)
    assert [line.partition("epoch ")[2][:1] for line in output.splitlines()] == ["2", "3", "4"]
    assert process.returncode == 0
    assert errors == f"{running.id}: succeeded, revision 1, accuracy 0.75, epochs 4\n"


def test_sigint_ends_to_follow_and_not_the_job(
    flags: list[str], running: TrainingJob, gate: Path, start: Start
) -> None:
    process = start("log", "-f", *flags)
    assert process.stdout is not None
    assert "epoch 1" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert running.state == "running"
    gate.touch()
    assert running.result()["epochs"] == 4


def test_a_cancelled_job_publishes_nothing(pupil: AIClient, running: TrainingJob, aipod: Run) -> None:
    done = aipod("cancel", running.id, "-a", pupil.address)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(rf"{re.escape(running.id)}: cancell(ing|ed)[^\n]*\n", done.stdout)
    assert running.wait().state == "cancelled"
    with pytest.raises(VersionNotFound):
        pupil.admin.revisions(pupil.version)


def test_a_stopped_job_publishes_what_it_has(
    pupil: AIClient, flags: list[str], running: TrainingJob, aipod: Run
) -> None:
    done = aipod("stop", "latest", *flags, "--json")
    assert json.loads(done.stdout)["id"] == running.id
    result = running.result()
    assert (result["epochs"], result["stopped"], pupil.predict()) == (1, True, 1)


@pytest.mark.parametrize("verb", ["cancel", "stop"])
def test_a_job_that_has_ended_stays_as_it_is(verb: str, pupil: AIClient, flags: list[str], aipod: Run) -> None:
    pupil.train(epochs=1)
    done = aipod(verb, "latest", *flags)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(": succeeded, revision 1, accuracy 0, epochs 1\n")


@pytest.mark.parametrize("command", [("log", "--job"), ("cancel",), ("stop",)], ids=" ".join)
def test_a_job_that_is_not_there_is_one_line_and_exit_code_1(
    command: tuple[str, ...], flags: list[str], aipod: Run
) -> None:
    for job_id, sentence in ((UNKNOWN, "there is no training job"), ("latest", "has no training jobs")):
        done = aipod(*command, job_id, *flags)
        assert (done.returncode, done.stdout) == (1, "")
        assert re.fullmatch(rf"aipod: [^\n]*{sentence}[^\n]*\n", done.stderr), done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("cancel",), "Missing argument 'ID'"),
        (("stop",), "Missing argument 'ID'"),
        (("log", "--after", "-1"), "--after"),
        (("log", "--output", "-f"), "--output goes with none of -f, --after and --json"),
        (("jobs", "v1"), "unexpected extra argument"),
        (("jobs", "-a", "nowhere"), "--address is 'nowhere'; it must be host:port"),
    ],
)
def test_arguments_that_make_no_sense_are_one_line_and_exit_code_2(
    arguments: tuple[str, ...], sentence: str, refused: Callable[..., str]
) -> None:
    assert sentence in refused(*arguments)


@pytest.mark.parametrize(
    ("record", "line"),
    [
        ({"progress": 40, "stage": "fit", "data": {"loss": 0.123456}, "status": "running"}, " 40%  fit  loss 0.1235"),
        ({"progress": None, "message": "hello", "status": "running"}, "    hello"),
        ({"progress": 1e9}, "100%"),
        ({"progress": float("nan")}, ""),
        ({"progress": True, "status": "finished"}, "finished"),
        ({"data": [1, {"a": None}], "status": "running"}, '[1, {"a": null}]'),
        ({"data": {"big": 10**400}, "lr": 0.1}, f"big {10**400}  lr 0.1"),
        ({"time": 1e300, "message": "then"}, "then"),
        ({"time": "soon", "stage": "a\tb\x00\x1b]0;x"}, "a b\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}]0;x"),
    ],
)
def test_a_record_is_one_line_whatever_is_in_it(record: dict[str, Any], line: str) -> None:
    assert record_line({"status": "running", **record}).strip() == line.strip()


INFO = JobInfo("v@1", "v", "train", "running", "", "", "", "", 0, 0, "", 1, False, {}, {}, None, 0.0)


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        (str(TrainingFailed("v", "v@1", "ended by SIGKILL\n")), "v@1: failed: ended by SIGKILL"),
        (str(TrainingCancelled("v", "v@1", "it had not begun")), "v@1: failed: it had not begun"),
        (str(TrainingCancelled("v", "v@1")), "v@1: failed"),
        ("ValueError: \x1b[2J", "v@1: failed: ValueError: \N{REPLACEMENT CHARACTER}[2J"),
    ],
)
def test_how_a_job_stands_is_said_once(reason: str, line: str) -> None:
    assert state_line(INFO._replace(state="failed", reason=reason)) == line


class TestProgress:
    def test_what_is_left_comes_from_the_records_own_times(self) -> None:
        progress = Progress(100.0)
        progress.tell(INFO, 100.0)
        for second in range(3):
            progress.add({"progress": 10.0 * second, "time": 5000.0 + second}, 100.0 + second)
        assert progress.seconds_left(102.0) == pytest.approx(8.0)
        assert progress.seconds_left(105.0) == pytest.approx(5.0)
        assert progress.line(105.0, 80) == "[####                    ]  20%  0:05, 0:05 left"

    def test_a_training_that_began_again_is_rated_anew(self) -> None:
        progress = Progress(0.0)
        for second, percent in enumerate((50, 60, 0)):
            progress.add({"progress": percent, "time": float(second)}, float(second))
        assert progress.seconds_left(2.0) is None

    @pytest.mark.parametrize("records", [[], [(50, 1.0)], [(50, 1.0), (50, 2.0)], [(10, 2.0), (20, 1.0)], [(1, "x")]])
    def test_without_anything_to_go_by_nothing_is_promised(self, records: list[tuple[Any, Any]]) -> None:
        progress = Progress(0.0)
        for percent, instant in records:
            progress.add({"progress": percent, "time": instant}, 1.0)
        assert progress.seconds_left(2.0) is None

    def test_one_that_gives_no_sign_of_life_shows(self) -> None:
        progress = Progress(0.0)
        progress.tell(INFO._replace(heartbeat=7.0), 0.0)
        progress.tell(INFO._replace(heartbeat=8.0), 10.0)
        assert "no sign" not in progress.line(39.0, 80)
        progress.tell(INFO._replace(heartbeat=8.0), 44.0)
        assert progress.line(45.0, 80).endswith("0:45, no sign of life for 0:35")
        progress.tell(INFO._replace(heartbeat=9.0), 46.0)
        assert "no sign" not in progress.line(46.0, 80)


def test_what_is_wide_takes_two_columns() -> None:
    assert cut("模型模型", 8) == "模型模型"
    assert cut("模型模型", 7) == "模型模…"
    assert cut("模型模型", 6) == "模型…"
    assert cut("text", 0) == ""
    assert table(("A", "B"), [("模", "x"), ("abc", "")]) == "A    B\n模   x\nabc"


def test_times_and_sizes_are_for_people() -> None:
    assert [duration(seconds) for seconds in (-1, 7.4, 754, 3723)] == ["0:00", "0:07", "12:34", "1:02:03"]
    assert [size(count) for count in (0, 512, 1536, 5 * 2**40)] == ["0 B", "512 B", "1.5 KiB", "5 TiB"]

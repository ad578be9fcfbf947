"""``aipod train`` against a real server, with real signals, on a pipe and on a terminal."""

from __future__ import annotations

import json
import re
import secrets
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_training import MODEL
from ports import free_port
from waiting import eventually

from aipod.cli.main import main
from aipod.rpc.client import AIClient, JobInfo, TrainingJob

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[str]"]
OnTerminal = Callable[..., "tuple[subprocess.Popen[str], Callable[[], str]]"]

RECORD = r"\d\d:\d\d:\d\d  +{progress}%  fitting  epoch {epoch}, accuracy {accuracy}\n"


@pytest.fixture
def flags(pupil: AIClient) -> list[str]:
    return ["-a", pupil.address, "-v", pupil.version]


@pytest.fixture
def gate(desk: Path) -> Path:
    """What a training waits for that is told to."""
    return desk / f"gate-{secrets.token_hex(4)}"


@pytest.fixture
def gated(gate: Path) -> list[str]:
    return ["--json", json.dumps({"gate": str(gate)})]


def latest(client: AIClient) -> JobInfo:
    return client.jobs(client.version)[-1]


def begun(client: AIClient) -> TrainingJob:
    """The job of the version, once its model has written a record."""
    eventually(lambda: client.jobs(client.version))
    job = client.job(latest(client).id)
    eventually(lambda: job.progress)
    return job


class Screen:
    """All that a terminal was sent, as text whose lines end as those of files do."""

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read
        self._sent = ""

    @property
    def text(self) -> str:
        return self._sent.replace("\r\n", "\n")

    def shows(self, pattern: str) -> bool:
        """Whether it does by now, after the next that it is sent."""
        self._sent += self._read()
        return re.search(pattern, self.text) is not None

    def to_the_end(self) -> str:
        while more := self._read():
            self._sent += more
        return self.text


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


def test_the_value_is_json_on_stdout_and_each_record_a_line_on_stderr(
    pupil: AIClient, flags: list[str], aipod: Run
) -> None:
    done = aipod("train", *flags, "--json", '{"epochs": 2, "名": "模型"}')
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"accuracy": 0.5, "epochs": 2, "stopped": False, "binary": None, "名": "模型"}
    job = re.escape(latest(pupil).id)
    assert re.fullmatch(
        rf"{job}: running\n"
        + RECORD.format(progress=50, epoch=1, accuracy=0)
        + RECORD.format(progress=100, epoch=2, accuracy=0.5)
        + rf"{job}: succeeded, revision 1, accuracy 0.5, epochs 2\n",
        done.stderr,
    ), done.stderr
    assert "\x1b" not in done.stderr
    assert pupil.predict() == 2


def test_arguments_come_as_those_of_predict_do(flags: list[str], aipod: Run, desk: Path) -> None:
    np.save(desk / "x.npy", np.arange(3))
    (desk / "bytes").write_bytes(b"\x00\xff")
    done = aipod("train", *flags, "--array", "x=x.npy", "--binary", "bytes")
    answer = json.loads(done.stdout)
    assert (answer["x"], answer["binary"]) == ([0, 1, 2], {"base64": "AP8="})


def test_a_training_that_fails_is_one_line_and_exit_code_1(pupil: AIClient, flags: list[str], aipod: Run) -> None:
    done = aipod("train", *flags, "--json", '{"fail": "by\\nnothing"}')
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("%  fitting  epoch 4, accuracy 0.75\naipod: ValueError: by nothing\n")
    assert latest(pupil).state == "failed"


def test_what_a_model_says_moves_no_cursor(flags: list[str], aipod: Run) -> None:
    done = aipod("train", *flags, "--json", json.dumps({"epochs": 1, "say": "\x1b[2J\r\nall\x07 gone"}))
    assert "epoch 1, accuracy 0  \N{REPLACEMENT CHARACTER}[2J all\N{REPLACEMENT CHARACTER} gone\n" in done.stderr
    assert "\x1b" not in done.stderr


def test_detached_it_prints_the_id_of_a_job_that_goes_on(
    pupil: AIClient, flags: list[str], aipod: Run, gated: list[str], gate: Path
) -> None:
    done = aipod("train", *flags, *gated, "--detach")
    job = pupil.job(done.stdout.strip())
    assert (done.returncode, done.stderr, done.stdout) == (0, "", f"{job.id}\n")
    assert job.state in ("queued", "running")
    gate.touch()
    assert job.result()["epochs"] == 4


def test_a_version_that_is_being_trained_is_refused_in_one_line_that_names_the_job(
    pupil: AIClient, flags: list[str], aipod: Run, gated: list[str], gate: Path
) -> None:
    job = aipod("train", *flags, *gated, "--detach").stdout.strip()
    done = aipod("train", *flags)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"aipod: version '\w+' is being trained by job '{re.escape(job)}'; [^\n]+\n", done.stderr)
    gate.touch()
    pupil.job(job).wait()


def test_the_same_request_id_is_the_same_job(
    pupil: AIClient, flags: list[str], aipod: Run, gated: list[str], gate: Path
) -> None:
    first = aipod("train", *flags, *gated, "--detach", "--request-id", "monday")
    gate.touch()
    second = aipod("train", *flags, *gated, "--request-id", "monday")
    assert json.loads(second.stdout)["epochs"] == 4
    assert [job.id for job in pupil.jobs(pupil.version)] == [first.stdout.strip()]


def test_sigint_detaches_and_says_how_to_follow_and_to_cancel(
    pupil: AIClient, flags: list[str], start: Start, aipod: Run, gated: list[str], gate: Path
) -> None:
    process = start("train", *flags, *gated)
    job = begun(pupil)
    assert process.stderr is not None
    shown = eventually(lambda: re.search("epoch 1", process.stderr.readline()))
    assert shown
    process.send_signal(signal.SIGINT)
    code, output, errors = ended(process)
    assert (code, output) == (130, "")
    [(follow, cancel)] = re.findall(
        r"^aipod: .* goes on; to follow it: (.*); to cancel it: (.*)$", errors, re.MULTILINE
    )
    assert job.state == "running"
    assert (follow, cancel) == (
        f"aipod log -f --job {job.id} -a {pupil.address}",
        f"aipod cancel {job.id} -a {pupil.address}",
    )
    assert aipod(*cancel.split()[1:]).returncode == 0
    assert job.wait().state == "cancelled"
    assert "epoch 1" in aipod(*follow.split()[1:]).stdout


def test_sigint_cancels_if_that_is_wanted(pupil: AIClient, flags: list[str], start: Start, gated: list[str]) -> None:
    process = start("train", *flags, *gated, "--cancel-on-interrupt")
    job = begun(pupil)
    process.send_signal(signal.SIGINT)
    code, output, errors = ended(process)
    assert (code, output) == (130, "")
    assert f"aipod: cancelling {job.id}; Ctrl-C again leaves it to that\n{job.id}: cancelled" in errors
    assert job.state == "cancelled"


def test_a_second_sigint_does_not_wait_for_the_end(pupil: AIClient, flags: list[str], start: Start, gate: Path) -> None:
    process = start("train", *flags, "--json", json.dumps({"gate": str(gate), "deaf": True}), "--cancel-on-interrupt")
    job = begun(pupil)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    eventually(lambda: process.stderr.readline().startswith("aipod: cancelling"))
    process.send_signal(signal.SIGINT)
    code, output, errors = ended(process)
    assert (code, output, errors.strip()) == (130, "", "")
    assert job.state == "cancelling"
    gate.touch()
    assert job.wait().state == "cancelled"


def test_it_follows_on_when_a_server_that_was_killed_with_sigkill_is_back(
    desk: Path, start: Start, gated: list[str]
) -> None:
    (desk / "trainee.py").write_text(MODEL)
    serve = ("serve", "trainee:Trainee", "--host", "127.0.0.1", "--port", str(free_port()))
    server = start(*serve)
    assert server.stdout is not None
    address = server.stdout.readline().split()[-1]
    with AIClient(address, version="v1") as client:
        process = start("train", "-a", address, "-v", "v1", *gated)
        job = begun(client)
        server.kill()
        assert process.stderr is not None
        eventually(lambda: "is out of sight; it is followed on" in process.stderr.readline())
        back = start(*serve)
        code, output, errors = ended(process)
        assert (code, output) == (1, "")
        why = "the process that ran it ended"
        assert re.search(rf"^aipod: training job '{re.escape(job.id)}' [^\n]* {why}\n\Z", errors, re.MULTILINE), errors
        assert job.state == "interrupted"
    back.terminate()
    assert back.wait(20) == 0


@pytest.mark.parametrize(("options", "state"), [((), "running"), (("--cancel-on-interrupt",), "cancelled")])
def test_sigint_before_the_server_has_answered_finds_the_job_again(
    options: tuple[str, ...],
    state: str,
    pupil: AIClient,
    flags: list[str],
    gated: list[str],
    gate: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start_training = AIClient.start_training

    def interrupted(client: AIClient, /, **kwargs: Any) -> TrainingJob:
        job = start_training(client, **kwargs)
        eventually(lambda: job.state == "running")
        raise KeyboardInterrupt

    monkeypatch.setattr(AIClient, "start_training", interrupted)
    with pytest.raises(SystemExit) as end:
        main(["train", *flags, *gated, *options])
    assert end.value.code == 130
    job = pupil.job(latest(pupil).id)
    assert (job.state, job.id in capsys.readouterr().err) == (state, True)
    gate.touch()
    job.wait()


def test_sigint_before_the_server_was_asked_says_so(
    pupil: AIClient, flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(client: AIClient, /, **kwargs: Any) -> TrainingJob:
        raise KeyboardInterrupt

    monkeypatch.setattr(AIClient, "start_training", interrupted)
    with pytest.raises(SystemExit) as end:
        main(["train", *flags])
    assert (end.value.code, capsys.readouterr().err) == (130, "aipod: interrupted before the training was there\n")
    assert pupil.jobs(pupil.version) == ()


def test_cancelled_by_another_it_is_one_line_and_exit_code_1(
    pupil: AIClient, flags: list[str], start: Start, gated: list[str]
) -> None:
    process = start("train", *flags, *gated)
    job = begun(pupil)
    job.cancel()
    code, output, errors = ended(process)
    assert (code, output) == (1, "")
    assert re.search(rf"^aipod: training job '{re.escape(job.id)}' [^\n]+ was cancelled[^\n]*\Z", errors.strip(), re.M)


def test_on_a_terminal_there_is_a_bar_that_goes_on(
    flags: list[str], on_terminal: OnTerminal, gated: list[str], gate: Path
) -> None:
    process, read = on_terminal("train", *flags, *gated, columns=60)
    screen = Screen(read)
    # Nothing happens, and its time goes on.
    times = r"\[#{6} {18}\]  25%  (\d:\d\d)  fitting  epoch 1"
    eventually(lambda: screen.shows(times) and len(set(re.findall(times, screen.text))) > 1)
    gate.touch()
    before, *drawn, last = screen.to_the_end().split("\r\x1b[K")
    assert before == ""
    assert re.fullmatch(r"\[ {24}\]       (starting|queued)  \d:\d\d", drawn[0]), drawn[0]
    # As much of it as there is room for.
    assert any(re.fullmatch(r"\[#{6} {18}\]  25%  \d:\d\d  fitting  epoch 1, a…", line) for line in drawn)
    assert max(map(len, drawn)) == 59
    assert re.match(r"\[#{24}\] 100%  succeeded  \d:\d\d  fitting [^\n]*…\n[^\n]+: succeeded, revision 1, .*\n\Z", last)
    assert (process.wait(20), json.loads(process.communicate()[0])["epochs"]) == (0, 4)


def test_sigint_on_a_terminal_leaves_the_bar_and_begins_a_new_line(
    pupil: AIClient, flags: list[str], on_terminal: OnTerminal, gated: list[str], gate: Path
) -> None:
    process, read = on_terminal("train", *flags, *gated)
    screen = Screen(read)
    eventually(lambda: screen.shows("epoch 1"))
    process.send_signal(signal.SIGINT)
    assert re.search(r"\x1b\[K\[######[^\n]+\naipod: the training goes on; to follow it: ", screen.to_the_end())
    assert process.wait(20) == 130
    gate.touch()
    begun(pupil).wait()


def test_a_terminal_that_cannot_take_back_what_it_shows_gets_lines(flags: list[str], on_terminal: OnTerminal) -> None:
    process, read = on_terminal("train", *flags, "--no-bar")
    text = Screen(read).to_the_end()
    assert process.wait(20) == 0
    assert re.search(RECORD.format(progress=25, epoch=1, accuracy=0), text)
    assert "\x1b" not in text


def test_no_server_is_one_line_and_exit_code_1(start: Start) -> None:
    process = start("train", "-a", "127.0.0.1:1")
    code, output, errors = ended(process)
    assert (code, output) == (1, "")
    assert re.fullmatch(r"aipod: [^\n]*127\.0\.0\.1:1[^\n]*\n", errors), errors


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--json", "{"), "this is no JSON ("),
        (("--array", "x"), "'x' does not read NAME=FILE.npy"),
        (("--binary", "no"), "No such file or directory"),
        (("-a", "nowhere"), "--address is 'nowhere'; it must be host:port"),
        (("v1",), "unexpected extra argument"),
    ],
)
def test_arguments_that_make_no_sense_are_one_line_and_exit_code_2(
    arguments: tuple[str, ...], sentence: str, refused: Callable[..., str]
) -> None:
    assert sentence in refused("train", *arguments)


def test_a_version_that_is_none_is_one_line_and_exit_code_1(school: str, aipod: Run) -> None:
    done = aipod("train", "-a", school, "-v", "../x")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"aipod: '\.\./x' is no version name: [^\n]+\n", done.stderr)

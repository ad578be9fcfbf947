"""Trainings and the end of processes: of the training's own, of the server's, asked for or not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from trained import Deaf, Placed, Resumable, Stubborn, Trained
from waiting import BOUND, eventually

import aipod
from aipod.codec import encode_call
from aipod.engine import LocalCall
from aipod.errors import TrainingFailed, Unavailable
from aipod.model import disk, manifest
from aipod.model.store import Store

_PROGRAM = Path(__file__).with_name("training_server.py")
_ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(str(path) for path in (Path(aipod.__file__).parents[1], Path(__file__).parent)),
}

Serve = Callable[..., tuple["subprocess.Popen[str]", str]]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a process with an engine; gives it, and the id of the job that it began."""
    started: list[subprocess.Popen[str]] = []

    def start(model: str, version: str = "", **arguments: Any) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, str(_PROGRAM), str(tmp_path / "data"), model, version, json.dumps(arguments)]
        process = subprocess.Popen(command, env=_ENVIRONMENT, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        with process:
            process.kill()


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


def killed(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    assert process.wait(BOUND) == -signal.SIGKILL


def trainer(gate: Path) -> int:
    """The process that waits at a gate."""
    return int(eventually(lambda: (path := Path(f"{gate}.pid")).exists() and path.read_text()))


def left(data: Path) -> list[str]:
    return [path.name for path in (data / "staging").iterdir()]


@pytest.mark.parametrize(("fails", "end"), [("signal 9", "SIGKILL"), ("signal 11", "SIGSEGV"), ("signal 6", "SIGABRT")])
def test_a_training_that_dies_is_a_failed_job_and_nothing_else(
    engine_of: Any, fails: str, end: str, tmp_path: Path
) -> None:
    engine = engine_of(Trained)
    engine.train("v", value="old")
    with pytest.raises(
        TrainingFailed, match=rf"failed: its process is gone: ended by {end}; its last record"
    ) as failed:
        engine.train("v", value="new", records=2, fails=fails)
    assert "progress 1, message record 1, stage work" in str(failed.value)
    job = engine.trainings.jobs("v")[-1]
    assert (job.state, job.reason) == ("failed", str(failed.value))
    assert engine.predict("v") == {"value": "old"}
    assert left(tmp_path / "data") == []
    assert engine.train("v", value="newer")["value"] == "newer"


def test_a_training_has_a_process_of_its_own_that_stands_back(engine_of: Any) -> None:
    where = engine_of(Placed, train_nice=3).train("v")
    assert where["pid"] != os.getpid()
    assert not Path(f"/proc/{where['pid']}").exists()
    assert where["nice"] == min(19, os.nice(0) + 3)
    assert "/staging/v@" in where["directory"]
    assert engine_of(Placed, train_isolation="thread").train("v")["pid"] == os.getpid()


def test_an_exit_is_an_exception_as_any_other(engine_of: Any) -> None:
    engine = engine_of(Trained)
    with pytest.raises(Exception, match="SystemExit: 3"):
        engine.train("v", fails="exit")
    assert engine.train("v")["value"] == "trained"


@pytest.mark.parametrize("model", [Stubborn, Deaf])
def test_who_takes_no_notice_of_a_cancellation_is_killed(
    engine_of: Any, model: type[Trained], gate: Path, tmp_path: Path
) -> None:
    engine = engine_of(model, train_grace=0.4)
    job = engine.trainings.start("v", {"gate": str(gate)})
    # By now it hears, or does not, what it is asked.
    eventually(lambda: Path(f"{gate}.waits").exists())
    engine.trainings.cancel(job.id)
    assert engine.trainings.wait(job.id, BOUND).state == "cancelled"
    assert left(tmp_path / "data") == []


def test_what_a_training_prints_is_kept_up_to_a_size(engine_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(Trained)
    engine.train("v", prints="模型 says\nhello")
    assert "模型 says\nhello\n" in engine.trainings.output(engine.trainings.jobs("v")[-1].id)
    engine.train("v", prints="x" * (17 << 20))
    output = engine.trainings.output(engine.trainings.jobs("v")[-1].id)
    assert len(output) < (16 << 20) + 200
    assert output.rstrip().endswith("(what was printed after this was dropped: 16777216 bytes are kept)")


def test_sigkill_of_the_server_ends_the_training_and_the_next_server_says_so(
    serve: Serve, engine_of: Any, gate: Path, tmp_path: Path
) -> None:
    engine_of(Trained).train("v", value="old")
    process, job_id = serve("Trained", "v", value="new", gate=str(gate))
    pid = trainer(gate)
    killed(process)
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    engine = engine_of(Trained)
    job = engine.trainings.get(job_id)
    assert (job.state, job.reason, job.resumable) == ("interrupted", "the process that ran it ended", False)
    assert left(tmp_path / "data") == []
    with pytest.raises(TrainingFailed, match="the process that ran it ended"):
        engine.trainings.result(job_id)
    assert engine.predict("v") == {"value": "old"}
    assert engine.train("v", value="newer")["value"] == "newer"


def test_another_server_on_the_data_path_sees_that_the_first_one_is_gone(
    serve: Serve, engine_of: Any, gate: Path
) -> None:
    engine = engine_of(Trained)
    process, job_id = serve("Trained", "v", gate=str(gate))
    trainer(gate)
    assert engine.trainings.get(job_id).state == "running"
    killed(process)
    assert engine.trainings.wait(job_id, BOUND).state == "interrupted"
    assert engine.train("v")["value"] == "trained"


def test_after_sigkill_a_resumable_training_goes_on_under_its_id(
    serve: Serve, engine_of: Any, gate: Path, tmp_path: Path
) -> None:
    process, job_id = serve("Resumable", "v", until=4, gate=str(gate), gate_at=2)
    trainer(gate)
    killed(process)
    assert left(tmp_path / "data") == [job_id]
    # A look at the data path is no reason to throw it away.
    Store(tmp_path / "data").open()
    assert left(tmp_path / "data") == [job_id]
    gate.touch()
    engine = engine_of(Resumable)
    assert engine.trainings.wait(job_id, BOUND).state == "succeeded"
    result = engine.trainings.result(job_id)
    assert (result["begin"], result["until"]) == (2, 4)
    assert result["resumed"].endswith(f"staging/{job_id}")
    records = engine.trainings.records(job_id)
    assert [(record["seq"], record["progress"]) for record in records] == [(1, 0), (2, 1), (3, 2), (4, 3)]
    assert left(tmp_path / "data") == []


def test_a_server_that_is_asked_to_end_asks_its_training_and_the_next_one_goes_on(
    engine_of: Any, gate: Path, background: Any
) -> None:
    engine = engine_of(Resumable)
    calling = background(engine.train, "v", until=3, gate=str(gate))
    trainer(gate)
    waiting = background(engine.train, "w", until=1)
    eventually(lambda: engine.trainings.jobs("w"))
    job, queued = engine.trainings.jobs("v")[0], engine.trainings.jobs("w")[0]
    assert engine.close(BOUND)
    for call in (calling, waiting):
        with pytest.raises(Unavailable, match="it goes on when a server is back"):
            call.result(BOUND)
    store = Store(engine.data_root)
    assert (store.jobs.get(job.id).state, store.jobs.get(job.id).resumable) == ("interrupted", True)
    assert store.jobs.get(queued.id).state == "queued"
    gate.touch()
    engine = engine_of(Resumable)
    assert engine.trainings.wait(queued.id, BOUND).state == "succeeded"
    assert engine.trainings.get(job.id).state == "succeeded"
    assert engine.trainings.result(job.id)["begin"] == 1


def test_what_was_queued_when_the_server_was_killed_is_run_by_the_next_one(
    serve: Serve, engine_of: Any, gate: Path
) -> None:
    process, _ = serve("Trained", "v", gate=str(gate))
    trainer(gate)
    other = engine_of(Trained, train_max_jobs=1)
    blocked = other.trainings.start("x", {"gate": str(gate)})
    queued = other.trainings.start("w", {"value": "later"})
    killed(process)
    other.close(0.5)
    gate.touch()
    engine = engine_of(Trained)
    assert engine.trainings.wait(queued.id, BOUND).state == "succeeded"
    assert engine.predict("w") == {"value": "later"}
    assert engine.trainings.get(blocked.id).state == "interrupted"


def test_a_server_that_is_there_takes_over_what_another_one_left_queued(
    serve: Serve, engine_of: Any, gate: Path
) -> None:
    engine = engine_of(Trained)
    process, _ = serve("Trained", "v", gate=str(gate))
    trainer(gate)
    gone = Store(engine.data_root)
    with gone.writer("w", "train"):
        left_queued = gone.jobs.start(
            gone.jobs.new_id("w"), state="queued", call=bytes(encode_call("w", {"value": "mine"})), request_id="mine"
        )
        left_queued.let_go()
    killed(process)
    assert engine.trainings.start("w", {"value": "again"}, "mine").id == left_queued.id
    assert engine.trainings.wait(left_queued.id, BOUND).state == "succeeded"
    assert engine.predict("w") == {"value": "mine"}


def test_a_training_that_gets_nowhere_is_given_up_after_three_attempts(engine_of: Any, gate: Path) -> None:
    job = None
    for attempt in range(1, 4):
        Path(f"{gate}.pid").unlink(missing_ok=True)
        engine = engine_of(Resumable)
        job = job or engine.trainings.start("v", {"gate": str(gate), "gate_at": 0})
        trainer(gate)
        assert engine.trainings.get(job.id).attempts == attempt
        assert engine.close(BOUND)
    engine = engine_of(Resumable)
    assert job is not None
    over = engine.trainings.wait(job.id, BOUND)
    assert over.state == "failed"
    assert "interrupted 3 times in a row without a new record" in over.reason
    assert left(engine.data_root) == []


def test_an_interrupted_job_that_waits_can_be_cancelled(serve: Serve, engine_of: Any, gate: Path) -> None:
    process, job_id = serve("Resumable", "v", gate=str(gate))
    trainer(gate)
    killed(process)
    engine = engine_of(Resumable, train_max_jobs=1)
    engine.trainings.cancel(job_id)
    assert engine.trainings.wait(job_id, BOUND).state == "cancelled"
    assert left(engine.data_root) == []
    assert engine.train("v", until=1)["begin"] == 0


def test_a_job_of_another_server_is_followed_and_not_ended(serve: Serve, engine_of: Any, gate: Path) -> None:
    process, job_id = serve("Trained", "v", gate=str(gate), records=3)
    trainer(gate)
    engine = engine_of(Trained)
    for order in (engine.trainings.cancel, engine.trainings.stop):
        with pytest.raises(Exception, match="another server on the same data path holds training job"):
            order(job_id)
    assert [record["seq"] for record in engine.trainings.records(job_id)] == [1, 2, 3]
    assert engine.trainings.heartbeat(job_id) > 0
    gate.touch()
    assert engine.trainings.wait(job_id, BOUND).state == "succeeded"
    assert process.wait(BOUND) == 0


def test_a_revision_that_was_published_is_a_success_whatever_was_written_down(
    engine_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(Trained)
    job_id = engine.trainings.start("v", {"value": "new"}).id
    engine.trainings.wait(job_id, BOUND)
    path = engine.data_root / "jobs" / f"{job_id}.json"
    assert engine.close(BOUND)
    # As a kill between the two leaves it.
    path.write_text(json.dumps({**json.loads(path.read_text()), "state": "running", "ended": "", "revision": None}))
    engine = engine_of(Trained)
    job = engine.trainings.get(job_id)
    assert (job.state, job.revision, job.metrics) == ("succeeded", 1, {"loss": 0.5, "epochs": 3})
    assert engine.trainings.result(job_id)["value"] == "new"


def test_a_disk_that_takes_nothing_fails_the_job_and_it_does_not_begin_anew(
    engine_of: Any, monkeypatch: pytest.MonkeyPatch, gate: Path
) -> None:
    engine = engine_of(Trained)
    job = engine.trainings.start("v", {"gate": str(gate)})
    trainer(gate)

    def full(step: str) -> None:
        if step.startswith("create"):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk, "failpoint", full)
    call = LocalCall("v", "train", {})
    engine.submit(call)
    with pytest.raises(Exception, match="is being trained by job"):
        call.result()
    gate.touch()
    eventually(lambda: not engine.trainings._held)
    assert engine.trainings.get(job.id).state == "interrupted"
    monkeypatch.undo()
    assert engine.close(BOUND)
    engine = engine_of(Trained)
    assert engine.trainings.get(job.id).state == "interrupted"
    assert engine.admin.versions() == []
    assert manifest.read(engine.data_root) is None

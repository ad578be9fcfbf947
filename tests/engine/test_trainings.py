"""Trainings are jobs: one after the other, followed, ended, remembered; each on a thread and in a process."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import pytest
from trained import Resumable, Stubborn, Trained, Unloadable
from waiting import BOUND, eventually

from aipod.engine import Engine, LocalCall
from aipod.errors import (
    InvalidArgument,
    JobNotFound,
    LoadError,
    ModelError,
    NotSupportedError,
    Overloaded,
    StorageFull,
    TrainingCancelled,
    TrainingFailed,
    TrainingInProgress,
    Unavailable,
)
from aipod.model import AIModelBase


@pytest.fixture(params=["thread", "process"])
def engine_with(request: pytest.FixtureRequest, engine_of: Any) -> Any:
    return lambda model, **settings: engine_of(
        model, **{"train_isolation": request.param, "train_grace": 2, **settings}
    )


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


def state(engine: Any, job_id: str) -> str:
    return str(engine.trainings.get(job_id).state)


def running(engine: Any, job_id: str) -> bool:
    return bool(engine.trainings.get(job_id).state == "running")


def test_a_training_is_a_job_from_its_start_to_its_end(engine_with: Any, gate: Path) -> None:
    engine = engine_with(Trained)
    engine.initialize("v", layers=2)
    job = engine.trainings.start("v", {"value": "neu", "gate": str(gate), "records": 2}, "mine")
    assert (job.version, job.kind, job.state, job.request_id) == ("v", "train", "queued", "mine")
    eventually(lambda: len(engine.trainings.records(job.id)) == 2)
    now = engine.trainings.get(job.id)
    assert (now.state, now.parent, now.ended, now.attempts) == ("running", 1, "", 1)
    assert job.created <= now.started
    assert engine.predict("v") == {"value": None}
    gate.touch()
    over = engine.trainings.wait(job.id, BOUND)
    assert (over.state, over.revision, over.parent, over.error) == ("succeeded", 2, 1, None)
    assert over.parameters == {"value": "neu", "gate": str(gate), "records": 2}
    assert over.metrics == {"loss": 0.5, "epochs": 3}
    assert over.started <= over.ended
    assert engine.trainings.result(job.id)["value"] == "neu"
    assert engine.predict("v") == {"value": "neu"}
    (live,) = (one for one in engine.admin.versions()[0].revisions if one.live)
    assert live.manifest["job"] == job.id
    assert live.manifest["metrics"] == {"loss": 0.5, "epochs": 3}
    assert live.manifest["parameters"]["value"] == "neu"


def test_nothing_of_a_job_that_is_over_is_left_but_what_is_asked_for(engine_with: Any, tmp_path: Path) -> None:
    engine = engine_with(Trained)
    engine.train("v")
    with pytest.raises(ModelError):
        engine.train("v", fails="model")
    kept = sorted(path.suffix for path in (tmp_path / "data" / "jobs").iterdir() if path.suffix != ".out")
    assert kept == [".json", ".json", ".jsonl", ".jsonl", ".result"]
    assert not any((tmp_path / "data" / "staging").iterdir())


def test_records_are_numbered_and_name_their_job(engine_with: Any) -> None:
    engine = engine_with(Trained)
    job = engine.trainings.start("v", {"records": 5})
    engine.trainings.wait(job.id, BOUND)
    records = engine.trainings.records(job.id)
    assert [record["seq"] for record in records] == [1, 2, 3, 4, 5]
    assert {record["job_id"] for record in records} == {job.id}
    assert all(abs(record["time"] - record["timestamp"]) < 2 for record in records)
    assert [record["seq"] for record in engine.trainings.records(job.id, after=3)] == [4, 5]
    assert [record["seq"] for record in engine.trainings.records(job.id, after=1, limit=2)] == [2, 3]
    assert engine.log("v") == records


def test_a_second_training_of_a_version_names_the_first_queued_or_running(engine_with: Any, gate: Path) -> None:
    engine = engine_with(Trained)
    first = engine.trainings.start("v", {"gate": str(gate)})
    queued = engine.trainings.start("w", {})
    for version, job in (("v", first), ("w", queued)):
        with pytest.raises(TrainingInProgress) as refused:
            engine.trainings.start(version, {})
        assert refused.value.job == job.id
        with pytest.raises(TrainingInProgress):
            engine.initialize(version)
    gate.touch()
    assert engine.trainings.wait(queued.id, BOUND).state == "succeeded"


def test_the_same_request_is_the_same_job_also_when_it_is_over(engine_with: Any, gate: Path) -> None:
    engine = engine_with(Trained)
    jobs = [engine.trainings.start("v", {"gate": str(gate)}, "request") for _ in range(3)]
    call = LocalCall("v", "train", {})
    call.request_id = "request"
    engine.submit(call)
    gate.touch()
    assert call.result()["value"] == "trained"
    assert len({job.id for job in jobs}) == 1
    assert engine.trainings.start("v", {}, "request").state == "succeeded"
    late = LocalCall("v", "train", {})
    late.request_id = "request"
    engine.submit(late)
    assert late.result()["value"] == "trained"
    assert len(engine.trainings.jobs("v")) == 1


def test_a_detached_call_is_answered_with_its_job(engine_with: Any, gate: Path) -> None:
    engine = engine_with(Trained)
    call = LocalCall("v", "train", {"gate": str(gate)})
    call.detach, call.request_id = True, "mine"
    engine.submit(call)
    answer = call.result()
    assert (answer["state"], answer["request_id"]) == ("queued", "mine")
    gate.touch()
    assert engine.trainings.wait(answer["id"], BOUND).state == "succeeded"


def test_jobs_run_one_after_the_other_in_their_order(engine_with: Any, gate: Path) -> None:
    engine = engine_with(Trained)
    jobs = [engine.trainings.start(f"v{number}", {"gate": str(gate)}) for number in (3, 1, 2)]
    eventually(lambda: running(engine, jobs[0].id))
    assert [state(engine, job.id) for job in jobs] == ["running", "queued", "queued"]
    gate.touch()
    over = [engine.trainings.wait(job.id, BOUND) for job in jobs]
    assert [job.state for job in over] == ["succeeded"] * 3
    assert over == sorted(over, key=lambda job: job.started)
    assert [job.id for job in engine.trainings.jobs()] == [job.id for job in jobs]


def test_as_many_run_as_may_and_no_more_wait_than_may(engine_with: Any, gate: Path) -> None:
    engine = engine_with(Trained, train_max_jobs=2, train_max_queued=1)
    jobs = [engine.trainings.start(f"v{number}", {"gate": str(gate)}) for number in range(3)]
    eventually(lambda: running(engine, jobs[0].id) and running(engine, jobs[1].id))
    with pytest.raises(Overloaded, match="1 trainings wait for their turn already"):
        engine.trainings.start("one-more", {})
    assert state(engine, jobs[2].id) == "queued"
    assert engine.trainings.jobs("one-more") == []
    gate.touch()
    assert engine.trainings.wait(jobs[2].id, BOUND).state == "succeeded"


def test_a_queued_job_is_cancelled_at_once_and_its_version_is_free(engine_with: Any, gate: Path) -> None:
    engine = engine_with(Trained)
    first = engine.trainings.start("v", {"gate": str(gate)})
    queued = LocalCall("w", "train", {})
    engine.submit(queued)
    (job,) = eventually(lambda: engine.trainings.jobs("w"))
    assert engine.trainings.cancel(job.id).state == "cancelled"
    with pytest.raises(TrainingCancelled, match="it had not begun"):
        queued.result()
    again = engine.trainings.start("w", {})
    gate.touch()
    assert engine.trainings.wait(again.id, BOUND).state == "succeeded"
    assert engine.trainings.cancel(first.id).state == "succeeded"


def test_a_model_that_looks_is_cancelled_and_what_it_made_is_gone(engine_with: Any, gate: Path, tmp_path: Path) -> None:
    engine = engine_with(Trained, train_grace=BOUND)
    engine.train("v", value="old")
    job = engine.trainings.start("v", {"value": "new", "gate": str(gate)})
    eventually(lambda: running(engine, job.id))
    assert engine.trainings.cancel(job.id).state in ("cancelling", "cancelled")
    over = engine.trainings.wait(job.id, BOUND)
    assert (over.state, over.revision) == ("cancelled", None)
    with pytest.raises(TrainingCancelled):
        engine.trainings.result(job.id)
    assert engine.predict("v") == {"value": "old"}
    assert not any((tmp_path / "data" / "staging").iterdir())
    assert engine.train("v", value="newer")["value"] == "newer"


def test_a_record_of_a_cancelled_training_ends_it(engine_with: Any, gate: Path) -> None:
    engine = engine_with(Trained, train_grace=BOUND)
    # It is asked while it waits; what ends it is the record that it writes then.
    job = engine.trainings.start("v", {"gate": str(gate), "records": 1})
    eventually(lambda: engine.trainings.records(job.id))
    engine.trainings.cancel(job.id)
    assert engine.trainings.wait(job.id, BOUND).state == "cancelled"


def test_a_training_that_is_stopped_publishes_what_it_has(engine_with: Any, gate: Path) -> None:
    engine = engine_with(Trained)
    job = engine.trainings.start("v", {"value": "half", "gate": str(gate)})
    waits = engine.trainings.start("w", {})
    with pytest.raises(InvalidArgument, match="has not begun; cancel it instead"):
        engine.trainings.stop(waits.id)
    engine.trainings.stop(job.id)
    assert engine.trainings.wait(job.id, BOUND).state == "succeeded"
    assert engine.predict("v") == {"value": "half"}


@pytest.mark.parametrize(
    ("fails", "error", "sentence"),
    [("model", ModelError, "RuntimeError: it diverged"), ("caller", InvalidArgument, "value is no good")],
)
def test_what_the_model_raises_is_what_the_job_failed_with(
    engine_with: Any, fails: str, error: type[Exception], sentence: str
) -> None:
    engine = engine_with(Trained)
    engine.train("v", value="old")
    with pytest.raises(error, match=sentence):
        engine.train("v", value="new", fails=fails)
    job = engine.trainings.jobs("v")[-1]
    assert job.state == "failed"
    assert sentence in job.reason
    with pytest.raises(error, match=sentence):
        engine.trainings.result(job.id)
    assert engine.predict("v") == {"value": "old"}


def test_what_cannot_travel_is_refused_before_and_after(engine_with: Any) -> None:
    engine = engine_with(Trained)
    with pytest.raises(InvalidArgument, match="type object is not supported"):
        engine.train("v", returns=object())
    assert engine.trainings.jobs() == []

    class Strange(Trained):
        def train(self) -> object:  # type: ignore[override]
            return {1, 2}

    strange = engine_with(Strange, train_isolation="thread")
    with pytest.raises(ModelError, match=r"train\(\) returned what cannot travel: result: type set is not supported"):
        strange.train("v")
    assert strange.admin.versions() == []


def test_a_revision_that_does_not_load_is_rolled_back_and_the_job_failed(engine_with: Any) -> None:
    engine = engine_with(Unloadable, swap="load_first")
    engine.train("v", value="good")
    engine.predict("v")
    with pytest.raises(LoadError, match="a bad value"):
        engine.train("v", value="bad")
    job = engine.trainings.jobs("v")[-1]
    assert (job.state, job.revision) == ("failed", 2)
    assert engine.admin.versions()[0].revision == 1
    assert engine.predict("v") == {"value": "good"}


def test_too_long_a_training_is_ended(engine_with: Any, gate: Path) -> None:
    engine = engine_with(Trained, train_timeout=0.2)
    with pytest.raises(TrainingFailed, match=r"it ran longer than 0\.2 seconds"):
        engine.train("v", gate=str(gate))
    assert engine.trainings.jobs("v")[-1].state == "failed"


def test_a_class_without_train_and_an_unknown_job_are_refused(engine_with: Any) -> None:
    engine = engine_with(type("Bare", (AIModelBase,), {}))
    with pytest.raises(NotSupportedError, match=r"Bare has no train\(\)"):
        engine.trainings.start("v", {})
    for ask in (engine.trainings.get, engine.trainings.cancel, engine.trainings.stop, engine.trainings.records):
        with pytest.raises(JobNotFound):
            ask("v@20240101T000000000000Z-abcd")
    assert engine.trainings.jobs() == []


def test_an_alias_is_not_trained(engine_with: Any) -> None:
    engine = engine_with(Trained)
    engine.train("v")
    engine.admin.set_alias("live", "v")
    with pytest.raises(InvalidArgument, match="'live' is an alias of version 'v'"):
        engine.trainings.start("live", {})
    assert [job.version for job in engine.trainings.jobs("live")] == ["v"]


def test_a_full_disk_is_said_before_anything_is_copied(
    engine_with: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine = engine_with(Trained)
    engine.train("v", value="x" * 1000)
    usage = type("Usage", (), {"free": 400})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(StorageFull, match=r"at least \d{4} more bytes are needed"):
        engine.train("v")
    assert engine.trainings.jobs("v")[-1].state == "failed"
    assert not any((tmp_path / "data" / "staging").iterdir())


def test_who_follows_hears_of_records_and_of_the_end(engine_with: Any, gate: Path) -> None:
    engine = engine_with(Trained)
    job = engine.trainings.start("v", {"gate": str(gate), "records": 1})
    told = threading.Event()
    end = engine.trainings.watch(job.id, told.set)
    eventually(lambda: told.is_set() and engine.trainings.records(job.id))
    assert engine.trainings.heartbeat(job.id) > 0
    gate.touch()
    engine.trainings.wait(job.id, BOUND)
    assert told.wait(BOUND)
    end()
    end()
    assert engine.trainings.wait(job.id, 0).state == "succeeded"


def test_an_exclusive_training_has_the_machine_to_itself(engine_with: Any, gate: Path) -> None:
    engine = engine_with(Trained, train_exclusive=True, model_pool_size=2)
    engine.train("v", value="old")
    engine.predict("v")
    engine.predict("w")
    job = engine.trainings.start("v", {"value": "new", "gate": str(gate)})
    eventually(lambda: running(engine, job.id))
    with pytest.raises(Unavailable, match=f"while training job '{job.id}' has the machine to itself"):
        engine.predict("v")
    assert engine.predict("w") == {"value": None}
    assert [one.version for one in engine._pool.residents()] == ["w"]
    gate.touch()
    engine.trainings.wait(job.id, BOUND)
    assert eventually(lambda: engine.predict("v")) == {"value": "new"}


def test_a_result_may_be_an_array(engine_with: Any) -> None:
    numpy = pytest.importorskip("numpy")
    engine = engine_with(Trained)
    job = engine.trainings.start("v", {"returns": numpy.arange(5)})
    engine.trainings.wait(job.id, BOUND)
    numpy.testing.assert_array_equal(engine.trainings.result(job.id), numpy.arange(5))


def test_what_is_asked_of_a_stubborn_thread_waits_for_it(engine_of: Any, gate: Path) -> None:
    engine = engine_of(Stubborn, train_isolation="thread", train_grace=0.0)
    job = engine.trainings.start("v", {"gate": str(gate)})
    eventually(lambda: running(engine, job.id))
    assert engine.trainings.cancel(job.id).state == "cancelling"
    assert engine.trainings.cancel(job.id).state == "cancelling"
    gate.touch()
    assert engine.trainings.wait(job.id, BOUND).state == "cancelled"


def test_a_resumable_class_says_so_in_its_jobs(engine_with: Any, gate: Path) -> None:
    engine = engine_with(Resumable)
    job = engine.trainings.start("v", {"gate": str(gate)})
    assert job.resumable
    gate.touch()
    assert engine.trainings.wait(job.id, BOUND).resumable is False


def test_whoever_sees_the_end_of_a_job_may_start_the_next_one_at_once(engine_of: Any) -> None:
    engine = engine_of(Trained, train_isolation="thread")
    for number in range(30):
        job = engine.trainings.start("v", {"value": str(number)})
        while not engine.trainings.get(job.id).is_over:
            pass
        assert state(engine, job.id) == "succeeded"


def test_no_train_is_left_without_an_answer_when_an_engine_closes_as_it_comes(tmp_path: Path) -> None:
    dice = random.Random(7)
    for number in range(40):
        engine = Engine(Trained, data_path=tmp_path / str(number), train_isolation="thread")
        engine.open()
        calls = [LocalCall(f"v{version}", "train", {"value": "x"}) for version in range(3)]
        for call in calls:
            engine.submit(call)
        for _ in range(dice.randrange(100_000)):
            pass
        engine.close(BOUND)
        eventually(lambda calls=calls: all(call.answered for call in calls))

"""What is written down of training jobs."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
from store_world import litter, publish

from aipod.errors import JobNotFound, StorageFull
from aipod.model import disk
from aipod.model.store import Store
from aipod.trainlog import TrainingLog


def test_a_job_is_written_down_from_its_start_to_its_end(store: Store) -> None:
    job_id = store.jobs.new_id("v1")
    running = store.jobs.start(job_id)
    job = store.jobs.get(job_id)
    assert (job.version, job.kind, job.state, job.ended, job.revision) == ("v1", "train", "running", "", None)
    datetime.fromisoformat(job.started)
    TrainingLog(running.log_path).append(100)
    assert TrainingLog(store.log_path("v1")).read_all()[0]["progress"] == 100
    assert running.finish("succeeded", revision=4) == store.jobs.get(job_id) == store.jobs.latest("v1")
    assert (store.jobs.get(job_id).state, store.jobs.get(job_id).revision) == ("succeeded", 4)


def test_ids_sort_by_time_and_name_their_version_even_if_the_clock_was_set_back(store: Store) -> None:
    later = "v1@29990101T000000000000Z-abcd"
    store.jobs.start(later).finish("failed", "no data")
    assert later < store.jobs.new_id("v1")
    assert store.jobs.new_id("v1").startswith("v1@29990101T000000000001Z-")
    assert store.jobs.new_id("v10") < "v10@2999"


@pytest.mark.parametrize("job_id", ["", "v1", "../x@20240101T000000000000Z-abcd", "v1@20240101T000000000000Z-abcd"])
def test_a_job_that_is_not_there_is_not_found(store: Store, job_id: str) -> None:
    with pytest.raises(JobNotFound):
        store.jobs.get(job_id)


def test_the_last_twenty_jobs_of_a_version_are_kept(store: Store) -> None:
    other = store.jobs.start(store.jobs.new_id("v2")).finish("succeeded")
    ids = []
    for _ in range(23):
        running = store.jobs.start(store.jobs.new_id("v1"))
        running.finish("failed", "no data")
        ids.append(running.id)
    assert [job.id for job in store.jobs.of("v1")] == ids[3:]
    assert store.jobs.latest("v2") == other
    assert len(list((store.root / "jobs").iterdir())) == 42


def test_the_latest_job_costs_one_look_however_many_there_were(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [store.jobs.new_id("v1")]
    for _ in range(2):
        store.jobs.start(ids[-1]).finish("succeeded")
        ids.append(store.jobs.new_id("v1"))
    store.jobs.start(ids[-1]).finish("succeeded")
    read: list[str] = []
    real = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (read.append(path.stem), real(path))[1])
    latest = store.jobs.latest("v1")
    assert latest is not None
    assert [latest.id] == read == ids[-1:]
    # One that cannot be read is passed over.
    (store.root / "jobs" / f"{ids[-1]}.json").write_text("{")
    before = store.jobs.latest("v1")
    assert before is not None
    assert before.id == ids[-2]
    assert store.jobs.latest("v") is None


def test_a_job_whose_owner_is_gone_is_interrupted_and_a_living_one_is_not(store: Store) -> None:
    alive = store.jobs.start(store.jobs.new_id("v1"))
    dead = store.jobs.start(store.jobs.new_id("v2"))
    dead._lock.release()
    Store(store.root).open()
    assert store.jobs.get(alive.id).state == "running"
    job = store.jobs.get(dead.id)
    assert (job.state, job.reason) == ("interrupted", "the process that ran it ended")
    assert job.ended
    assert alive.finish("succeeded").state == "succeeded"


def test_half_written_jobs_are_removed(store: Store) -> None:
    publish(store, "v1", "one")
    job_id = store.jobs.new_id("v1")
    (store.root / "jobs" / f"{job_id}.jsonl").write_text("{}\n")
    (store.root / "jobs" / f".{job_id}.json.tmp").write_text('{"id":')
    (store.root / "jobs" / "notes.txt").write_text("the user's")
    Store(store.root).open()
    assert [path.name for path in (store.root / "jobs").iterdir()] == ["notes.txt"]
    assert litter(store.root) == []


def test_a_job_that_cannot_be_written_down_does_not_start(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(step: str) -> None:
        if step.startswith("create"):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk, "failpoint", full)
    job_id = store.jobs.new_id("v1")
    with pytest.raises(StorageFull):
        store.jobs.start(job_id)
    monkeypatch.undo()
    assert list((store.root / "jobs").iterdir()) == []
    store.jobs.start(job_id).finish("succeeded")


def test_a_job_file_of_a_newer_aipod_is_read_as_far_as_it_is_known(store: Store) -> None:
    running = store.jobs.start(store.jobs.new_id("v1"))
    running.finish("succeeded")
    path = store.root / "jobs" / f"{running.id}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "gpu": 3}))
    assert store.jobs.get(running.id).state == "succeeded"

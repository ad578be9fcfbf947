"""What is written down of training jobs."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
from store_world import litter, publish

from aipod.errors import JobNotFound, StorageFull
from aipod.model import disk
from aipod.model.store import JobState, Store
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


def test_a_job_remembers_what_it_was_asked_and_what_came_of_it(store: Store) -> None:
    asked = {"epochs": 3, "name": "模型", "data": b"left out", "rows": {1, 2}}
    own = store.jobs.start(
        store.jobs.new_id("v1"), state="queued", call=b"call", request_id="mine", parameters=asked, resumable=True
    )
    job = store.jobs.get(own.id)
    assert (job.state, job.started, job.request_id, job.resumable) == ("queued", "", "mine", True)
    assert job.parameters == {"epochs": 3, "name": "模型"}
    assert job.created
    assert own.call() == b"call"
    own.change(state="running", started="now", attempts=1)
    assert store.jobs.get(own.id).attempts == 1
    own.keep_result(b"result")
    error = {"kind": "ModelError", "message": "no", "status": "INTERNAL", "data": {}}
    own.finish("failed", "no", error=error, resumable=False)
    assert store.jobs.get(own.id).error == error
    # Only what succeeded has a result, and nothing that is over is called again.
    assert store.jobs.result(own.id) is None
    assert sorted(path.suffix for path in (store.root / "jobs").iterdir()) == [".json", ".jsonl"]


def test_a_job_file_of_an_older_aipod_has_fewer_fields(store: Store) -> None:
    job_id = "v1@20240101T000000000000Z-abcd"
    old = {"id": job_id, "version": "v1", "kind": "train", "state": "succeeded", "started": "2024-01-01T00:00:00+00:00"}
    (store.root / "jobs" / f"{job_id}.json").write_text(json.dumps({**old, "ended": "", "reason": "", "revision": 4}))
    job = store.jobs.get(job_id)
    assert (job.revision, job.created, job.parameters, job.error) == (4, old["started"], {}, None)


@pytest.mark.parametrize(
    ("state", "after"),
    [("queued", "queued"), ("running", "interrupted"), ("cancelling", "cancelled"), ("failed", "failed")],
)
def test_what_a_dead_owner_left_is_settled_by_whoever_looks(store: Store, state: JobState, after: str) -> None:
    for opens in (False, True):
        own = store.jobs.start(store.jobs.new_id("v1"), state=state, call=b"call")
        assert store.jobs.get(own.id).state == state
        own.let_go()
        if opens:
            Store(store.root).open()
        assert store.jobs.get(own.id).state == after
        own = store.jobs.take(own.id)  # type: ignore[assignment]
        assert (own is not None) == (after == "queued")
        if own is not None:
            own.finish("cancelled")


def test_the_deletion_of_a_version_spares_the_jobs_of_the_next_one_of_its_name(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store, "v1", "one")
    store.jobs.start(store.jobs.new_id("v1")).finish("succeeded")
    real, started = disk.remove_tree, []

    def slow(directory: Path) -> None:
        # By now the name is free.
        if not started:
            started.append(store.jobs.start(store.jobs.new_id("v1"), state="queued", call=b"call"))
        real(directory)

    monkeypatch.setattr(disk, "remove_tree", slow)
    store.delete("v1")
    assert [job.id for job in store.jobs.of("v1")] == [own.id for own in started]
    assert started[0].call() == b"call"
    started[0].finish("cancelled")


def test_only_one_takes_over_what_waits(store: Store) -> None:
    own = store.jobs.start(store.jobs.new_id("v1"), state="queued", call=b"call")
    assert store.jobs.take(own.id) is None
    assert [job.id for job in store.jobs.waiting()] == [own.id]
    own.let_go()
    taken = store.jobs.take(own.id)
    assert taken is not None
    assert taken.call() == b"call"
    assert store.jobs.take(own.id) is None
    taken.finish("cancelled")
    assert store.jobs.waiting() == []
    assert store.jobs.take("v1@20240101T000000000000Z-abcd") is None


def test_a_resumable_job_keeps_its_directory_and_another_does_not(store: Store) -> None:
    for resumable in (True, False):
        own = store.jobs.start(store.jobs.new_id("v1"), call=b"call", resumable=resumable)
        staging = store.stage("v1", own.id)
        (staging.directory / "checkpoint").write_text("half")
        staging.leave()
        own.let_go()
        Store(store.root).open()
        job = store.jobs.get(own.id)
        assert (job.state, job.resumable, job.is_over) == ("interrupted", resumable, not resumable)
        assert staging.directory.exists() == resumable
        assert (store.jobs.take(own.id) is not None) == resumable


def test_what_is_left_of_a_job_that_is_over_is_removed(store: Store) -> None:
    own = store.jobs.start(store.jobs.new_id("v1"), call=b"call")
    own.keep_result(b"result")
    own.finish("succeeded", revision=1)
    call = store.root / "jobs" / f"{own.id}.call"
    call.write_bytes(b"left by a kill")
    Store(store.root).open()
    assert not call.exists()
    assert store.jobs.result(own.id) == b"result"


def test_the_end_of_a_job_that_no_disk_takes_is_no_new_beginning(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    own = store.jobs.start(store.jobs.new_id("v1"), state="queued", call=b"call")

    def full(step: str) -> None:
        if step.startswith("create"):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk, "failpoint", full)
    with pytest.raises(StorageFull):
        own.finish("failed", "no room")
    monkeypatch.undo()
    assert store.jobs.take(own.id) is None
    assert store.jobs.get(own.id).state == "interrupted"


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

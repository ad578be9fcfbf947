"""The training log: 1.0's records, whole lines, and readers that nothing upsets."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy
import pytest

from aipod.errors import InvalidArgument, StorageFull
from aipod.trainlog import Progressor, TrainingLog, TrainningLogger


@pytest.fixture
def log(tmp_path: Path) -> TrainingLog:
    return TrainingLog(tmp_path / "trainning.log")


def test_a_record_has_the_fields_of_1_0_and_those_that_were_added(log: TrainingLog) -> None:
    before = int(time.time())
    log.append(50, {"loss": 0.5}, "第一轮", "epoch", loss=0.25)
    (record,) = log.read_all()
    assert before <= record.pop("timestamp") <= int(time.time())
    assert record == {
        "progress": 50,
        "data": {"loss": 0.5},
        "message": "第一轮",
        "stage": "epoch",
        "status": "running",
        "loss": 0.25,
    }


def test_1_0_knew_it_as_trainning_logger(tmp_path: Path) -> None:
    old = TrainningLogger(tmp_path / "log")
    old.append(progress=1, timestamp=7)
    assert old.log_path == tmp_path / "log"
    assert old.read_all()[0]["timestamp"] == 7


def test_reading_makes_nothing(tmp_path: Path) -> None:
    assert TrainingLog(tmp_path / "no" / "log").read_all() == []
    assert list(tmp_path.iterdir()) == []


def test_torn_and_foreign_lines_are_skipped(log: TrainingLog) -> None:
    log.append(1)
    with log.log_path.open("ab") as file:
        file.write(b"\xff\xfe\n[1]\n" + b"[" * 100_000 + b"\n" + b'{"progress": 2')
    assert [record["progress"] for record in log.read_all()] == [1]


def test_the_next_append_ends_a_torn_line_and_loses_no_record(log: TrainingLog) -> None:
    log.append(1)
    with log.log_path.open("ab") as file:
        file.write(b'{"progress": 2')
    log.append(3)
    log.append(4)
    assert [record["progress"] for record in log.read_all()] == [1, 3, 4]


def test_a_reader_goes_on_where_it_stopped(log: TrainingLog) -> None:
    for progress in range(5):
        log.append(progress)
    assert [record["progress"] for record in log.read(after=3)] == [3, 4]
    assert [record["progress"] for record in log.read(after=1, limit=2)] == [1, 2]
    assert log.read(after=9) == log.read(limit=0) == []
    assert len(log.read(after=-1)) == 5


def test_scalars_of_numpy_become_numbers(log: TrainingLog) -> None:
    log.append(numpy.float32(0.5), {"n": numpy.int64(3), "ok": numpy.bool_(True)}, loss=numpy.float64(0.25))
    (record,) = log.read_all()
    assert (record["progress"], record["data"], record["loss"]) == (0.5, {"n": 3, "ok": True}, 0.25)


@pytest.mark.parametrize("value", [numpy.zeros(2), b"x", {1, 2}, object(), "\ud800", numpy.longdouble(1)])
def test_what_json_cannot_hold_is_refused_by_name_and_nothing_is_written(log: TrainingLog, value: object) -> None:
    with pytest.raises(InvalidArgument, match="field 'loss'"):
        log.append(1, loss=value)
    assert not log.log_path.exists()


def test_records_of_many_threads_never_mix(log: TrainingLog) -> None:
    def write(name: str) -> None:
        for number in range(50):
            log.append(number, message=name * 200)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = log.read_all()
    assert len(records) == 200
    for name in "abcd":
        assert [record["progress"] for record in records if record["message"] == name * 200] == list(range(50))


def test_it_is_utf8_whatever_the_locale(log: TrainingLog) -> None:
    code = "import sys, aipod.trainlog as t; t.TrainingLog(sys.argv[1]).append(1, message='\\u6a21\\u578b')"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code, str(log.log_path)], env=environment, check=True, timeout=60)
    assert json.loads(log.log_path.read_text(encoding="utf-8"))["message"] == "模型"


def test_a_full_disk_is_said_and_what_was_written_stays(log: TrainingLog) -> None:
    log.append(1, message="x" * 100)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.log_path.stat().st_size + 20, limits[1]))
    try:
        with pytest.raises(StorageFull, match="training log"):
            log.append(2, message="y" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    log.append(3)
    assert [record["progress"] for record in log.read_all()] == [1, 3]


def test_a_record_that_is_too_large_is_refused_and_nothing_is_written(log: TrainingLog) -> None:
    log.append(1)
    for size in (1 << 20, 100 << 20):
        with pytest.raises(InvalidArgument, match="too large for the training log, which takes 1048576;"):
            log.append(2, message="x" * size)
    log.append(3, message="x" * 1_000_000)
    assert [record["progress"] for record in log.read_all()] == [1, 3]


def test_records_of_a_job_are_numbered_by_their_place_whoever_wrote_them(tmp_path: Path) -> None:
    job_id = "v1@20240101T000000000000Z-abcd"
    path = tmp_path / "jobs" / f"{job_id}.jsonl"
    log, other = TrainingLog(path), TrainingLog(path)
    before = time.time()
    log.append(1, seq=7)
    with path.open("ab") as file:
        file.write(b'{"progress": 2')
    other.append(3)
    log.append(4)
    records = log.read_all()
    assert [(record["seq"], record["progress"]) for record in records] == [(1, 1), (2, 3), (3, 4)]
    assert {record["job_id"] for record in records} == {job_id}
    assert before <= records[0]["time"] <= time.time()
    assert log.read(after=records[1]["seq"]) == records[2:]


def test_a_reader_of_a_job_begins_where_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = TrainingLog(tmp_path / "jobs" / "v1@20240101T000000000000Z-abcd.jsonl")
    for progress in range(100):
        log.append(progress)
    assert len(log.read()) == 100
    log.append(100)
    decoded: list[bytes] = []
    real = json.loads
    monkeypatch.setattr(json, "loads", lambda line: (decoded.append(line), real(line))[1])
    assert [record["seq"] for record in log.read(after=100)] == [101]
    assert len(decoded) == 1
    assert [record["seq"] for record in log.read(after=98)] == [99, 100, 101]


def test_progress_lies_between_its_ends() -> None:
    progressor = Progressor(4, start=20, end=60)
    assert [progressor.calculate(done) for done in range(5)] == [20, 30, 40, 50, 60]
    assert Progressor(3).calculate(3) == 100


def test_no_tasks_are_done_at_once() -> None:
    assert Progressor(0, end=40).calculate(0) == 40

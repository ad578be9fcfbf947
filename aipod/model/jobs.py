"""Training jobs: a small file with the state, and one with the records, which is locked while the job runs.

So a job that says ``running`` and whose records are not locked has lost its owner; opening the store marks it
interrupted.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from secrets import token_hex
from typing import Literal

from aipod.errors import JobNotFound
from aipod.model import disk
from aipod.model.layout import Layout
from aipod.model.locks import Lock, acquire, try_acquire
from aipod.model.manifest import now

__all__ = ["Job", "JobState", "Jobs", "RunningJob"]

logger = logging.getLogger("aipod.store")

JobState = Literal["running", "succeeded", "failed", "interrupted"]

KEPT_JOBS = 20

_STAMP = "%Y%m%dT%H%M%S%fZ"
_ID = re.compile(r"(?P<version>[^@/]+)@(?P<stamp>\d{8}T\d{12}Z)-[0-9a-f]{4}")


@dataclass(frozen=True)
class Job:
    """What is known of one training run.

    Attributes:
        id: Sorts by time, names the version, and is a file name.
        started, ended: UTC, ISO 8601; ``ended`` is ``""`` while it runs.
        reason: Why it did not succeed.
        revision: The number that it published, if it did.
    """

    id: str
    version: str
    kind: str
    state: JobState
    started: str
    ended: str = ""
    reason: str = ""
    revision: int | None = None


class RunningJob:
    """A job that this process runs.

    Attributes:
        id: The job's.
        log_path: Where its records go.
    """

    def __init__(self, job: Job, log_path: Path, lock: Lock, save: Callable[[Job], None]) -> None:
        self.id = job.id
        self.log_path = log_path
        self._job = job
        self._lock = lock
        self._save = save

    def finish(self, state: JobState, reason: str = "", revision: int | None = None) -> Job:
        """Write down how it ended. If that is refused the job is found interrupted later."""
        job = replace(self._job, state=state, ended=now(), reason=reason, revision=revision)
        try:
            with disk.doing(f"writing down how job {self.id!r} ended"):
                self._save(job)
        finally:
            self._lock.release()
        return job


class Jobs:
    """The jobs of one data path."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def new_id(self, version: str) -> str:
        """An id that sorts after those of the version's earlier jobs, even if the clock was set back."""
        moment = datetime.now(timezone.utc)
        latest = max(self._ids(version), default=None)
        if latest is not None:
            stamp = latest.rpartition("@")[2].partition("-")[0]
            before = datetime.strptime(stamp, _STAMP).replace(tzinfo=timezone.utc)
            moment = max(moment, before + timedelta(microseconds=1))
        return f"{version}@{moment.strftime(_STAMP)}-{token_hex(2)}"

    def start(self, job_id: str, kind: str = "train") -> RunningJob:
        """Write down that a job runs; called by the one writer of its version. Old jobs of the version are forgotten.

        Raises:
            StorageError: It could not be written down; there is no such job then.
        """
        version = _version(job_id)
        log_path = self._layout.jobs / f"{job_id}.jsonl"
        job = Job(job_id, version, kind, "running", now())
        with disk.doing(f"starting job {job_id!r}"), acquire(self._layout.jobs, exclusive=False):
            self._forget(self._ids(version)[: -KEPT_JOBS + 1])
            disk.write_in_place(log_path, b"")
            lock = try_acquire(log_path, exclusive=True)
            if lock is None:
                raise FileExistsError(job_id)
            try:
                self._save(job)
            except BaseException:
                lock.release()
                disk.remove(log_path)
                raise
        return RunningJob(job, log_path, lock, self._save)

    def get(self, job_id: str) -> Job:
        """
        Raises:
            JobNotFound: No job has that id, or it was forgotten.
        """
        job = self._read(job_id) if _ID.fullmatch(job_id) else None
        if job is None:
            raise JobNotFound(job_id[:300])
        return job

    def latest(self, version: str) -> Job | None:
        # Asked with every look at a training log: the newest that can be read, and no other is.
        return next((job for job in map(self._read, reversed(self._ids(version))) if job is not None), None)

    def of(self, version: str) -> list[Job]:
        """Those of a version, the oldest first."""
        return [job for job in map(self._read, self._ids(version)) if job is not None]

    def log_path(self, job_id: str) -> Path:
        """Where the job's records are."""
        return self._layout.jobs / f"{self.get(job_id).id}.jsonl"

    def interrupt_dead(self) -> None:
        """Mark those whose owner is gone, and remove what it left half written."""
        with acquire(self._layout.jobs, exclusive=True):
            for job_id in self._ids(None):
                # Asked once more at the end: a job without an owner may have finished in between.
                if self._is_running(job_id) and not self._has_owner(job_id) and self._is_running(job_id):
                    job = replace(self.get(job_id), state="interrupted", ended=now())
                    try:
                        self._save(replace(job, reason="the process that ran it ended"))
                    except OSError as error:
                        # A full disk can still be served from; the next opening writes it.
                        logger.warning("job %s could not be marked as interrupted: %s", job_id, error)
            for path in sorted(self._layout.jobs.iterdir()):
                job_id = path.name.removesuffix(".jsonl").removeprefix(".").removesuffix(".json.tmp")
                stray = path.suffix == ".tmp" or self._read(job_id) is None
                if _ID.fullmatch(job_id) and stray and not self._has_owner(job_id):
                    disk.remove(path)

    def _is_running(self, job_id: str) -> bool:
        job = self._read(job_id)
        return job is not None and job.state == "running"

    def _has_owner(self, job_id: str) -> bool:
        try:
            lock = try_acquire(self._layout.jobs / f"{job_id}.jsonl", exclusive=True)
        except FileNotFoundError:
            return False
        if lock is None:
            return True
        lock.release()
        return False

    def forget_all(self, version: str) -> None:
        """Remove every job of a version."""
        self._forget(self._ids(version))

    def _forget(self, ids: list[str]) -> None:
        for job_id in ids:
            disk.remove(self._layout.jobs / f"{job_id}.json")
            disk.remove(self._layout.jobs / f"{job_id}.jsonl")

    def _ids(self, version: str | None) -> list[str]:
        start = "" if version is None else f"{version}@"
        try:
            names = os.listdir(self._layout.jobs)
        except FileNotFoundError:
            return []
        ids = (name[: -len(".json")] for name in names if name.startswith(start) and name.endswith(".json"))
        return sorted(filter(_ID.fullmatch, ids))

    def _read(self, job_id: str) -> Job | None:
        try:
            data = json.loads((self._layout.jobs / f"{job_id}.json").read_bytes())
            return Job(**{field.name: data[field.name] for field in fields(Job)})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _save(self, job: Job) -> None:
        disk.write_file(self._layout.jobs / f"{job.id}.json", json.dumps(asdict(job), ensure_ascii=False).encode())
        disk.sync_dir(self._layout.jobs)


def _version(job_id: str) -> str:
    match = _ID.fullmatch(job_id)
    if match is None:
        raise JobNotFound(job_id[:300])
    return match["version"]

"""Training jobs on disk: a small file with the state, and others beside it.

The records are locked by the process whose job it is, from the moment it is queued until it is over. So a job that says
``running`` and whose records are not locked has lost its owner. Whoever finds one settles it: it succeeded, if the live
revision says that it is its work; else it is interrupted. What is queued, or goes on after an interruption, waits for
an engine that takes it over.

A state is on the disk before anybody hears of it. The call is there before the job is, and what ``train`` returned
before its revision is published; so a job that has succeeded has a result.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from secrets import token_hex
from typing import Any

from aipod.errors import JobNotFound
from aipod.model import disk, jsontext, manifest, revisions
from aipod.model.job import Job, JobState, read_job
from aipod.model.layout import JOB_STAMP, Layout, version_of
from aipod.model.locks import Lock, acquire, try_acquire
from aipod.model.own_job import CALL, OUTPUT, PARTS, RECORDS, RESULT, STATE, OwnJob, spent_parts

__all__ = ["Jobs"]

logger = logging.getLogger("aipod.store")

KEPT_JOBS = 20
LOST = "the process that ran it ended"


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
            before = datetime.strptime(stamp, JOB_STAMP).replace(tzinfo=timezone.utc)
            moment = max(moment, before + timedelta(microseconds=1))
        return f"{version}@{moment.strftime(JOB_STAMP)}-{token_hex(2)}"

    def start(
        self,
        job_id: str,
        kind: str = "train",
        state: JobState = "running",
        call: bytes | memoryview = b"",
        request_id: str = "",
        parameters: Mapping[str, Any] | None = None,
        resumable: bool = False,
    ) -> OwnJob:
        """Write down a new job; called by the one writer of its version. Old jobs of the version are forgotten.

        Args:
            call: What ``train`` is to be called with, for whoever runs it.

        Raises:
            StorageError: It could not be written down; there is no such job then.
        """
        version, created = _version(job_id), manifest.now()
        job = Job(
            id=job_id,
            version=version,
            kind=kind,
            state=state,
            created=created,
            started=created if state == "running" else "",
            request_id=request_id,
            parameters=jsontext.keep_plain(parameters or {}),
            resumable=resumable,
        )
        records = self._path(job_id, RECORDS)
        with disk.doing(f"starting job {job_id!r}"), acquire(self._layout.jobs, exclusive=False):
            self._forget(self._ids(version)[: -KEPT_JOBS + 1])
            disk.write_in_place(records, b"")
            lock = try_acquire(records, exclusive=True)
            if lock is None:
                raise FileExistsError(job_id)
            try:
                if call:
                    disk.write_file(self._path(job_id, CALL), bytes(call))
                self._save(job)
            except BaseException:
                lock.release()
                for part in (CALL, RECORDS):
                    disk.remove(self._path(job_id, part))
                raise
        return self._own(job, lock)

    def take(self, job_id: str) -> OwnJob | None:
        """Hold a job that nobody holds and that is to go on; None if there is nothing to take.

        Called by the one writer of its version.
        """
        with disk.doing(f"taking over job {job_id!r}"), acquire(self._layout.jobs, exclusive=False):
            try:
                lock = try_acquire(self._path(job_id, RECORDS), exclusive=True)
            except FileNotFoundError:
                return None
            if lock is None:
                return None
            job = self._read(job_id)
            if job is not None and _goes_on(job):
                if self._path(job_id, CALL).exists():
                    return self._own(job, lock)
                # It ended, and the disk had no room for that.
                self._save(replace(job, state="interrupted", ended=manifest.now(), reason=LOST, resumable=False))
            lock.release()
            return None

    def waiting(self, version: str | None = None) -> list[Job]:
        """Those of all versions, or of one, that are to go on, held by somebody or not; the oldest first."""
        found = self.all() if version is None else self.of(version)
        return [job for job in map(self._current, found) if _goes_on(job)]

    def get(self, job_id: str) -> Job:
        """
        Raises:
            JobNotFound: No job has that id, or it was forgotten.
        """
        job = self._read(job_id) if version_of(job_id) else None
        if job is None:
            raise JobNotFound(job_id[:300])
        return self._current(job)

    def latest(self, version: str) -> Job | None:
        # Asked with every look at a training log: the newest that can be read, and no other is.
        return next((job for job in map(self._read, reversed(self._ids(version))) if job is not None), None)

    def of(self, version: str) -> list[Job]:
        """Those of a version, the oldest first."""
        return [job for job in map(self._read, self._ids(version)) if job is not None]

    def all(self) -> list[Job]:
        """Those of all versions, the oldest first."""
        found = [job for job in map(self._read, self._ids(None)) if job is not None]
        return sorted(found, key=lambda job: job.created)

    def log_path(self, job_id: str) -> Path:
        """Where the job's records are."""
        return self._path(self.get(job_id).id, RECORDS)

    def output(self, job_id: str) -> bytes:
        """What the model printed."""
        return self._bytes(job_id, OUTPUT) or b""

    def result(self, job_id: str) -> bytes | None:
        """What ``train`` returned, as it was given to :meth:`OwnJob.keep_result`; None if there is nothing."""
        return self._bytes(job_id, RESULT)

    def _bytes(self, job_id: str, part: str) -> bytes | None:
        path = self._path(self.get(job_id).id, part)
        with disk.doing(f"reading job {job_id!r}"):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None

    def changed(self, job_id: str) -> tuple[int, ...]:
        """A value that is another when the job's state or its records are; all zero if it is gone."""
        marks: list[int] = []
        for part in (STATE, RECORDS):
            try:
                info = os.stat(self._path(job_id, part))
            except OSError:
                marks += [0, 0]
            else:
                marks += [info.st_mtime_ns, info.st_size]
        return tuple(marks)

    def last_record(self, job_id: str) -> float:
        """Seconds since the epoch at which a record was last written; 0.0 without one."""
        try:
            info = os.stat(self.log_path(job_id))
        except OSError:
            return 0.0
        return info.st_mtime if info.st_size else 0.0

    def staged(self) -> frozenset[str]:
        """The ids of those whose staging directory is needed although nobody holds it."""
        return frozenset(job.id for job in self.all() if job.resumable and _needs_staging(job))

    def interrupt_dead(self) -> None:
        """Settle those whose owner is gone, and remove what it left half written."""
        with acquire(self._layout.jobs, exclusive=True):
            for job in self.all():
                if job.state in ("running", "cancelling"):
                    self._settled(job)
            for path in sorted(self._layout.jobs.iterdir()):
                job_id, part = os.path.splitext(path.name.removeprefix(".").removesuffix(".tmp"))
                if part not in PARTS or version_of(job_id) is None:
                    continue
                known = self._read(job_id)
                spent = known is not None and known.is_over and part in spent_parts(known.state)
                stray = path.suffix == ".tmp" or known is None or spent
                if stray and not self._has_owner(job_id):
                    disk.remove(path)

    def forget(self, jobs: list[Job]) -> None:
        """Remove jobs with all that they left."""
        self._forget([job.id for job in jobs])

    def _current(self, job: Job) -> Job:
        return self._settled(job) if job.state in ("running", "cancelling") else job

    def _settled(self, job: Job) -> Job:
        """The job, or, where its owner died, what has become of it, written down."""
        lock = self._unowned(job.id)
        if lock is None:
            return self._read(job.id) or job
        with lock:
            # Asked once more: a job without an owner may have finished in between.
            job = self._read(job.id) or job
            if job.state not in ("running", "cancelling"):
                return job
            job = self._verdict(job)
            try:
                self._save(job)
                if job.is_over:
                    for part in spent_parts(job.state):
                        disk.remove(self._path(job.id, part))
            except OSError as error:
                # A full disk can still be served from; the next look writes it.
                logger.warning("job %s could not be settled: %s", job.id, error)
        return job

    def _verdict(self, job: Job) -> Job:
        """What became of a job whose owner died while it ran."""
        made = self._made(job)
        if made is not None and made == self._live(job.version):
            entry = manifest.read(self._layout.revision(job.version, made)) or {}
            metrics = entry.get("metrics")
            return replace(
                job,
                state="succeeded",
                ended=manifest.now(),
                revision=made,
                metrics=metrics if isinstance(metrics, dict) else {},
                resumable=False,
            )
        if job.state == "cancelling":
            return replace(job, state="cancelled", ended=manifest.now(), resumable=False, reason=LOST)
        reason = LOST if made is None else f"{LOST}; revision {made} is its work, and a rollback to it makes it live"
        goes_on = job.resumable and (self._layout.staging / job.id).is_dir()
        return replace(job, state="interrupted", ended=manifest.now(), reason=reason, revision=made, resumable=goes_on)

    def _made(self, job: Job) -> int | None:
        for number in reversed(revisions.numbers(self._layout, job.version)):
            entry = manifest.read(self._layout.revision(job.version, number))
            if entry is not None and entry.get("job") == job.id:
                return number
        return None

    def _live(self, version: str) -> int | None:
        try:
            return revisions.live(self._layout, version)
        except OSError:
            return None

    def _has_owner(self, job_id: str) -> bool:
        if not self._path(job_id, RECORDS).exists():
            return False
        lock = self._unowned(job_id)
        if lock is None:
            return True
        lock.release()
        return False

    def _unowned(self, job_id: str) -> Lock | None:
        """The lock of a job that nobody holds; None if somebody does."""
        records = self._path(job_id, RECORDS)
        try:
            return try_acquire(records, exclusive=True)
        except FileNotFoundError:
            # Somebody removed them by hand.
            disk.write_in_place(records, b"")
            return try_acquire(records, exclusive=True)

    def _own(self, job: Job, lock: Lock) -> OwnJob:
        return OwnJob(job, lambda part: self._path(job.id, part), lock, self._save)

    def _forget(self, ids: list[str]) -> None:
        for job_id in ids:
            for part in PARTS:
                disk.remove(self._path(job_id, part))

    def _path(self, job_id: str, part: str) -> Path:
        return self._layout.jobs / f"{job_id}{part}"

    def _ids(self, version: str | None) -> list[str]:
        start = "" if version is None else f"{version}@"
        try:
            names = os.listdir(self._layout.jobs)
        except FileNotFoundError:
            return []
        ids = (name[: -len(STATE)] for name in names if name.startswith(start) and name.endswith(STATE))
        return sorted(filter(version_of, ids))

    def _read(self, job_id: str) -> Job | None:
        try:
            return read_job(json.loads(self._path(job_id, STATE).read_bytes()))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _save(self, job: Job) -> None:
        disk.write_file(self._path(job.id, STATE), json.dumps(asdict(job), ensure_ascii=False).encode())
        disk.sync_dir(self._layout.jobs)


def _goes_on(job: Job) -> bool:
    return job.state == "queued" or (job.state == "interrupted" and job.resumable)


def _needs_staging(job: Job) -> bool:
    return job.state in ("running", "interrupted")


def _version(job_id: str) -> str:
    version = version_of(job_id)
    if version is None:
        raise JobNotFound(job_id[:300])
    return version

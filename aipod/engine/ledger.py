"""What is known of training jobs, whoever holds them: read from the disk, which holds everything before it is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from cachetools import LRUCache

from aipod.clock import Clock
from aipod.codec import decode_reply
from aipod.engine.call import Call
from aipod.engine.following import Followers
from aipod.engine.training import KEPT_LIMITS
from aipod.errors import AipodError, InvalidArgument, TrainingCancelled, TrainingFailed, rebuild
from aipod.model.job import Job
from aipod.model.names import check_version
from aipod.model.store import Store
from aipod.model.trainlog import TrainingLog

__all__ = ["Ledger"]

_KEPT_LOGS = 64


class Ledger:
    """The jobs of a data path, and what they left.

    Args:
        store: Where they are kept.
        clock: For looks at those that somebody follows.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._followers = Followers(store.jobs, clock)
        self._logs: LRUCache[str, TrainingLog] = LRUCache(_KEPT_LOGS)
        self._latest: LRUCache[str, tuple[TrainingLog, dict[str, Any] | None]] = LRUCache(_KEPT_LOGS)
        self._shelf = threading.Lock()

    def get(self, job_id: str) -> Job:
        """
        Raises:
            JobNotFound: There is none, or it was forgotten.
        """
        return self._store.jobs.get(job_id)

    def jobs(self, version: str | None = None) -> list[Job]:
        """Those of all versions, or of one; the oldest first."""
        jobs = self._store.jobs
        found = jobs.all() if version is None else jobs.of(self._store.resolve(check_version(version)))
        return [jobs.get(job.id) if job.is_active else job for job in found]

    def result(self, job_id: str) -> Any:
        """What ``train`` returned.

        Raises:
            JobNotFound: There is none.
            InvalidArgument: It is not over yet, or is so old that nothing was kept.
            AipodError: What it failed with.
        """
        job = self.get(job_id)
        if not job.is_over:
            raise InvalidArgument(f"training job {job_id!r} is {job.state}; wait until it is over")
        if job.state == "succeeded":
            kept = self._store.jobs.result(job_id)
            if kept is None:
                raise InvalidArgument(f"what training job {job_id!r} returned was not kept; its revision has it")
            return decode_reply(kept, KEPT_LIMITS)
        if job.error is not None:
            raise rebuild(job.error)
        if job.state == "cancelled":
            raise TrainingCancelled(job.version, job.id, job.reason)
        raise TrainingFailed(job.version, job.id, job.reason)

    def records(self, job_id: str, after: int = 0, limit: int | None = None) -> list[dict[str, Any]]:
        """What it wrote to its training log: the records whose ``seq`` is above ``after``, at most ``limit``."""
        path = self._store.jobs.log_path(job_id)
        with self._shelf:
            log = self._logs.setdefault(job_id, TrainingLog(path))
        return log.read(after, limit)

    def latest(self, job_id: str) -> dict[str, Any] | None:
        """The last of its records; None if there is none yet. Only what is new since the last time is read."""
        path = self._store.jobs.log_path(job_id)
        with self._shelf:
            log, latest = self._latest.get(job_id) or (TrainingLog(path), None)
        found = log.read(latest["seq"] if latest is not None else 0)
        latest = found[-1] if found else latest
        with self._shelf:
            self._latest[job_id] = (log, latest)
        return latest

    def output(self, job_id: str) -> str:
        """What it printed, where it runs in a process of its own."""
        return self._store.jobs.output(job_id).decode("utf-8", "replace")

    def watch(self, job_id: str, changed: Callable[[], None]) -> Callable[[], None]:
        """Have ``changed`` called when the job's state or records may have changed; gives what ends that.

        It comes from any thread, and must be short.
        """
        return self._followers.add(job_id, changed)

    def wait(self, job_id: str, timeout: float | None = None) -> Job:
        """Wait until it is over, or so many seconds; the job as it is then."""
        deadline = None if timeout is None else time.monotonic() + timeout
        changed = threading.Event()
        end = self.watch(job_id, changed.set)
        try:
            while not (job := self.get(job_id)).is_over:
                left = None if deadline is None else deadline - time.monotonic()
                if not changed.wait(left):
                    break
                changed.clear()
            return job
        finally:
            end()

    def follow(self, job_id: str, call: Call) -> None:
        """Answer a call with a job that somebody else holds, or that is over."""
        ends: list[Callable[[], None]] = []

        def look() -> None:
            try:
                if not (call.answered or self.get(job_id).is_over):
                    return
                call.finish(self.result(job_id))
            except AipodError as error:
                call.fail(error)
            for end in ends:
                end()

        ends.append(self.watch(job_id, look))
        look()

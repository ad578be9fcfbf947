"""A job that this process holds, and the files that it has."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from aipod.model import disk, manifest
from aipod.model.job import Job, JobState
from aipod.model.locks import Lock

__all__ = ["CALL", "OUTPUT", "PARTS", "RECORDS", "RESULT", "STATE", "OwnJob", "spent_parts"]

CALL, RESULT, OUTPUT, RECORDS, STATE = ".call", ".result", ".out", ".jsonl", ".json"
# The state goes first: without it there is no such job, and what is left of it is removed when a store is opened.
PARTS = (STATE, CALL, RESULT, OUTPUT, RECORDS)


class OwnJob:
    """A job that this process holds. One thread at a time changes it.

    Attributes:
        job: What is written down of it.
        log_path, output_path: Where its records go, and what the model prints.
    """

    def __init__(self, job: Job, path: Callable[[str], Path], lock: Lock, save: Callable[[Job], None]) -> None:
        self.job = job
        self.log_path = path(RECORDS)
        self.output_path = path(OUTPUT)
        self._path = path
        self._lock = lock
        self._save = save

    @property
    def id(self) -> str:
        return self.job.id

    def change(self, **changes: Any) -> Job:
        """Write down what is new.

        Raises:
            StorageError: It could not be written; the job is as before.
        """
        job = replace(self.job, **changes)
        with disk.doing(f"writing down how job {self.id!r} stands"):
            self._save(job)
        self.job = job
        return job

    def call(self) -> bytes:
        """What ``train`` is called with, as it was given to :meth:`Jobs.start`."""
        with disk.doing(f"reading what job {self.id!r} was called with"):
            return self._path(CALL).read_bytes()

    def keep_result(self, data: bytes | memoryview) -> None:
        """Write down what ``train`` returned, before it is published."""
        with disk.doing(f"writing down what job {self.id!r} returned"):
            disk.write_file(self._path(RESULT), bytes(data))
            disk.sync_dir(self._path(RESULT).parent)

    def finish(self, state: JobState, reason: str = "", revision: int | None = None, **changes: Any) -> Job:
        """Write down how it ended, and let go of it.

        Raises:
            StorageError: It was refused. Whoever looks next finds the job without an owner, and settles it.
        """
        is_over = replace(self.job, state=state, **changes).is_over
        try:
            return self.change(state=state, ended=manifest.now(), reason=reason, revision=revision, **changes)
        finally:
            # Also if the state was refused: what cannot be called any more does not begin anew.
            if is_over:
                with suppress(OSError):
                    for part in spent_parts(state):
                        disk.remove(self._path(part))
            self.let_go()

    def let_go(self) -> None:
        """Give it up as it stands, for another engine to take; again is fine."""
        self._lock.release()


def spent_parts(state: JobState) -> tuple[str, ...]:
    """What a job that is over needs no more."""
    return (CALL,) if state == "succeeded" else (CALL, RESULT)

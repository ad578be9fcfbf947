"""The training log: one JSON object per line, in UTF-8 whatever the locale.

An append is one ``write`` of one line to a file opened for appending, so records of several threads or processes
never mix. Only a crash or a full disk can tear a line. A reader skips it, and the next append ends it first, so that
it spoils no other.

The records of a job are counted by whoever reads them: ``seq`` is a record's place among those that are whole, from 1.
A file only grows, so it stays what it is whatever wrote the record, a run that goes on after an interruption or a
process that the model started; and no two are the same.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from aipod.errors import InvalidArgument
from aipod.model import disk, jsontext
from aipod.model.layout import job_of
from aipod.model.run import NO_RUN, Run

__all__ = ["Progressor", "TrainingLog", "TrainningLogger"]

MAX_RECORD_BYTES = 1 << 20


class TrainingLog:
    """The records in one file, which need not exist until the first append.

    Args:
        log_path: The file; or a function that says which it is, asked at every use.
        prepare: Called before every append.
        run: Says what run the records are of.
    """

    def __init__(
        self,
        log_path: str | os.PathLike[str] | Callable[[], Path],
        prepare: Callable[[], None] | None = None,
        run: Callable[[], Run] = lambda: NO_RUN,
    ) -> None:
        fixed = None if callable(log_path) else Path(log_path)
        self._find: Callable[[], Path] = log_path if callable(log_path) else lambda: fixed or Path()
        self._prepare = prepare
        self._run = run
        # Of this file so many records end at this place.
        self._mark = (Path(), 0, 0)

    @property
    def log_path(self) -> Path:
        return self._find()

    def append(
        self,
        progress: float | None = None,
        data: Any = None,
        message: str | None = None,
        stage: str | None = None,
        status: str = "running",
        **extra: Any,
    ) -> None:
        """Add a record; its ``timestamp`` is now, in whole seconds since the epoch; a job's have ``time`` as well.

        Args:
            progress: 0 to 100, by custom.
            extra: Further fields; one that is named like a field above replaces it.

        Raises:
            InvalidArgument: JSON cannot hold a field, which is named, or the record is too large; nothing was written.
            StorageFull: Nothing, or a torn line that no reader shows, was written.
            TrainingCancelled: The training is to end; the record was written.
        """
        record = {"progress": progress, "data": data, "message": message, "stage": stage, "status": status}
        now = time.time()
        record["timestamp"] = int(now)
        if job_of(self.log_path):
            record["time"] = now
        record.update(extra)
        line = jsontext.dumps(record, "field", "the training log").encode() + b"\n"
        if len(line) > MAX_RECORD_BYTES:
            raise InvalidArgument(
                f"a record of {len(line)} bytes is too large for the training log, which takes {MAX_RECORD_BYTES};"
                " write large data to a file under model_dir(), and its name to the log"
            )
        with disk.doing("writing to the training log"):
            if self._prepare is not None:
                self._prepare()
            disk.append_line(self.log_path, line)
        self._run().recorded()

    def read_all(self) -> list[dict[str, Any]]:
        """Every record, the oldest first; none if there is no file."""
        return self.read()

    def read(self, after: int = 0, limit: int | None = None) -> list[dict[str, Any]]:
        """The records after the first ``after``, at most ``limit`` of them.

        Torn lines do not count, so ``after`` plus the length of the answer is the next ``after``; of a job's records it
        is the last one's ``seq``.
        """
        first, most = max(0, after), None if limit is None else max(0, limit)
        path = self.log_path
        # Who follows a log begins where he ended the last time.
        marked, known, mark = self._mark
        if marked != path or known > first:
            known = mark = 0
        found: list[dict[str, Any]] = []
        with disk.doing("reading the training log"):
            for record, end in _records(path, mark):
                if most is not None and len(found) >= most:
                    break
                known, mark = known + 1, end
                if known > first:
                    found.append(record)
        job_id = job_of(path)
        if job_id:
            # Others may be removed, and written anew.
            self._mark = (path, known, mark)
        return _numbered(found, known, job_id)


TrainningLogger = TrainingLog


def _records(path: Path, mark: int) -> Iterator[tuple[dict[str, Any], int]]:
    """The whole records from a place in the file on, each with the place where it ends."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(mark)
        for line in file:
            mark += len(line)
            # Without its end it is torn, or still on its way in another process.
            record = _record(line) if line.endswith(b"\n") else None
            if record is not None:
                yield record, mark


def _numbered(records: list[dict[str, Any]], last: int, job_id: str) -> list[dict[str, Any]]:
    """Say of each record which job's it is and which of them, if they are a job's; the last one's number is known."""
    if job_id:
        for seq, record in enumerate(records, last - len(records) + 1):
            record.update(seq=seq, job_id=job_id)
    return records


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


class Progressor:
    """Turn tasks done into a progress between ``start`` and ``end``.

    Args:
        tasks: How many there are in all; with none, progress is at its end.
    """

    def __init__(self, tasks: int, start: float = 0, end: float = 100) -> None:
        self.tasks = tasks
        self.start = start
        self.end = end
        self.total = end - start

    def calculate(self, done_tasks: int) -> float:
        return self.start + self.total * done_tasks / self.tasks if self.tasks else self.end

"""The training log: one JSON object per line, in UTF-8 whatever the locale.

An append is one ``write`` of one line to a file opened for appending, so records of several threads or processes
never mix. Only a crash or a full disk can tear a line. A reader skips it, and the next append ends it first, so that
it spoils no other.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from aipod.model import disk, jsontext
from aipod.model.run import NO_RUN, Run

__all__ = ["Progressor", "TrainingLog", "TrainningLogger"]


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
        """Add a record; its ``timestamp`` is now, in whole seconds since the epoch.

        Args:
            progress: 0 to 100, by custom.
            extra: Further fields; one that is named like a field above replaces it.

        Raises:
            InvalidArgument: JSON cannot hold a field, which is named; nothing was written.
            StorageFull: Nothing, or a torn line that no reader shows, was written.
            TrainingCancelled: The training is to end; the record was written.
        """
        record = {"progress": progress, "data": data, "message": message, "stage": stage, "status": status}
        record.update({"timestamp": int(time.time())}, **extra)
        line = jsontext.dumps(record, "field", "the training log").encode() + b"\n"
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

        Torn lines do not count, so ``after`` plus the length of the answer is the next ``after``.
        """
        first = max(0, after)
        with disk.doing("reading the training log"):
            return list(islice(self._records(), first, None if limit is None else first + max(0, limit)))

    def _records(self) -> Iterator[dict[str, Any]]:
        try:
            file = self.log_path.open("rb")
        except FileNotFoundError:
            return
        with file:
            for line in file:
                # Without its end it is torn, or still on its way in another process.
                record = _record(line) if line.endswith(b"\n") else None
                if record is not None:
                    yield record


TrainningLogger = TrainingLog


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

"""Results as lines of JSON in files: a record that needs nothing but a directory.

Each line is the result's document with one more field at its beginning, ``recorded_at`` in unix seconds.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

from aipod.errors import ConfigError, SerializationError
from aipod.stream.errors import Diverged
from aipod.stream.result import Identity, Recorded, Result
from aipod.stream.sinks.history import Recall
from aipod.stream.sinks.journal import Journal, Line
from aipod.stream.sinks.room import try_to_write
from aipod.stream.sinks.thread import SinkThread

__all__ = ["FileSink"]

_PREFIX = b'{"recorded_at":'
# How far back the files are read at a start even if all there is old: what lies further back is neither compared with
# what is written again nor known as the last of its key. It costs a second or two.
_LOOK_BACK_BYTES = 64 << 20
_MAX_REMEMBERED = 100_000


class _Waiting(NamedTuple):
    line: bytes
    result: Result
    done: asyncio.Future[None]


class FileSink:
    """Appends to files in a directory. A record.

    Args:
        directory: Its own: another task's results there are refused.
        task: The task's name.
        max_bytes: Where a file ends and the next one begins.
        max_age: The same in seconds.
    """

    def __init__(self, directory: str, task: str, *, max_bytes: int = 64 << 20, max_age: float = 86_400.0) -> None:
        self.name = f"file:{directory}"
        self._task = task
        self._directory = Path(directory)
        self._journal = Journal(self._directory, max_bytes, max_age)
        self._thread = SinkThread("files")
        # What is there already, by identity, the oldest first; None until the files have been read.
        self._known: OrderedDict[Identity, Recorded] | None = None
        self._places: dict[Identity, Line] = {}
        # Those that wait for the next flush. One flush runs at a time and takes all of them.
        self._waiting: list[_Waiting] = []
        self._flushing: asyncio.Task[None] | None = None
        self._clock = 0.0

    def __repr__(self) -> str:
        return f"FileSink({self.name!r})"

    async def open(self) -> None:
        await self._thread.run(self._journal.open)

    async def foresee(self) -> str:
        """Say what :meth:`open` would find; nothing is made or changed.

        Raises:
            ConfigError: The directory cannot be used.
        """
        return await self._thread.run(self._foresee)

    async def recall(self, since: float, floor: int) -> list[Recorded]:
        return await self._thread.run(self._recall, since, floor)

    async def stored(self, recorded: Recorded) -> Result | None:
        place = self._places.get(recorded.identity)
        if place is None:
            return None
        return Result.read(await self._thread.run(self._journal.line_at, place.file, place.offset))

    async def write(self, result: Result) -> None:
        if self._known is None:
            await self._thread.run(self._recall, float("inf"), sys.maxsize)
        assert self._known is not None
        there = self._known.get(result.recorded.identity)
        if there is None:
            await self._append(_Waiting(self._line(result), result, asyncio.get_running_loop().create_future()))
        elif not there.agrees(result.recorded):
            raise Diverged(there)

    async def close(self) -> None:
        await self._thread.end(self._journal.close)

    def _line(self, result: Result) -> bytes:
        # Never backwards, so that the files can be read back to an instant whatever the clock did.
        self._clock = max(time.time(), self._clock)
        return b"%s%.6f,%s" % (_PREFIX, self._clock, result.encode()[1:])

    async def _append(self, one: _Waiting) -> None:
        self._waiting.append(one)
        if self._flushing is None:
            self._flushing = asyncio.ensure_future(self._flush())
        await one.done

    async def _flush(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = [one for one in self._waiting if not one.done.done()], []
                failure: Exception | None = None
                try:
                    await self._thread.run(self._journal.append, [one.line for one in batch])
                except Exception as error:
                    failure = error
                for one in batch:
                    if failure is None:
                        self._remember(one.result)
                    if not one.done.done():
                        one.done.set_result(None) if failure is None else one.done.set_exception(failure)
        finally:
            self._flushing = None

    def _remember(self, result: Result) -> None:
        if self._known is not None:
            self._known[result.recorded.identity] = result.recorded
            if len(self._known) > _MAX_REMEMBERED:
                self._known.popitem(last=False)

    def _foresee(self) -> str:
        there = next(path for path in (self._directory, *self._directory.absolute().parents) if path.exists())
        try_to_write(there, self.name)
        return "the directory is there" if there == self._directory else "the directory would be made"

    def _recall(self, since: float, floor: int) -> list[Recorded]:
        recall, seen = Recall(since, floor), 0
        known: list[tuple[Identity, Recorded]] = []
        self._places = {}
        for line in self._journal.backwards():
            seen += len(line.text)
            result, stored = self._read(line)
            self._clock = max(self._clock, stored)
            if len(known) < _MAX_REMEMBERED:
                known.append((result.recorded.identity, result.recorded))
            if recall.offer(result.recorded, stored):
                self._places[result.recorded.identity] = line._replace(text=b"")
            elif seen > _LOOK_BACK_BYTES:
                break
        self._known = OrderedDict(reversed(known))
        return recall.oldest_first()

    def _read(self, line: Line) -> tuple[Result, float]:
        try:
            stored = float(line.text[len(_PREFIX) : line.text.index(b",")])
            result = Result.read(line.text)
        except (ValueError, SerializationError):
            reason = "is no result of a window"
        else:
            if result.task == self._task and result.recorded.members:
                return result, stored
            reason = f"is of task {result.task!r}"
        raise ConfigError(
            [f"{self.name}: a line of {line.file.name} {reason}; give task {self._task!r} a directory of its own"]
        )

"""Lines in numbered files of one directory: appended, on disk before that is said, and read back from the end.

Rules:

1. One writer. It holds a lock that the kernel takes back when it dies; a second one waits.
2. A line is whole or it does not count: what a crash left at the end of a file is cut off when the directory is opened.
3. A write that failed leaves nothing behind, and the file that it failed on is not written to again: after a failed
   fsync nobody knows what of it is on disk.

Blocking; used from one thread at a time.
"""

from __future__ import annotations

import calendar
import contextlib
import errno
import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from aipod.errors import AipodError, ConfigError, StorageError, Unavailable

__all__ = ["Journal", "Line"]

_LOG = logging.getLogger("aipod.stream")
# The number gives the order, whatever the clock did; the time is for people, and for the file's age.
_NAME = re.compile(r"([0-9]{6,})-([0-9]{8}T[0-9]{6}Z)\.jsonl")
_TIME = "%Y%m%dT%H%M%SZ"
_BLOCK_BYTES = 1 << 20
_AWAY = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE)


class Line(NamedTuple):
    """A line without its end, and where it begins."""

    file: Path
    offset: int
    text: bytes


class Journal:
    """Numbered files.

    Args:
        directory: Made if it is not there; its files belong to the journal.
        max_bytes: A file that has so many is followed by another.
        max_age: So is one that was begun so many seconds ago.
    """

    def __init__(self, directory: Path, max_bytes: int, max_age: float) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._lock: int | None = None
        self._file: int | None = None
        self._size = 0
        self._born = 0.0

    def open(self) -> None:
        """Lock the directory, and cut off what a crash left.

        Raises:
            ConfigError: The directory cannot be used.
            Unavailable: Another process writes there, or the disk refuses for the moment.
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._lock = self._lock_directory()
            files = self._files()
            if files:
                self._continue(files[-1])
        except OSError as error:
            self.close()
            raise _refusal(f"file:{self._directory}: open the directory of the results", error) from error
        except BaseException:
            self.close()
            raise

    def append(self, lines: Sequence[bytes]) -> None:
        """Write lines, and return when they are on disk; all of them, or none.

        Raises:
            ConfigError: The directory cannot be used any more.
            StorageError: The directory was removed.
            Unavailable: The disk refuses for the moment.
        """
        data = b"".join(line + b"\n" for line in lines)
        try:
            if self._file is not None and os.fstat(self._file).st_nlink == 0:
                self._leave_file()
                raise StorageError("write results", "somebody removed the file that they go to")
            if self._file is None or self._size >= self._max_bytes or time.time() - self._born >= self._max_age:
                self._begin()
            self._write(data)
        except OSError as error:
            raise _refusal("write results", error) from error

    def backwards(self) -> Iterator[Line]:
        """All whole lines, the newest first.

        Raises:
            ConfigError: They cannot be read.
        """
        try:
            for file in reversed(self._files()):
                # A block that was lost in the middle of what was never acknowledged.
                yield from (line for line in _backwards(file) if b"\0" not in line.text)
        except OSError as error:
            raise _refusal("read the results", error) from error

    def line_at(self, file: Path, offset: int) -> bytes:
        """Read one line again."""
        try:
            with file.open("rb") as stream:
                stream.seek(offset)
                return stream.readline().rstrip(b"\n")
        except OSError as error:
            raise _refusal("read the results", error) from error

    def close(self) -> None:
        """Give file and lock back; again is fine."""
        self._leave_file()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _lock_directory(self) -> int:
        lock = os.open(self._directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise Unavailable("another process writes to the directory of the results; waiting until it ends") from None
        except OSError:
            os.close(lock)
            raise
        return lock

    def _files(self) -> list[Path]:
        found = [(match, path) for path in self._directory.iterdir() if (match := _NAME.fullmatch(path.name))]
        return [path for match, path in sorted(found, key=lambda pair: int(pair[0][1]))]

    def _continue(self, newest: Path) -> None:
        self._file = os.open(newest, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        length = os.fstat(self._file).st_size
        self._size = _whole(newest)
        self._born = _born(newest)
        if self._size < length:
            _LOG.warning("cut %d bytes of an unfinished line off %s", length - self._size, newest.name)
            os.ftruncate(self._file, self._size)
            os.fsync(self._file)

    def _begin(self) -> None:
        self._leave_file()
        files = self._files()
        number = int(files[-1].name.partition("-")[0]) + 1 if files else 1
        now = time.time()
        path = self._directory / f"{number:06d}-{time.strftime(_TIME, time.gmtime(now))}.jsonl"
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._size, self._born = 0, now
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
                os.fsync(self._file)
            self._leave_file()
            raise
        self._size += len(data)

    def _leave_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _born(file: Path) -> float:
    match = _NAME.fullmatch(file.name)
    try:
        return float(calendar.timegm(time.strptime(match[2], _TIME))) if match else 0.0
    except ValueError:  # no such day: old, then
        return 0.0


def _whole(file: Path) -> int:
    """How many bytes of a file are whole lines; a lost block of a file is read as zeros, which no line has."""
    for line in _backwards(file):
        if b"\0" not in line.text:
            return line.offset + len(line.text) + 1
    return 0


def _backwards(file: Path) -> Iterator[Line]:
    with file.open("rb") as stream:
        start = stream.seek(0, os.SEEK_END)
        rest = b""
        last = True
        while start > 0:
            step = min(start, max(_BLOCK_BYTES, len(rest)))  # growing, or a very long line would be copied too often
            start -= step
            stream.seek(start)
            rest, *lines = (stream.read(step) + rest).split(b"\n")
            offset = start + len(rest) + 1
            places = []
            for text in lines:
                places.append(Line(file, offset, text))
                offset += len(text) + 1
            if last and places:
                places.pop()  # after the last end of a line: nothing, or what a crash left
                last = False
            yield from reversed(places)
        if not last:
            yield Line(file, 0, rest)


def _refusal(doing: str, error: OSError) -> AipodError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable(f"{doing}: no room on that disk; free some space")
    reason = error.strerror or type(error).__name__
    if error.errno in _AWAY:
        return Unavailable(f"{doing}: {reason}")
    return ConfigError([f"{doing}: {reason}; name a directory that this user may write to"])

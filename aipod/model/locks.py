"""Locks between processes: an ``flock`` on the very directory or file that it protects.

An ``flock`` belongs to what ``open`` returned, so it keeps threads of one process apart just as it does processes,
and the kernel lets go of it when its owner dies. Who takes several does so in this order, and nobody takes one twice:

    the root (opening, aliases) · ``staging/`` (making or sweeping) · ``.writer`` · a version's home · a revision

A thread that waits for a lock waits for work that is bounded by the disk: what may take long (a lease, a training, a
staging directory) is only ever tried for.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

__all__ = ["Lock", "acquire", "try_acquire"]


class Lock:
    """A lock that is held until :meth:`release`; a context manager."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd

    def release(self) -> None:
        """Let go; again is fine."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            # Said aloud, since a process forked meanwhile keeps the descriptor open, and with it the lock.
            try:
                fcntl.flock(fd, fcntl.LOCK_UN)
            finally:
                os.close(fd)

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def acquire(path: Path, *, exclusive: bool) -> Lock:
    """Wait for a lock.

    Raises:
        FileNotFoundError: There is nothing at ``path``, or not any more.
        OSError: The file system has no locks.
    """
    lock = _lock(path, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
    assert lock is not None  # it waits
    return lock


def try_acquire(path: Path, *, exclusive: bool) -> Lock | None:
    """As :func:`acquire`, but ``None`` at once if another holds it."""
    return _lock(path, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)


def _lock(path: Path, mode: int) -> Lock | None:
    while True:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        lock = Lock(path, fd)
        try:
            fcntl.flock(fd, mode)
            # Between open and flock the path may have been removed, or have become another's.
            if os.path.samestat(os.fstat(fd), os.lstat(path)):
                return lock
        except BlockingIOError:
            lock.release()
            return None
        except BaseException:
            lock.release()
            raise
        lock.release()

"""Private directories: what an initialize or a train writes into, and what an instance without data gets.

Each is locked by its owner for as long as it lives, so what is not locked is left over and may be swept. Between
making and locking one, the owner holds ``staging/`` shared; who sweeps holds it exclusively, and so never sees one
that is just being made.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from secrets import token_hex
from types import TracebackType

from aipod.model import disk
from aipod.model.layout import Layout
from aipod.model.locks import Lock, acquire, try_acquire
from aipod.model.place import Place

__all__ = ["Scratch", "Staging", "sweep"]

logger = logging.getLogger("aipod.store")


class Staging:
    """A directory that :meth:`Store.publish` turns into a revision; a context manager that discards it if it was not.

    Attributes:
        version: The version that it is for.
        job: The id that names it; the training job's, if it belongs to one.
        directory: Its real path.
        place: What an instance is constructed with.
    """

    def __init__(self, layout: Layout, version: str, job: str) -> None:
        self.version = version
        self.job = job
        self.directory = layout.staging / job
        self._lock: Lock | None = _make(layout, self.directory)
        log = layout.jobs / f"{job}.jsonl"
        self.place = Place.staging(self.directory, log if log.exists() else None)

    @property
    def open(self) -> bool:
        """Whether it was neither published nor discarded."""
        return self._lock is not None

    def let_go(self) -> None:
        """Unlock, because the directory is a revision now."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def leave(self) -> None:
        """Unlock it as it is, for a run that goes on from it; it is not discarded then."""
        self.let_go()

    def discard(self) -> None:
        """Remove it with all that is in it; after it was published or discarded, nothing happens."""
        if self._lock is not None:
            try:
                with disk.doing(f"discarding what version {self.version!r} was to become"):
                    disk.remove_tree(self.directory)
            finally:
                self.let_go()

    def __enter__(self) -> Staging:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


class Scratch:
    """A directory for an instance of a version that has no data; made when the instance first asks for it.

    Attributes:
        place: What the instance is constructed with.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._directory = layout.staging / f".scratch-{token_hex(8)}"
        self._guard = threading.Lock()
        self._lock: Lock | None = None
        self._closed = False
        self.place = Place.scratch(self._directory, self._prepare)

    def _prepare(self) -> None:
        with self._guard:
            if self._lock is None and not self._closed:
                with disk.doing("making a directory for an instance without data"):
                    self._lock = _make(self._layout, self._directory)

    def close(self) -> None:
        """Remove it; again is fine. Nothing is made any more."""
        with self._guard:
            self._closed = True
            lock, self._lock = self._lock, None
            if lock is not None:
                with lock, disk.doing("removing the directory of an instance without data"):
                    disk.remove_tree(self._directory)

    def __enter__(self) -> Scratch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _make(layout: Layout, directory: Path) -> Lock:
    with acquire(layout.staging, exclusive=False):
        disk.create_dir(directory)
        lock = try_acquire(directory, exclusive=True)
    if lock is None:
        raise FileExistsError(f"{directory} belongs to another")
    return lock


def sweep(layout: Layout, spared: frozenset[str] = frozenset()) -> None:
    """Remove every directory whose owner is gone, but those that a job goes on from."""
    dead: list[Lock] = []
    with acquire(layout.staging, exclusive=True):
        for path in sorted(layout.staging.iterdir()):
            if path.is_dir() and not path.is_symlink() and path.name not in spared:
                lock = try_acquire(path, exclusive=True)
                if lock is not None:
                    dead.append(lock)
    # Large trees take their time, so nobody waits for this part.
    for lock in dead:
        with lock:
            logger.info("removing what was left over: %s", lock.path.name)
            disk.remove_tree(lock.path)

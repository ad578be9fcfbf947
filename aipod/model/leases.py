"""A lease: a shared lock on a revision's directory, which keeps every process from collecting it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from aipod.errors import VersionNotFound
from aipod.model import revisions
from aipod.model.layout import Layout
from aipod.model.locks import Lock, acquire
from aipod.model.place import Place

__all__ = ["Lease", "lease"]


class Lease:
    """One revision, held until :meth:`close`; a context manager.

    Attributes:
        version, number: Which it is.
        directory: Its real path, whole for as long as the lease is held.
        place: What an instance is constructed with.
    """

    def __init__(self, version: str, number: int, directory: Path, lock: Lock, log_path: Callable[[], Path]) -> None:
        self.version = version
        self.number = number
        self.directory = directory
        self.place = Place.revision(directory, log_path)
        self._lock = lock

    def close(self) -> None:
        """Give it back; again is fine."""
        self._lock.release()

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<lease on {self.version!r} {self.number}>"


def lease(layout: Layout, version: str, number: int | None, log_path: Callable[[], Path]) -> Lease:
    """Lease a revision, or the live one.

    Raises:
        VersionNotFound: It is not there, or its version is being deleted.
    """
    while True:
        wanted = number if number is not None else revisions.live(layout, version)
        if wanted is None:
            raise VersionNotFound(version)
        directory = layout.revision(version, wanted)
        try:
            lock = acquire(directory, exclusive=False)
        except (FileNotFoundError, NotADirectoryError):
            # Between our look at the link and our lock another became live, and this one was collected.
            if number is None and revisions.live(layout, version) not in (None, wanted):
                continue
            raise VersionNotFound(version, number) from None
        # Whoever deletes a version locks all its revisions first: after our lock the mark is there, or never will be.
        if layout.deleting(version).exists():
            lock.release()
            raise VersionNotFound(version, number)
        return Lease(version, wanted, directory, lock, log_path)

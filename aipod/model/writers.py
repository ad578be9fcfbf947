"""One writer per version: a lock for the whole of an initialize or a train, which also says who holds it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

from aipod.errors import AipodError, Conflict, TrainingInProgress
from aipod.model import adoption, disk, revisions
from aipod.model.layout import Layout
from aipod.model.locks import Lock, try_acquire

__all__ = ["WriterKind", "tidy", "writing"]

WriterKind = Literal["initialize", "train", "import", "delete"]


@contextmanager
def writing(layout: Layout, version: str, kind: WriterKind, job: str | None = None) -> Iterator[None]:
    """Be the one writer of a version. What an earlier one left unfinished is finished first.

    Raises:
        TrainingInProgress: A training is running, here or in another process.
        Conflict: Another writer is.
    """
    with disk.doing(f"starting to write version {version!r}"):
        taken = _take(layout, version, json.dumps({"kind": kind, "job": job}).encode())
    if isinstance(taken, AipodError):
        raise taken
    try:
        with taken:
            yield
    finally:
        # A version that came to nothing leaves nothing. If this is refused, opening the store does it later.
        with suppress(OSError):
            tidy(layout, version)


def _take(layout: Layout, version: str, content: bytes) -> Lock | AipodError:
    path = layout.writer(version)
    while True:
        # Taken and signed under the version's lock, so that who is refused there reads the signature of the holder.
        with revisions.locked(layout, version, create=True):
            trash = adoption.settle(layout, version)
            if trash is None:
                if not path.exists():
                    disk.write_in_place(path, b"")
                lock = try_acquire(path, exclusive=True)
                if lock is None:
                    return _busy(layout, version)
                try:
                    disk.write_in_place(path, content)
                except BaseException:
                    lock.release()
                    raise
                return lock
        disk.remove_tree(trash)


def _busy(layout: Layout, version: str) -> AipodError:
    try:
        holder = json.loads(layout.writer(version).read_bytes())
        kind, job = holder["kind"], holder["job"]
    except (OSError, ValueError, KeyError, TypeError):
        kind, job = "writer", None
    if kind == "train" and isinstance(job, str):
        return TrainingInProgress(version, job)
    return Conflict(version, f"another {kind} of it is running")


def tidy(layout: Layout, version: str) -> None:
    """Remove the home of a version that has no revision and no writer."""
    if revisions.numbers(layout, version):
        return
    with revisions.locked(layout, version):
        if revisions.numbers(layout, version) or adoption.unfinished(layout, version):
            return
        path = layout.writer(version)
        lock = try_acquire(path, exclusive=True) if path.exists() else None
        if lock is None and path.exists():
            return
        for leftover in sorted(layout.home(version).glob(".*")):
            disk.remove(leftover)
        if lock is not None:
            lock.release()
        disk.remove_dir(layout.home(version))

"""The published states of a version: what is there, which is live, and the steps that change it.

Every function that changes something is called with the version's lock, which is an exclusive flock on its home. The
order of the steps is what makes a crash harmless: a revision is whole and on the disk before it has its number, and
it has its number before the link names it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from aipod.errors import StorageError
from aipod.model import disk
from aipod.model.layout import Layout, link_text, linked
from aipod.model.locks import Lock, acquire, try_acquire

__all__ = [
    "collect",
    "live",
    "lock_all",
    "locked",
    "make_live",
    "next_number",
    "numbers",
    "place",
    "release_all",
    "to_trash",
]


@contextmanager
def locked(layout: Layout, version: str, *, create: bool = False) -> Iterator[None]:
    """Hold the version's lock.

    Args:
        create: Make its home if there is none; it may also vanish and come back while we wait.

    Raises:
        FileNotFoundError: There is none.
    """
    home = layout.home(version)
    while True:
        if create and disk.create_dir(home):
            disk.sync_dir(layout.revisions)
        try:
            lock = acquire(home, exclusive=True)
        except FileNotFoundError:
            if not create:
                raise
        else:
            break
    with lock:
        yield


def numbers(layout: Layout, version: str) -> list[int]:
    """The numbers of all whole revisions, live or not, ascending. Needs no lock."""
    try:
        with os.scandir(layout.home(version)) as entries:
            found = [int(e.name) for e in entries if e.name.isdecimal() and e.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    return sorted(found)


def live(layout: Layout, version: str) -> int | None:
    """The number that the link names; ``None`` if there is no link. Needs no lock.

    Raises:
        IsADirectoryError: There is a real directory in its place, to be adopted.
        StorageError: The link is not ours; it is not followed.
    """
    path = layout.link(version)
    try:
        text = os.readlink(path)
    except FileNotFoundError:
        return None
    except OSError:
        if path.is_dir():
            raise IsADirectoryError(str(path)) from None
        raise StorageError(_finding(version), "a file lies in its place; move it away") from None
    target = linked(text)
    if target is None or target[0] != version:
        raise StorageError(
            _finding(version),
            "its link leads elsewhere than to a revision of its own; put the directory itself there, or use an alias",
        )
    return target[1]


def _finding(version: str) -> str:
    return f"finding version {version!r}"


def next_number(layout: Layout, version: str) -> int:
    """The next revision's number. As the newest is never collected, none is given twice while a version lives.

    The link counts too: a directory that somebody removed by hand must not lend its number to other data.
    """
    named = 0
    with suppress(IsADirectoryError, StorageError):  # to be adopted, or not ours
        named = live(layout, version) or 0
    return max([named, *numbers(layout, version)]) + 1


def place(layout: Layout, version: str, directory: Path, number: int) -> None:
    """Give a finished directory its number; it is not live yet."""
    target = layout.revision(version, number)
    if target.is_symlink():  # what a killed adoption left
        disk.remove(target)
    disk.rename(directory, target)
    disk.sync_dir(layout.home(version))


def make_live(layout: Layout, version: str, number: int) -> None:
    """Point the link at a revision that is there."""
    disk.link(layout.link(version), link_text(version, number), layout.next_link(version))
    disk.sync_dir(layout.models)


def collect(layout: Layout, version: str, keep: int) -> tuple[list[int], list[Path]]:
    """Take away revisions that are neither among the newest ``keep``, nor live, nor leased by anybody.

    Returns:
        Their numbers, and the directories that the caller removes without the lock.
    """
    present = numbers(layout, version)
    kept = {*present[-keep:], live(layout, version)}
    gone: list[int] = []
    trash: list[Path] = []
    for number in present:
        if number in kept:
            continue
        lock = try_acquire(layout.revision(version, number), exclusive=True)
        if lock is not None:
            with lock:
                trash.append(to_trash(layout, layout.revision(version, number)))
            gone.append(number)
    if gone:
        disk.sync_dir(layout.home(version))
    return gone, trash


def lock_all(layout: Layout, version: str) -> list[Lock] | None:
    """Lock every revision exclusively; ``None``, with none locked, if somebody uses one."""
    locks: list[Lock] = []
    for number in numbers(layout, version):
        lock = try_acquire(layout.revision(version, number), exclusive=True)
        if lock is None:
            release_all(locks)
            return None
        locks.append(lock)
    return locks


def release_all(locks: list[Lock]) -> None:
    for lock in locks:
        lock.release()


def to_trash(layout: Layout, directory: Path) -> Path:
    """Take a directory out of the world in one step. Where it lies then, whoever opens the store next may remove it."""
    target = layout.staging / f".trash-{token_hex(8)}"
    disk.rename(directory, target)
    return target

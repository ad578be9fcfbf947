"""What opening a store does: make the layout, refuse what cannot work, and finish or remove what a crash left.

Several processes may open one data path, also while others work on it: what has a living owner is locked, and left
alone.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from contextlib import suppress
from pathlib import Path

from aipod.errors import BadVersionName, StorageError
from aipod.model import adoption, disk, revisions, staging, writers
from aipod.model.jobs import Jobs
from aipod.model.layout import Layout, linked
from aipod.model.locks import acquire
from aipod.model.names import check_version

__all__ = ["open_layout"]

logger = logging.getLogger("aipod.store")

LAYOUT_VERSION = 1


def open_layout(layout: Layout, jobs: Jobs) -> None:
    """
    Raises:
        StorageError: The data path cannot be made or written, or a newer AIPOD wrote it.
    """
    layout.root.mkdir(parents=True, exist_ok=True)
    with acquire(layout.root, exclusive=True):
        _check_format(layout)
        for directory in (layout.models, layout.revisions, layout.staging, layout.jobs):
            disk.create_dir(directory)
            # A full disk can still be served from; a read-only one is refused now, not at the first write.
            if not os.access(directory, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(directory))
        if not layout.format.exists():
            disk.write_file(layout.format, json.dumps({"layout": LAYOUT_VERSION}).encode())
            disk.sync_dir(layout.root)
        for path in (layout.format, layout.aliases):
            disk.remove(disk.temporary_name(path))
        staging.sweep(layout, jobs.staged())
        _sweep_links(layout)
        for version in sorted({*_names(layout.revisions), *_names(layout.models)}):
            _finish(layout, version)
        jobs.interrupt_dead()


def settle(layout: Layout, version: str) -> None:
    """Finish what was begun with a version, or adopt a directory of 1.0."""
    link = layout.link(version)
    with (
        suppress(FileNotFoundError),  # somebody else finished its deletion
        revisions.locked(layout, version, create=link.is_dir() and not link.is_symlink()),
    ):
        trash = adoption.settle(layout, version)
        if trash is not None:
            disk.remove_tree(trash)


def _finish(layout: Layout, version: str) -> None:
    try:
        settle(layout, version)
        if layout.home(version).is_dir():
            writers.tidy(layout, version)
    except OSError as error:
        # One version that cannot be mended is no reason to serve none; whoever asks for it is told.
        logger.warning("version %s was not recovered: %s", version, error)


def _check_format(layout: Layout) -> None:
    try:
        found = json.loads(layout.format.read_bytes())["layout"]
    except FileNotFoundError:
        return  # a new path, or one of 1.0
    except (ValueError, KeyError, TypeError):
        raise StorageError(
            "opening the data path", "its format.json cannot be read; restore it, or remove it"
        ) from None
    if not isinstance(found, int) or found > LAYOUT_VERSION:
        reason = (
            f"a newer AIPOD wrote it (layout {found}, this one knows {LAYOUT_VERSION}); use that one, or another path"
        )
        raise StorageError("opening the data path", reason)


def _sweep_links(layout: Layout) -> None:
    """Links that were made and not put in their place."""
    for path in sorted(layout.models.glob(".*")):
        if not path.is_symlink() or linked(os.readlink(path)) is None:
            continue
        home = layout.home(path.name[1:])
        if home.is_dir():
            with acquire(home, exclusive=True):
                disk.remove(path)
        else:
            disk.remove(path)


def _names(directory: Path) -> list[str]:
    """The entries that are versions' names; others are left alone."""
    names = []
    for name in sorted(os.listdir(directory)):
        if name.startswith("."):
            continue
        try:
            names.append(check_version(name))
        except BadVersionName as error:
            logger.warning("left alone in %s: %s", directory.name, error)
    return names

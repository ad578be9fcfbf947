"""How a directory that 1.0 wrote becomes revision 1, and how any operation of two steps is finished after a crash.

``models/v`` is a real directory. It shall be ``revisions/v/1``, and ``models/v`` a link to that. Where the system
lets two names swap, this is one step: the link is made under the other name first, and then the names are exchanged;
the text of the link is right only in its final place. Elsewhere the number is written to ``.adopting``, which is the
promise to finish.

All of this is called with the version's lock.
"""

from __future__ import annotations

from pathlib import Path

from aipod.model import disk, manifest, revisions
from aipod.model.layout import Layout, link_text

__all__ = ["finish_deletion", "settle", "unfinished"]


def unfinished(layout: Layout, version: str) -> bool:
    """Whether :func:`settle` has something to do; needs no lock."""
    link = layout.link(version)
    if link.is_dir() and not link.is_symlink():
        return True
    return layout.adopting(version).exists() or layout.deleting(version).exists()


def settle(layout: Layout, version: str) -> Path | None:
    """Finish what was begun, and adopt what 1.0 wrote. Doing it again changes nothing.

    Returns:
        What the caller has to remove once it has let go of the lock.
    """
    if layout.deleting(version).exists():
        return finish_deletion(layout, version)
    journals = (layout.adopting(version), layout.deleting(version))
    for leftover in (_next_link(layout, version), *map(disk.temporary_name, journals)):
        disk.remove(leftover)
    if layout.adopting(version).exists():
        _finish_move(layout, version)
    link = layout.link(version)
    if link.is_dir() and not link.is_symlink():
        _adopt(layout, version)
    return None


def finish_deletion(layout: Layout, version: str) -> Path:
    """The link goes first, so that no reader is sent to a home that is half gone."""
    if layout.link(version).is_symlink():
        disk.remove(layout.link(version))
        disk.sync_dir(layout.models)
    trash = revisions.to_trash(layout, layout.home(version))
    disk.sync_dir(layout.revisions)
    return trash


def _next_link(layout: Layout, version: str) -> Path:
    return layout.home(version) / ".link"


def _adopt(layout: Layout, version: str) -> None:
    directory = layout.link(version)
    number = revisions.next_number(layout, version)
    entry = manifest.adopted(directory, version)
    manifest.write(directory, {**entry, "revision": number})
    target = layout.revision(version, number)
    disk.link(target, link_text(version, number), _next_link(layout, version))
    if disk.exchange(directory, target):
        disk.sync_dir(layout.home(version))
        disk.sync_dir(layout.models)
        return
    disk.remove(target)
    disk.write_file(layout.adopting(version), str(number).encode())
    disk.sync_dir(layout.home(version))
    _finish_move(layout, version)


def _finish_move(layout: Layout, version: str) -> None:
    journal = layout.adopting(version)
    number = int(journal.read_bytes())
    directory, target = layout.link(version), layout.revision(version, number)
    if directory.is_dir() and not directory.is_symlink() and not target.exists():
        disk.rename(directory, target)
        disk.sync_dir(layout.home(version))
    if target.is_dir():
        revisions.make_live(layout, version, number)
    disk.remove(journal)
    disk.sync_dir(layout.home(version))

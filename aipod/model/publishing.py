"""How a staging directory becomes the live revision of its version.

What takes long, reading and syncing every file, is done before the version's lock is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aipod.errors import StorageError
from aipod.model import disk, jsontext, manifest, revisions
from aipod.model.base import MODEL_INFO_NAME
from aipod.model.layout import Layout
from aipod.model.staging import Staging

__all__ = ["publish"]


def publish(layout: Layout, staging: Staging, about: manifest.About) -> int:
    """Describe it, put it on the disk, give it a number, and point the link at it.

    Raises:
        StorageError: It was published or discarded before, or the model removed it.
    """
    version, directory = staging.version, staging.directory
    if not staging.open or not directory.is_dir():
        raise StorageError(f"publishing version {version!r}", "its staging directory is gone; start again")
    if about.origin == "initialize":
        _write_info(staging, about.parameters)
    entry = manifest.build(directory, about)
    disk.sync_tree(directory)
    with revisions.locked(layout, version, create=True):
        number = revisions.next_number(layout, version)
        manifest.write(directory, {**entry, "revision": number})
        disk.sync_dir(directory)
        revisions.place(layout, version, directory, number)
        # From here on it is a revision, which readers lock.
        staging.let_go()
        revisions.make_live(layout, version, number)
    return number


def _write_info(staging: Staging, parameters: Mapping[str, Any]) -> None:
    """A model whose own ``initialize`` keeps nothing is initialized all the same, with what JSON can hold of it."""
    path = staging.directory / MODEL_INFO_NAME
    if not path.exists():
        text = jsontext.dumps(jsontext.keep_plain(parameters), "parameter", MODEL_INFO_NAME, indent=4)
        disk.write_file(path, text.encode())

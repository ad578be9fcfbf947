"""One revision as one zip file: ``manifest.json`` and, below ``files/``, everything that the manifest names.

An archive comes from anywhere, so nothing in it is believed: every member is named by the manifest and every file of
the manifest is a member, names stay inside, sizes are what was declared, and digests are what was promised.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO

from aipod.errors import InvalidArgument, StorageError, StorageFull
from aipod.model import manifest

__all__ = ["read", "write"]

MAX_MANIFEST_BYTES = 16 * 1024 * 1024

_MANIFEST = "manifest.json"
_FILES = "files/"
_CHUNK_BYTES = 1024 * 1024


def write(directory: Path, version: str, number: int, target: Path | BinaryIO) -> None:
    """Write a revision out, checking it against its manifest on the way; a link becomes the file that it leads to.

    Raises:
        StorageError: A file is no longer what was published, or a link leads out of the revision or to a directory.
    """
    if isinstance(target, Path):
        partial = target.with_name(f".{target.name}.part")
        try:
            with partial.open("wb") as file:
                write(directory, version, number, file)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return
    entry = manifest.read(directory) or manifest.adopted(directory, version)
    # Weights do not compress, and a reader can map what is stored as it is.
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as package:
        files = {name: _add(package, directory, name, known) for name, known in entry["files"].items()}
        package.writestr(_MANIFEST, json.dumps({**entry, "revision": number, "files": files}, indent=1))


def _add(package: zipfile.ZipFile, directory: Path, name: str, known: Mapping[str, Any]) -> dict[str, Any]:
    path = directory / name
    if "link" in known and (not path.is_file() or directory.resolve() not in path.resolve().parents):
        raise StorageError(
            "exporting", f"the link {name} does not lead to a file of the revision; put a file in its place"
        )
    try:
        name.encode()
    except UnicodeEncodeError:
        raise StorageError("exporting", f"the name {name!a} is no UTF-8; rename the file in the model's code") from None
    member = zipfile.ZipInfo(_FILES + name)
    with path.open("rb") as source, package.open(member, "w", force_zip64=True) as out:
        actual = _pump(source, out, None)
    if "sha256" in known and actual != known:
        raise StorageError("exporting", f"{name} is not what was published; export another revision")
    return actual


def read(source: Path | BinaryIO, directory: Path) -> dict[str, Any]:
    """Unpack an archive into an empty directory.

    Returns:
        Its manifest.

    Raises:
        InvalidArgument: It is damaged, or not what it says it is.
        StorageFull: It would not fit.
    """
    with _refusing(), zipfile.ZipFile(source) as package:
        members = _members(package)
        entry = _read_manifest(package, members.pop(_MANIFEST, None))
        files: dict[str, Any] = entry["files"]
        if {_FILES + name for name in files} != members.keys():
            raise InvalidArgument("the archive holds other files than its manifest names; export it again")
        needed = _check(files, members)
        free = shutil.disk_usage(directory).free
        if needed > free:
            raise StorageFull("importing an archive", needed - free)
        for name, promised in files.items():
            _extract(package, members[_FILES + name], directory / name, promised)
    return entry


@contextmanager
def _refusing() -> Iterator[None]:
    """Whatever zipfile makes of bytes that somebody tampered with is the archive's fault."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise InvalidArgument(f"the archive cannot be read ({error}); export it again") from None


def _members(package: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for info in package.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if info.filename in members or info.is_dir() or kind not in (0, stat.S_IFREG):
            raise InvalidArgument(f"the archive's member {info.filename[:64]!r} is no plain file, or is there twice")
        members[info.filename] = info
    return members


def _read_manifest(package: zipfile.ZipFile, info: zipfile.ZipInfo | None) -> dict[str, Any]:
    if info is None or info.file_size > MAX_MANIFEST_BYTES:
        raise InvalidArgument(
            "the archive has no manifest.json of a sensible size; only what AIPOD exported can be imported"
        )
    try:
        with package.open(info) as file:
            entry = json.loads(file.read(MAX_MANIFEST_BYTES + 1))
    except RecursionError:
        entry = None
    if not manifest.is_manifest(entry) or not isinstance(entry.get("parameters"), (dict, type(None))):
        raise InvalidArgument("the archive's manifest.json is not one of AIPOD; only what it exported can be imported")
    return dict(entry)


def _check(files: Mapping[str, Any], members: Mapping[str, zipfile.ZipInfo]) -> int:
    """Hold names and declared sizes against each other; returns the bytes of all files."""
    parents = {parent for name in files for parent in PurePosixPath(name).parents}
    for name, promised in files.items():
        path = PurePosixPath(name)
        unsafe = path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name or str(path) != name
        if unsafe or path in parents:
            raise InvalidArgument(f"the archive's file {name[:64]!r} does not stay in a directory of its own")
        if not isinstance(promised.get("sha256"), str) or promised.get("bytes") != members[_FILES + name].file_size:
            raise InvalidArgument(f"the archive's file {name[:64]!r} has not the size that its manifest declares")
    return sum(promised["bytes"] for promised in files.values())


def _extract(package: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, promised: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with package.open(info) as source, path.open("xb") as out:
        # Never more than promised is written, so that a bomb is seen and not unpacked.
        actual = _pump(source, out, promised["bytes"])
    if actual != {"bytes": promised["bytes"], "sha256": promised["sha256"]}:
        raise InvalidArgument(f"the archive's file {info.filename[:64]!r} is damaged; export it again")


def _pump(source: IO[bytes], out: IO[bytes], most: int | None) -> dict[str, Any]:
    total, sha256 = 0, hashlib.sha256()
    while chunk := source.read(_CHUNK_BYTES):
        total += len(chunk)
        if most is not None and total > most:
            break
        sha256.update(chunk)
        out.write(chunk)
    return {"bytes": total, "sha256": sha256.hexdigest()}

"""What a revision says of itself: a JSON file in its directory, written last and never changed.

``files`` names what was published, with sizes and SHA-256, so that a copy, an archive or a disk can be checked. A
directory that 1.0 wrote is adopted without reading it through, so its entries have no digest. Links are named with
their text.

It is called ``manifest.json``; if the model has a file of that name, ours is ``manifest.aipod.json``, which is
reserved.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path, PurePath
from typing import Any

from aipod.model import disk, jsontext

__all__ = [
    "FORMAT",
    "About",
    "adopted",
    "build",
    "damage",
    "is_manifest",
    "marks",
    "names_any",
    "now",
    "own_name",
    "read",
    "size_bytes",
    "write",
]

FORMAT = 1
MAX_RESULT_CHARS = 65536

_NAME = "manifest.json"
_OTHER_NAME = "manifest.aipod.json"
# What a killed adoption leaves in a directory of 1.0.
_UNFINISHED = tuple(disk.temporary_name(Path(name)).name for name in (_NAME, _OTHER_NAME))
_KEY = "aipod_manifest"
_HASH_BYTES = 1024 * 1024


def now() -> str:
    """This instant, as everything on disk writes it: UTC, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")


@dataclass(frozen=True)
class About:
    """What a revision's files do not say.

    Attributes:
        origin: ``initialize``, ``train``, ``adopted`` or ``imported``.
        parameters: What it was made with; what JSON cannot hold is left out.
        job: The id of what made it.
        parent: The revision that it was made from.
        result: What the model returned; left out if JSON cannot hold it, or it is long.
        metrics: The numbers among what it returned.
    """

    version: str
    origin: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    job: str | None = None
    parent: int | None = None
    result: object = None
    metrics: Mapping[str, float] = field(default_factory=dict)


def build(directory: Path, about: About, digests: bool = True) -> dict[str, Any]:
    """Describe what is in ``directory``.

    Args:
        digests: Whether to read every file.
    """
    kept = jsontext.keep_plain({"result": about.result})
    if len(json.dumps(kept)) > MAX_RESULT_CHARS:
        kept = {}
    return {
        _KEY: FORMAT,
        "version": about.version,
        "revision": None,
        "parent": about.parent,
        "created": now(),
        "origin": about.origin,
        "job": about.job,
        "parameters": jsontext.keep_plain(about.parameters),
        "result": kept.get("result"),
        "metrics": dict(about.metrics),
        "files": {name: _describe(directory / name, digests) for name in _names(directory)},
    }


def adopted(directory: Path, version: str) -> dict[str, Any]:
    """Describe a directory that AIPOD did not publish; quickly, since nobody waits for a look into every file."""
    return build(directory, About(version, "adopted"), digests=False)


def write(directory: Path, manifest: Mapping[str, Any]) -> None:
    """Put the manifest into its directory, beside a file of the model's that has its name."""
    name = own_name(directory) or (_OTHER_NAME if os.path.lexists(directory / _NAME) else _NAME)
    disk.write_file(directory / name, json.dumps(manifest, indent=1).encode())


def read(directory: Path) -> dict[str, Any] | None:
    """The manifest; ``None`` if there is none that can be read, as in a directory that somebody restored by hand."""
    for name in (_OTHER_NAME, _NAME):
        try:
            manifest = json.loads((directory / name).read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if is_manifest(manifest):
            return dict(manifest)
    return None


def is_manifest(value: object) -> bool:
    """Whether a value has the shape that the readers of a manifest rely on; an archive may hold anything."""
    if not isinstance(value, dict) or not isinstance(value.get(_KEY), int) or not isinstance(value.get("files"), dict):
        return False
    return all(isinstance(entry, dict) for entry in value["files"].values())


def own_name(directory: Path) -> str | None:
    """The name under which the directory holds our manifest, ``None`` if it does not."""
    if (directory / _OTHER_NAME).is_file():
        return _OTHER_NAME
    return _NAME if read(directory) is not None else None


def size_bytes(manifest: Mapping[str, Any]) -> int:
    """The size of what was published."""
    sizes = (entry.get("bytes", 0) for entry in manifest["files"].values())
    return sum(size for size in sizes if isinstance(size, int))


def names_any(directory: Path, part: PurePath) -> bool:
    """Whether ``part`` of a revision is, or holds, something that it was published with."""
    manifest = read(directory)
    if manifest is None:
        return True
    return any(PurePath(name) == part or part in PurePath(name).parents for name in manifest["files"])


def damage(directory: Path) -> list[str]:
    """What is no longer as it was published, one sentence each; files that the model added since are not."""
    manifest = read(directory)
    if manifest is None:
        return ["its manifest is gone"]
    problems = []
    for name, entry in manifest["files"].items():
        try:
            actual = _describe(directory / name, "sha256" in entry)
        except OSError:
            problems.append(f"{name} cannot be read")
        else:
            if actual != entry:
                problems.append(f"{name} is not what was published")
    return problems


def marks(directory: Path) -> tuple[object, ...]:
    """A value that is another when a file has come, gone or changed; cheap, since nothing is read."""
    found: list[object] = []
    for parent, _, files in os.walk(directory):
        for name in sorted(files):
            with suppress(FileNotFoundError):
                info = os.lstat(os.path.join(parent, name))
                found.append((parent, name, info.st_size, info.st_mtime_ns))
    return tuple(found)


def _names(directory: Path) -> Iterator[str]:
    """Everything but directories, sockets and pipes, and but our own manifest; with ``/`` between components."""
    own = own_name(directory)
    for parent, directories, files in os.walk(directory):
        directories.sort()
        links = [name for name in directories if os.path.islink(os.path.join(parent, name))]
        for name in sorted(files + links):
            path = Path(parent, name)
            relative = path.relative_to(directory).as_posix()
            mode = path.lstat().st_mode
            if relative not in (own, *_UNFINISHED) and (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
                yield relative


def _describe(path: Path, digest: bool) -> dict[str, Any]:
    if path.is_symlink():
        return {"link": os.readlink(path)}
    if not digest:
        return {"bytes": path.stat().st_size}
    total, sha256 = 0, hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_BYTES):
            total += len(chunk)
            sha256.update(chunk)
    return {"bytes": total, "sha256": sha256.hexdigest()}

"""The names of everything under a data path, and nothing that touches them.

::

    models/<version>               link to the live revision; a real directory was written by 1.0, or by a class alone
    models/.<version>              the link that is about to replace it
    revisions/<version>/<n>/       one published state
    revisions/<version>/.writer    locked for the whole of an initialize or a train
    revisions/<version>/.adopting  the number that a 1.0 directory is being moved to, where that takes two steps
    revisions/<version>/.deleting  the version is going away
    staging/<job>/                 what an initialize or a train is writing; locked by its owner
    staging/.scratch-<hex>/        for an instance without data; locked by its owner
    staging/.trash-<hex>/          what is being removed
    jobs/<job>.json, <job>.jsonl   state and records of a training run; the records are locked while it runs
    aliases.json                   alias -> version
    format.json                    the version of this layout
"""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["MODELS", "REVISIONS", "Layout", "is_revision", "link_text", "linked"]

MODELS = "models"
REVISIONS = "revisions"

_LINK = re.compile(r"\.\./revisions/([^/]+)/([1-9][0-9]*)")


def link_text(version: str, number: int) -> str:
    """What ``models/<version>`` says; relative, so that a data path can be moved or mounted elsewhere."""
    return f"../{REVISIONS}/{version}/{number}"


def linked(text: str) -> tuple[str, int] | None:
    """The version and the number that a link names; ``None`` if the link is not one of ours."""
    match = _LINK.fullmatch(text)
    return (match[1], int(match[2])) if match else None


def is_revision(directory: Path) -> bool:
    """Whether a real path looks like ``…/revisions/<version>/<n>``."""
    return directory.name.isdigit() and directory.parent.parent.name == REVISIONS


class Layout:
    """The paths under one root. Every version or job that it is given has been checked before."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.models = root / MODELS
        self.revisions = root / REVISIONS
        self.staging = root / "staging"
        self.jobs = root / "jobs"
        self.aliases = root / "aliases.json"
        self.format = root / "format.json"

    def link(self, version: str) -> Path:
        return self.models / version

    def next_link(self, version: str) -> Path:
        return self.models / f".{version}"

    def home(self, version: str) -> Path:
        """The directory of all revisions of a version; its flock is the version's lock."""
        return self.revisions / version

    def revision(self, version: str, number: int) -> Path:
        return self.revisions / version / str(number)

    def writer(self, version: str) -> Path:
        return self.revisions / version / ".writer"

    def adopting(self, version: str) -> Path:
        return self.revisions / version / ".adopting"

    def deleting(self, version: str) -> Path:
        return self.revisions / version / ".deleting"

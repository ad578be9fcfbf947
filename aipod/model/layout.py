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
    jobs/<job>.json, <job>.jsonl   state and records of a training run; the records are locked by whose job it is
    jobs/<job>.call, <job>.result  what ``train`` was called with, until the job is over; what it returned
    jobs/<job>.out                 what the model printed
    aliases.json                   alias -> version
    format.json                    the version of this layout
"""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["JOB_STAMP", "MODELS", "REVISIONS", "Layout", "is_revision", "job_of", "link_text", "linked", "version_of"]

MODELS = "models"
REVISIONS = "revisions"

JOB_STAMP = "%Y%m%dT%H%M%S%fZ"

_JOBS = "jobs"
_JOB = re.compile(r"(?P<version>[^@/]+)@\d{8}T\d{12}Z-[0-9a-f]{4}")
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


def version_of(job_id: str) -> str | None:
    """The version that a job's id names; None if it is no job's id."""
    match = _JOB.fullmatch(job_id)
    return match["version"] if match else None


def job_of(log_path: Path) -> str:
    """The id of the job whose records lie there; ``""`` if they are not a job's."""
    is_job = log_path.parent.name == _JOBS and version_of(log_path.stem) is not None
    return log_path.stem if is_job else ""


class Layout:
    """The paths under one root. Every version or job that it is given has been checked before."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.models = root / MODELS
        self.revisions = root / REVISIONS
        self.staging = root / "staging"
        self.jobs = root / _JOBS
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

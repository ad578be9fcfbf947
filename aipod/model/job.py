"""What is known of one training run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from aipod.model import jsontext

__all__ = ["Job", "JobState", "job_fields", "metrics_of", "read_job"]

JobState = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled", "interrupted"]


@dataclass(frozen=True)
class Job:
    """One training run, as its file says it.

    Attributes:
        id: Sorts by time, names the version, and is a file name.
        created, started, ended: UTC, ISO 8601; ``""`` for what has not happened yet.
        reason: Why it did not succeed.
        revision: The number that it published, if it did.
        parent: The revision that it started from; None where there was none.
        request_id: What whoever asked for it named it; ``""`` if nothing.
        parameters: What ``train`` was called with, as far as JSON can hold it.
        metrics: The numbers of what ``train`` returned.
        attempts: How often in a row it began and brought no new record.
        records: How many records it had when it last began.
        resumable: Whether it goes on by itself after an interruption, from what its directory holds.
        error: What it failed with, as :func:`aipod.errors.describe` has it.
    """

    id: str
    version: str
    kind: str
    state: JobState
    created: str = ""
    started: str = ""
    ended: str = ""
    reason: str = ""
    revision: int | None = None
    parent: int | None = None
    request_id: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    attempts: int = 0
    records: int = 0
    resumable: bool = False
    error: Mapping[str, Any] | None = None

    @property
    def is_active(self) -> bool:
        """Whether somebody holds it, or ought to: it waits for its turn, or it runs."""
        return self.state in ("queued", "running", "cancelling")

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it. An interrupted one that is resumable goes on when a server is there."""
        return not self.is_active and not (self.state == "interrupted" and self.resumable)


def job_fields(job: Job) -> dict[str, Any]:
    """A job as plain values, for a wire."""
    return asdict(job)


def read_job(data: Mapping[str, Any]) -> Job:
    """A job from what its file says; an older AIPOD wrote fewer fields, a newer one may have written more.

    Raises:
        TypeError: It is no such file.
    """
    job = Job(**{one.name: data[one.name] for one in fields(Job) if one.name in data})
    return job if job.created else replace(job, created=job.started)


def metrics_of(result: object) -> dict[str, float]:
    """The numbers among what ``train`` returned, if that is a dict."""
    if not isinstance(result, dict):
        return {}
    names = {name: value for name, value in result.items() if isinstance(name, str)}
    return {
        name: value
        for name, value in jsontext.keep_plain(names).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }

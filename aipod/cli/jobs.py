"""``aipod jobs``: the training jobs of a server, and how each stands."""

from __future__ import annotations

from datetime import datetime, timezone

import click

from aipod.cli.client import address_option, connected, json_option
from aipod.cli.json_text import to_json
from aipod.cli.records import metrics_text, progress_of, reason_text
from aipod.cli.text import cut, duration, moment, table
from aipod.errors import JobNotFound
from aipod.rpc.client import AIClient, JobInfo

__all__ = ["jobs"]

_HEAD = ("JOB", "STATE", "DONE", "CREATED", "TOOK", "REVISION", "RESULT")
_RESULT_COLUMNS = 60
_RUNS = frozenset({"running", "cancelling"})


@click.command()
@address_option
@click.option("-v", "--version", help="Those of this version alone.")
@json_option
def jobs(address: str | None, version: str | None, as_json: bool) -> None:
    """List training jobs, the oldest first.

    \b
      aipod jobs
      aipod jobs -v v1
      aipod jobs --json | jq -r '.[] | select(.state == "running") | .id'

    A job is queued, running, cancelling, succeeded, failed, cancelled or interrupted. Of each version the server
    remembers the latest. With --json there is one array of objects, with all that is known of each: its parameters,
    its whole reason, its times in UTC.
    """
    with connected(address, version or "default") as client:
        found = [_with_progress(client, job) for job in client.jobs(version)]
    if as_json:
        click.echo(to_json([job._asdict() for job in found]).encode())
    else:
        click.echo(table(_HEAD, map(_row, found)) if found else "no training jobs")


def _with_progress(client: AIClient, job: JobInfo) -> JobInfo:
    """In a list there are no records."""
    if job.state not in _RUNS:
        return job
    try:
        return client.job(job.id).info()
    except JobNotFound:
        return job


def _row(job: JobInfo) -> tuple[str, ...]:
    progress = progress_of(job.latest) if job.latest is not None else None
    return (
        job.id,
        job.state,
        "" if progress is None else f"{progress:.0f}%",
        moment(job.created),
        _took(job),
        str(job.revision) if job.revision else "",
        cut(reason_text(job) or metrics_text(job.metrics), _RESULT_COLUMNS),
    )


def _took(job: JobInfo) -> str:
    if not job.started:
        return ""
    began = datetime.fromisoformat(job.started)
    ended = datetime.fromisoformat(job.ended) if job.ended else datetime.now(timezone.utc)
    return duration((ended - began).total_seconds())

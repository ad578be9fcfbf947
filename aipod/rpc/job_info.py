"""Jobs as the wire has them, on the server's side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aipod.model.job import Job
from aipod.rpc.v1 import jobs_pb2 as pb

__all__ = ["job_info", "json_object"]

_AS_THEY_ARE = (
    "id",
    "version",
    "kind",
    "state",
    "created",
    "started",
    "ended",
    "reason",
    "request_id",
    "attempts",
    "resumable",
)


def job_info(job: Job) -> pb.JobInfo:
    """All that its file says; not its records, and not how it does."""
    return pb.JobInfo(
        **{name: getattr(job, name) for name in _AS_THEY_ARE},
        revision=job.revision or 0,
        parent=job.parent or 0,
        parameters=json_object(job.parameters),
        metrics=json_object(job.metrics),
    )


def json_object(fields: Mapping[str, Any]) -> bytes:
    """JSON in ASCII, so that half a surrogate pair in somebody's log does no harm."""
    return json.dumps(dict(fields)).encode()

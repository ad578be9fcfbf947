"""Jobs on the client's side: what is asked about one, how far it was followed, and when to try again.

Nothing here sends or waits. The two kinds of :mod:`aipod.rpc.training_job` do, each in its own way.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

from google.protobuf.message import DecodeError, Message

from aipod.errors import (
    AipodError,
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    SerializationError,
    TrainingFailed,
    Unavailable,
)
from aipod.rpc.admin_client import ServerInfo
from aipod.rpc.calls import Attempts, ClientClosed, Timings, decode, raising
from aipod.rpc.connection import BaseConnection
from aipod.rpc.v1 import jobs_pb2 as pb

__all__ = ["Following", "JobInfo", "JobRequest", "JobRequests", "Record", "Starting", "ended_well", "timings"]

_log = logging.getLogger("aipod.client")

# A stream that follows a job is opened anew that often: one that died without a word, on the far side of a proxy, is
# found out then.
_STREAM_SECONDS = 300.0
_FURTHEST = 2**63 - 1
_OVER = frozenset({"succeeded", "failed", "cancelled"})

Record = dict[str, Any]
R = TypeVar("R")
C = TypeVar("C", bound=BaseConnection)


class JobInfo(NamedTuple):
    """What is known of a job.

    Attributes:
        state: queued, running, cancelling, succeeded, failed, cancelled or interrupted.
        created, started, ended: UTC in ISO 8601; ``""`` for what has not happened yet.
        reason: Why it did not succeed.
        revision: That it published; 0 if none.
        parent: The revision that it began with; 0 if none.
        request_id: What its caller called it.
        attempts: How often in a row it began and brought no new record.
        resumable: Whether it goes on by itself after an interruption.
        parameters: The arguments, as far as JSON can hold them.
        metrics: The numbers in what the model returned.
        latest: The latest record; None if there is none, or it was one of a list.
        heartbeat: The last sign of life, in seconds since the epoch; 0.0 if unknown.
    """

    id: str
    version: str
    kind: str
    state: str
    created: str
    started: str
    ended: str
    reason: str
    revision: int
    parent: int
    request_id: str
    attempts: int
    resumable: bool
    parameters: dict[str, Any]
    metrics: dict[str, float]
    latest: Record | None
    heartbeat: float

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it; an interrupted job that is resumable goes on."""
        return self.state in _OVER or (self.state == "interrupted" and not self.resumable)


@dataclass(frozen=True)
class JobRequest(Generic[R]):
    """One verb's request, and what reads its reply."""

    verb: str
    message: Message
    read: Callable[[bytes], R]


class JobRequests:
    """What is sent for each verb."""

    @staticmethod
    def get(job_id: str) -> JobRequest[JobInfo]:
        return JobRequest("Get", pb.JobRequest(id=_id(job_id)), _read_info)

    @staticmethod
    def jobs(version: str | None) -> JobRequest[tuple[JobInfo, ...]]:
        return JobRequest("List", pb.ListRequest(version=version), _read_list)

    @staticmethod
    def cancel(job_id: str) -> JobRequest[JobInfo]:
        return JobRequest("Cancel", pb.JobRequest(id=job_id), _read_info)

    @staticmethod
    def stop(job_id: str) -> JobRequest[JobInfo]:
        return JobRequest("Stop", pb.JobRequest(id=job_id), _read_info)

    @staticmethod
    def result(job_id: str) -> JobRequest[Any]:
        return JobRequest("Result", pb.JobRequest(id=job_id), decode)

    @staticmethod
    def output(job_id: str) -> JobRequest[str]:
        return JobRequest("Output", pb.JobRequest(id=job_id), lambda data: str(pb.JobOutput.FromString(data).text))


class Following:
    """How far a job was followed: each record once and in order, over any number of streams.

    A stream that is lost is opened again, after pauses that grow, as long as there is time.

    Args:
        job_id: The job.
        timeout: Seconds; None for ever.
        after: The ``seq`` of the last record that is known.
        once: Whether to end with what is there now.
        records: Whether there is any interest in them.
        on_state: Called with how the job stands, before the records that came with it.
    """

    def __init__(
        self,
        job_id: str,
        timeout: float | None,
        after: int = 0,
        once: bool = False,
        records: bool = True,
        on_state: Callable[[JobInfo], object] = lambda info: None,
    ) -> None:
        self._id = job_id
        self._after = _after(after)
        self._once = once
        self._records = records
        self._on_state = on_state
        self._attempts = Attempts("job", timeout, 1)
        self._attempts.insist()
        self._is_lost = False
        self.info: JobInfo | None = None

    @property
    def seconds(self) -> float:
        """For the next stream."""
        left = self._attempts.timeout()
        return _STREAM_SECONDS if left is None else min(left, _STREAM_SECONDS)

    def request(self) -> bytes:
        """For the next stream."""
        request = pb.FollowRequest(id=self._id, after=self._after, once=self._once, without_records=not self._records)
        return bytes(request.SerializeToString())

    def take(self, data: bytes) -> list[Record]:
        """Read a message; gives the records that are new.

        Raises:
            SerializationError: It is none.
        """
        try:
            reply = pb.FollowReply.FromString(data)
        except DecodeError:
            raise SerializationError("reply", "it cannot be read; is the server an AIPOD?") from None
        self._attempts.insist()
        self._is_lost = False
        if reply.HasField("job"):
            self.info = _info(reply.job)
        if self.info is not None:
            self.info = self.info._replace(heartbeat=reply.heartbeat or self.info.heartbeat)
            self._on_state(self.info)
        new = [record for record in map(_object, reply.records) if record.get("seq", 0) > self._after]
        if new:
            self._after = new[-1]["seq"]
        return new

    def ended(self) -> JobInfo:
        """The server has ended the stream; gives how the job stands.

        Raises:
            Unavailable: It ended too early: somebody in between did it.
        """
        if self.info is None or not (self._once or self.info.is_over):
            raise Unavailable(f"the stream that followed job {self._id!r} ended before the job", may_have_run=True)
        return self.info

    def pause(self, error: AipodError) -> float:
        """Seconds to wait before the next stream.

        Raises:
            DeadlineExceeded: There is no time left; the job goes on.
            AipodError: The error, if it is none of those that pass.
        """
        left = self._attempts.timeout()
        is_late = isinstance(error, DeadlineExceeded)
        if is_late or (isinstance(error, InternalError) and not error.error_id):
            # A stream has a time of its own; and a proxy resets what it carries when it loses the server.
            error = Unavailable(str(error), may_have_run=True)
        try:
            pause = self._attempts.pause(error)
        except Unavailable:
            if left is None or isinstance(error, ClientClosed):
                raise
            raise DeadlineExceeded(_goes_on(self._id)) from (None if is_late else error)
        finally:
            # Its traceback holds this frame.
            del error
        if not (self._is_lost or is_late):
            self._is_lost = True
            _log.warning("job %r is out of sight; it is followed on when its server is back", self._id)
        return pause


class Starting(Generic[C]):
    """Where a train goes, and whether it may be sent again.

    Where it cannot have run it goes elsewhere, or there again after a pause. Where it can have run it goes there again,
    as often as time allows: a server that knows jobs knows it by its id. An older one would run it twice.

    Args:
        targets: Servers that it may go to, the best first.
        attempts: Of this train.
    """

    def __init__(self, targets: Sequence[C], attempts: Attempts) -> None:
        self._targets = list(targets)
        self._attempts = attempts
        self._tried = 0
        self._doubt: Unavailable | None = None

    @property
    def connection(self) -> C:
        return self._targets[self._tried % len(self._targets)]

    @property
    def is_in_doubt(self) -> bool:
        """Whether the server must be asked first what it is."""
        return self._doubt is not None

    def clear(self, server: ServerInfo) -> AipodError | None:
        """What the server is; gives the error that is to be raised if nothing may be sent to it."""
        doubt, self._doubt = self._doubt, None
        return None if doubt is None or "jobs" in server.abilities else raising(doubt)

    def pause(self, error: AipodError) -> float:
        """Seconds to wait before another try.

        Raises:
            AipodError: The error, if there is none.
        """
        passes = isinstance(error, Unavailable) and not error.by_model and not isinstance(error, ClientClosed)
        if passes and isinstance(error, Unavailable) and error.may_have_run:
            if self._doubt is None:
                self._doubt = error
            self._targets, self._tried = [self.connection], 0
            self._attempts.insist()
        elif passes and self._doubt is None:
            self._tried += 1
            if self._tried % len(self._targets):
                return 0.0
        return self._attempts.pause(error)


def ended_well(info: JobInfo) -> JobInfo:
    """How a job ended, unless it was interrupted: the server that knows may have stopped by now.

    Raises:
        TrainingFailed: It was.
    """
    if info.state == "interrupted":
        raise TrainingFailed(info.version, info.id, info.reason)
    return info


def timings(info: JobInfo) -> Timings:
    """Where the time of a job went, as far as that is known."""
    if not (info.created and info.started and info.ended):
        return Timings()
    created, started, ended = (datetime.fromisoformat(text) for text in (info.created, info.started, info.ended))
    queue, run = (started - created).total_seconds(), (ended - started).total_seconds()
    return Timings(queue=queue, predict=run, total=queue + run)


def _goes_on(job_id: str) -> str:
    goes_on = f"the job goes on, and client.job({job_id!r}) finds it again"
    return f"the time was over before training job {job_id!r} was; {goes_on}"


def _id(job_id: object) -> str:
    if isinstance(job_id, str) and job_id.isprintable():
        return job_id
    raise InvalidArgument(f"the id of a job is {type(job_id).__name__!s}; give the text that jobs() lists")


def _after(after: object) -> int:
    if isinstance(after, int) and not isinstance(after, bool) and 0 <= after <= _FURTHEST:
        return after
    raise InvalidArgument(f"after is {after!r:.64}; give the seq of the last record that is known, or 0 for all")


def _read_info(data: bytes) -> JobInfo:
    return _info(pb.JobInfo.FromString(data))


def _read_list(data: bytes) -> tuple[JobInfo, ...]:
    return tuple(map(_info, pb.JobList.FromString(data).jobs))


def _info(message: pb.JobInfo) -> JobInfo:
    fields = {name: getattr(message, name) for name in JobInfo._fields}
    latest = _object(message.latest) if message.latest else None
    return JobInfo(
        **{
            **fields,
            "parameters": _object(message.parameters),
            "metrics": _object(message.metrics),
            "latest": latest,
        }
    )


def _object(data: bytes) -> dict[str, Any]:
    """
    Raises:
        SerializationError: It is no JSON object.
    """
    try:
        value = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise SerializationError("job", "it is not told in JSON; is the server an AIPOD?")
    return value

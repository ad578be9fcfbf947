"""``aipod.v1.Jobs``: what became of trainings, and what is becoming of them."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import Message

from aipod.codec import Limits, encode_reply
from aipod.engine import Engine
from aipod.errors import ModelError, Overloaded, SerializationError
from aipod.model.names import check_version
from aipod.rpc.desk import Desk, Verb
from aipod.rpc.front import RawCall, StreamOpener
from aipod.rpc.job_info import job_info, json_object
from aipod.rpc.job_streams import JobStreams
from aipod.rpc.methods import JOBS
from aipod.rpc.refusal import Refusals
from aipod.rpc.v1 import jobs_pb2 as pb

__all__ = ["JobsService"]

_Timeout = float | None


class JobsService:
    """See :class:`~aipod.rpc.server.Service`.

    Args:
        engine: What runs the jobs.
        refusals: How errors are answered.
    """

    def __init__(self, engine: Engine, refusals: Refusals) -> None:
        self._engine = engine
        self._max_reply_bytes = engine.settings.max_message_bytes
        self._limits = Limits(max_value_bytes=engine.settings.max_result_bytes)
        self._streams = JobStreams(engine, refusals)
        verbs: dict[str, tuple[type[Message], Verb]] = {
            "Get": (pb.JobRequest, self._get),
            "List": (pb.ListRequest, self._list),
            "Cancel": (pb.JobRequest, self._cancel),
            "Stop": (pb.JobRequest, self._stop),
            "Result": (pb.JobRequest, self._result),
            "Output": (pb.JobRequest, self._output),
        }
        self._desk = Desk(engine, refusals, JOBS, verbs)

    @property
    def methods(self) -> Mapping[str, float | None]:
        return self._desk.methods

    @property
    def streams(self) -> Mapping[str, StreamOpener]:
        return self._streams.streams

    def __call__(self, raw: RawCall) -> None:
        self._desk(raw)

    def close(self) -> None:
        """Tell those who follow what there is to tell, and end their streams."""
        self._streams.close()

    def _get(self, request: pb.JobRequest, timeout: _Timeout) -> Message:
        trainings, job_id = self._engine.trainings, request.id
        info = job_info(trainings.get(job_id))
        info.heartbeat = trainings.heartbeat(job_id)
        latest = trainings.latest(job_id)
        if latest is not None:
            info.latest = json_object(latest)
        return info

    def _list(self, request: pb.ListRequest, timeout: _Timeout) -> Message:
        version = check_version(request.version) if request.version else None
        return pb.JobList(jobs=map(job_info, self._engine.trainings.jobs(version)))

    def _cancel(self, request: pb.JobRequest, timeout: _Timeout) -> Message:
        return job_info(self._engine.trainings.cancel(request.id))

    def _stop(self, request: pb.JobRequest, timeout: _Timeout) -> Message:
        return job_info(self._engine.trainings.stop(request.id))

    def _result(self, request: pb.JobRequest, timeout: _Timeout) -> bytes | memoryview:
        value = self._engine.trainings.result(request.id)
        try:
            reply = encode_reply(value, self._limits)
        except SerializationError as error:
            raise ModelError(f"train() returned what cannot travel: {error}") from None
        if len(reply) > self._max_reply_bytes:
            allowed = f"{self._max_reply_bytes} are allowed"
            raise Overloaded(f"the result takes {len(reply)} bytes, and {allowed}; return less")
        return reply

    def _output(self, request: pb.JobRequest, timeout: _Timeout) -> Message:
        return pb.JobOutput(text=self._engine.trainings.output(request.id))

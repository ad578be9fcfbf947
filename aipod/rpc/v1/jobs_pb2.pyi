from aipod.rpc.v1 import model_pb2 as _model_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JobRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: str
    def __init__(self, version: _Optional[str] = ...) -> None: ...

class JobList(_message.Message):
    __slots__ = ("jobs",)
    JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[JobInfo]
    def __init__(self, jobs: _Optional[_Iterable[_Union[JobInfo, _Mapping]]] = ...) -> None: ...

class JobInfo(_message.Message):
    __slots__ = ("id", "version", "kind", "state", "created", "started", "ended", "reason", "revision", "parent", "request_id", "attempts", "resumable", "parameters", "metrics", "latest", "heartbeat")
    ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    RESUMABLE_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    LATEST_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
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
    parameters: bytes
    metrics: bytes
    latest: bytes
    heartbeat: float
    def __init__(self, id: _Optional[str] = ..., version: _Optional[str] = ..., kind: _Optional[str] = ..., state: _Optional[str] = ..., created: _Optional[str] = ..., started: _Optional[str] = ..., ended: _Optional[str] = ..., reason: _Optional[str] = ..., revision: _Optional[int] = ..., parent: _Optional[int] = ..., request_id: _Optional[str] = ..., attempts: _Optional[int] = ..., resumable: bool = ..., parameters: _Optional[bytes] = ..., metrics: _Optional[bytes] = ..., latest: _Optional[bytes] = ..., heartbeat: _Optional[float] = ...) -> None: ...

class JobOutput(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class FollowRequest(_message.Message):
    __slots__ = ("id", "after", "once", "without_records")
    ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    ONCE_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_RECORDS_FIELD_NUMBER: _ClassVar[int]
    id: str
    after: int
    once: bool
    without_records: bool
    def __init__(self, id: _Optional[str] = ..., after: _Optional[int] = ..., once: bool = ..., without_records: bool = ...) -> None: ...

class FollowReply(_message.Message):
    __slots__ = ("records", "job", "heartbeat")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedScalarFieldContainer[bytes]
    job: JobInfo
    heartbeat: float
    def __init__(self, records: _Optional[_Iterable[bytes]] = ..., job: _Optional[_Union[JobInfo, _Mapping]] = ..., heartbeat: _Optional[float] = ...) -> None: ...

from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Done(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class VersionRequest(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: str
    def __init__(self, version: _Optional[str] = ...) -> None: ...

class InfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class InfoReply(_message.Message):
    __slots__ = ("server", "wire_version", "abilities", "model")
    SERVER_FIELD_NUMBER: _ClassVar[int]
    WIRE_VERSION_FIELD_NUMBER: _ClassVar[int]
    ABILITIES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    server: str
    wire_version: int
    abilities: _containers.RepeatedScalarFieldContainer[str]
    model: str
    def __init__(self, server: _Optional[str] = ..., wire_version: _Optional[int] = ..., abilities: _Optional[_Iterable[str]] = ..., model: _Optional[str] = ...) -> None: ...

class VersionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class VersionsReply(_message.Message):
    __slots__ = ("versions", "aliases")
    class AliasesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[VersionInfo]
    aliases: _containers.ScalarMap[str, str]
    def __init__(self, versions: _Optional[_Iterable[_Union[VersionInfo, _Mapping]]] = ..., aliases: _Optional[_Mapping[str, str]] = ...) -> None: ...

class VersionInfo(_message.Message):
    __slots__ = ("version", "state", "revision", "loaded_revision", "revisions", "size_bytes", "last_use", "pinned", "aliases", "reason", "memory_bytes")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    LOADED_REVISION_FIELD_NUMBER: _ClassVar[int]
    REVISIONS_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    LAST_USE_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    version: str
    state: str
    revision: int
    loaded_revision: int
    revisions: _containers.RepeatedCompositeFieldContainer[RevisionInfo]
    size_bytes: int
    last_use: float
    pinned: bool
    aliases: _containers.RepeatedScalarFieldContainer[str]
    reason: str
    memory_bytes: int
    def __init__(self, version: _Optional[str] = ..., state: _Optional[str] = ..., revision: _Optional[int] = ..., loaded_revision: _Optional[int] = ..., revisions: _Optional[_Iterable[_Union[RevisionInfo, _Mapping]]] = ..., size_bytes: _Optional[int] = ..., last_use: _Optional[float] = ..., pinned: bool = ..., aliases: _Optional[_Iterable[str]] = ..., reason: _Optional[str] = ..., memory_bytes: _Optional[int] = ...) -> None: ...

class RevisionInfo(_message.Message):
    __slots__ = ("number", "created", "origin", "size_bytes", "live", "parent", "job", "parameters", "metrics")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    number: int
    created: str
    origin: str
    size_bytes: int
    live: bool
    parent: int
    job: str
    parameters: bytes
    metrics: bytes
    def __init__(self, number: _Optional[int] = ..., created: _Optional[str] = ..., origin: _Optional[str] = ..., size_bytes: _Optional[int] = ..., live: bool = ..., parent: _Optional[int] = ..., job: _Optional[str] = ..., parameters: _Optional[bytes] = ..., metrics: _Optional[bytes] = ...) -> None: ...

class RevisionsReply(_message.Message):
    __slots__ = ("revisions",)
    REVISIONS_FIELD_NUMBER: _ClassVar[int]
    revisions: _containers.RepeatedCompositeFieldContainer[RevisionInfo]
    def __init__(self, revisions: _Optional[_Iterable[_Union[RevisionInfo, _Mapping]]] = ...) -> None: ...

class PinRequest(_message.Message):
    __slots__ = ("version", "pinned")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    version: str
    pinned: bool
    def __init__(self, version: _Optional[str] = ..., pinned: bool = ...) -> None: ...

class RollbackRequest(_message.Message):
    __slots__ = ("version", "revision")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    version: str
    revision: int
    def __init__(self, version: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class RollbackReply(_message.Message):
    __slots__ = ("revision",)
    REVISION_FIELD_NUMBER: _ClassVar[int]
    revision: int
    def __init__(self, revision: _Optional[int] = ...) -> None: ...

class SetAliasRequest(_message.Message):
    __slots__ = ("alias", "version")
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    alias: str
    version: str
    def __init__(self, alias: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class DropAliasRequest(_message.Message):
    __slots__ = ("alias",)
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    alias: str
    def __init__(self, alias: _Optional[str] = ...) -> None: ...

class StatisticsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatisticsReply(_message.Message):
    __slots__ = ("pool", "lanes", "workers", "workers_busy")
    POOL_FIELD_NUMBER: _ClassVar[int]
    LANES_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    WORKERS_BUSY_FIELD_NUMBER: _ClassVar[int]
    pool: PoolStatistics
    lanes: _containers.RepeatedCompositeFieldContainer[LaneStatistics]
    workers: int
    workers_busy: int
    def __init__(self, pool: _Optional[_Union[PoolStatistics, _Mapping]] = ..., lanes: _Optional[_Iterable[_Union[LaneStatistics, _Mapping]]] = ..., workers: _Optional[int] = ..., workers_busy: _Optional[int] = ...) -> None: ...

class PoolStatistics(_message.Message):
    __slots__ = ("size", "capacity", "size_bytes", "capacity_bytes", "loads", "load_failures", "evictions", "waiting")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOADS_FIELD_NUMBER: _ClassVar[int]
    LOAD_FAILURES_FIELD_NUMBER: _ClassVar[int]
    EVICTIONS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    size: int
    capacity: int
    size_bytes: int
    capacity_bytes: int
    loads: int
    load_failures: int
    evictions: int
    waiting: int
    def __init__(self, size: _Optional[int] = ..., capacity: _Optional[int] = ..., size_bytes: _Optional[int] = ..., capacity_bytes: _Optional[int] = ..., loads: _Optional[int] = ..., load_failures: _Optional[int] = ..., evictions: _Optional[int] = ..., waiting: _Optional[int] = ...) -> None: ...

class LaneStatistics(_message.Message):
    __slots__ = ("version", "revision", "queued", "held_bytes", "running", "done", "failed", "cancelled", "expired", "refused", "queue_seconds", "run_seconds", "batches")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    HELD_BYTES_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    QUEUE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RUN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    version: str
    revision: int
    queued: int
    held_bytes: int
    running: int
    done: int
    failed: int
    cancelled: int
    expired: int
    refused: int
    queue_seconds: float
    run_seconds: float
    batches: BatchStatistics
    def __init__(self, version: _Optional[str] = ..., revision: _Optional[int] = ..., queued: _Optional[int] = ..., held_bytes: _Optional[int] = ..., running: _Optional[int] = ..., done: _Optional[int] = ..., failed: _Optional[int] = ..., cancelled: _Optional[int] = ..., expired: _Optional[int] = ..., refused: _Optional[int] = ..., queue_seconds: _Optional[float] = ..., run_seconds: _Optional[float] = ..., batches: _Optional[_Union[BatchStatistics, _Mapping]] = ...) -> None: ...

class BatchStatistics(_message.Message):
    __slots__ = ("batches", "calls", "runs", "last_size", "size_limit")
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    LAST_SIZE_FIELD_NUMBER: _ClassVar[int]
    SIZE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    batches: int
    calls: int
    runs: int
    last_size: int
    size_limit: int
    def __init__(self, batches: _Optional[int] = ..., calls: _Optional[int] = ..., runs: _Optional[int] = ..., last_size: _Optional[int] = ..., size_limit: _Optional[int] = ...) -> None: ...

from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CallRequest(_message.Message):
    __slots__ = ("version", "kwargs", "segments", "priority", "timed", "lent", "request_id", "detach", "padding")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KWARGS_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TIMED_FIELD_NUMBER: _ClassVar[int]
    LENT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DETACH_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    version: str
    kwargs: bytes
    segments: _containers.RepeatedScalarFieldContainer[bytes]
    priority: int
    timed: bool
    lent: _containers.RepeatedCompositeFieldContainer[Lent]
    request_id: str
    detach: bool
    padding: bytes
    def __init__(self, version: _Optional[str] = ..., kwargs: _Optional[bytes] = ..., segments: _Optional[_Iterable[bytes]] = ..., priority: _Optional[int] = ..., timed: bool = ..., lent: _Optional[_Iterable[_Union[Lent, _Mapping]]] = ..., request_id: _Optional[str] = ..., detach: bool = ..., padding: _Optional[bytes] = ...) -> None: ...

class CallReply(_message.Message):
    __slots__ = ("value", "segments", "timings", "lent", "job", "padding")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    LENT_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    value: bytes
    segments: _containers.RepeatedScalarFieldContainer[bytes]
    timings: Timings
    lent: _containers.RepeatedCompositeFieldContainer[Lent]
    job: str
    padding: bytes
    def __init__(self, value: _Optional[bytes] = ..., segments: _Optional[_Iterable[bytes]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., lent: _Optional[_Iterable[_Union[Lent, _Mapping]]] = ..., job: _Optional[str] = ..., padding: _Optional[bytes] = ...) -> None: ...

class Lent(_message.Message):
    __slots__ = ("offset", "size", "slot")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    offset: int
    size: int
    slot: int
    def __init__(self, offset: _Optional[int] = ..., size: _Optional[int] = ..., slot: _Optional[int] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("queue", "decode", "predict", "encode", "total")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    DECODE_FIELD_NUMBER: _ClassVar[int]
    PREDICT_FIELD_NUMBER: _ClassVar[int]
    ENCODE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    queue: float
    decode: float
    predict: float
    encode: float
    total: float
    def __init__(self, queue: _Optional[float] = ..., decode: _Optional[float] = ..., predict: _Optional[float] = ..., encode: _Optional[float] = ..., total: _Optional[float] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("kind", "error_id", "data", "traceback")
    KIND_FIELD_NUMBER: _ClassVar[int]
    ERROR_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    TRACEBACK_FIELD_NUMBER: _ClassVar[int]
    kind: str
    error_id: str
    data: bytes
    traceback: str
    def __init__(self, kind: _Optional[str] = ..., error_id: _Optional[str] = ..., data: _Optional[bytes] = ..., traceback: _Optional[str] = ...) -> None: ...

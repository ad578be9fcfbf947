from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class CallRequest(_message.Message):
    __slots__ = ("version", "kwargs", "segments", "padding")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KWARGS_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    version: str
    kwargs: bytes
    segments: _containers.RepeatedScalarFieldContainer[bytes]
    padding: bytes
    def __init__(self, version: _Optional[str] = ..., kwargs: _Optional[bytes] = ..., segments: _Optional[_Iterable[bytes]] = ..., padding: _Optional[bytes] = ...) -> None: ...

class CallReply(_message.Message):
    __slots__ = ("value", "segments", "padding")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    value: bytes
    segments: _containers.RepeatedScalarFieldContainer[bytes]
    padding: bytes
    def __init__(self, value: _Optional[bytes] = ..., segments: _Optional[_Iterable[bytes]] = ..., padding: _Optional[bytes] = ...) -> None: ...

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

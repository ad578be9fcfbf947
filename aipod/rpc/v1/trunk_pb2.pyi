from aipod.rpc.v1 import model_pb2 as _model_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Method(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PREDICT: _ClassVar[Method]
    LOG: _ClassVar[Method]
    INITIALIZE: _ClassVar[Method]
    TRAIN: _ClassVar[Method]
PREDICT: Method
LOG: Method
INITIALIZE: Method
TRAIN: Method

class ClientFrame(_message.Message):
    __slots__ = ("calls", "cancels", "chunk", "greeting")
    CALLS_FIELD_NUMBER: _ClassVar[int]
    CANCELS_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    GREETING_FIELD_NUMBER: _ClassVar[int]
    calls: _containers.RepeatedCompositeFieldContainer[Call]
    cancels: _containers.RepeatedScalarFieldContainer[int]
    chunk: Chunk
    greeting: Greeting
    def __init__(self, calls: _Optional[_Iterable[_Union[Call, _Mapping]]] = ..., cancels: _Optional[_Iterable[int]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ..., greeting: _Optional[_Union[Greeting, _Mapping]] = ...) -> None: ...

class ServerFrame(_message.Message):
    __slots__ = ("replies", "chunk", "greeting", "grant", "draining")
    REPLIES_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    GREETING_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    replies: _containers.RepeatedCompositeFieldContainer[Reply]
    chunk: Chunk
    greeting: Greeting
    grant: Grant
    draining: bool
    def __init__(self, replies: _Optional[_Iterable[_Union[Reply, _Mapping]]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ..., greeting: _Optional[_Union[Greeting, _Mapping]] = ..., grant: _Optional[_Union[Grant, _Mapping]] = ..., draining: bool = ...) -> None: ...

class Greeting(_message.Message):
    __slots__ = ("wire_version", "abilities", "shared_memory")
    WIRE_VERSION_FIELD_NUMBER: _ClassVar[int]
    ABILITIES_FIELD_NUMBER: _ClassVar[int]
    SHARED_MEMORY_FIELD_NUMBER: _ClassVar[int]
    wire_version: int
    abilities: _containers.RepeatedScalarFieldContainer[str]
    shared_memory: SharedMemory
    def __init__(self, wire_version: _Optional[int] = ..., abilities: _Optional[_Iterable[str]] = ..., shared_memory: _Optional[_Union[SharedMemory, _Mapping]] = ...) -> None: ...

class SharedMemory(_message.Message):
    __slots__ = ("name", "token", "bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    token: bytes
    bytes: int
    def __init__(self, name: _Optional[str] = ..., token: _Optional[bytes] = ..., bytes: _Optional[int] = ...) -> None: ...

class Grant(_message.Message):
    __slots__ = ("calls", "bytes")
    CALLS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    calls: int
    bytes: int
    def __init__(self, calls: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class Call(_message.Message):
    __slots__ = ("number", "method", "timeout", "request", "size")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    number: int
    method: Method
    timeout: float
    request: bytes
    size: int
    def __init__(self, number: _Optional[int] = ..., method: _Optional[_Union[Method, str]] = ..., timeout: _Optional[float] = ..., request: _Optional[bytes] = ..., size: _Optional[int] = ...) -> None: ...

class Reply(_message.Message):
    __slots__ = ("number", "reply", "size", "failure", "lent")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    LENT_FIELD_NUMBER: _ClassVar[int]
    number: int
    reply: bytes
    size: int
    failure: Failure
    lent: bool
    def __init__(self, number: _Optional[int] = ..., reply: _Optional[bytes] = ..., size: _Optional[int] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., lent: bool = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("number", "data")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    number: int
    data: bytes
    def __init__(self, number: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("status", "details", "error")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    status: int
    details: str
    error: _model_pb2.Error
    def __init__(self, status: _Optional[int] = ..., details: _Optional[str] = ..., error: _Optional[_Union[_model_pb2.Error, _Mapping]] = ...) -> None: ...

from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Input(_message.Message):
    __slots__ = ("kwargs_json", "version", "binary_data")
    KWARGS_JSON_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BINARY_DATA_FIELD_NUMBER: _ClassVar[int]
    kwargs_json: bytes
    version: str
    binary_data: bytes
    def __init__(self, kwargs_json: _Optional[bytes] = ..., version: _Optional[str] = ..., binary_data: _Optional[bytes] = ...) -> None: ...

class Output(_message.Message):
    __slots__ = ("data_json",)
    DATA_JSON_FIELD_NUMBER: _ClassVar[int]
    data_json: bytes
    def __init__(self, data_json: _Optional[bytes] = ...) -> None: ...

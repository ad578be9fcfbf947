"""``grpc.reflection``: tells grpcurl and its like what the server serves, in both of the protocol's versions.

It tells of the services that the front takes, of their files and of what those import; nothing else that protobuf knows
in this process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import DecodeError

from aipod.rpc.front import RawStream, StreamOpener
from aipod.rpc.v1 import health_pb2, reflection_pb2
from aipod.rpc.v1.reflection_pb2 import (
    ErrorResponse,
    ExtensionNumberResponse,
    FileDescriptorResponse,
    ListServiceResponse,
    ServerReflectionRequest,
    ServerReflectionResponse,
    ServiceResponse,
)

__all__ = ["ReflectionService"]

_METHODS = [f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha")]
_NOT_FOUND = 5  # gRPC's number of that status
_NOTHING = "nothing of that name is served here"
# More answers than these wait for no peer.
_MOST_WAITING = 16
# The standard's services, whose contracts we have in a package of our own.
_STANDARD: Mapping[str, FileDescriptor] = {
    "grpc.health.v1": health_pb2.DESCRIPTOR,
    "grpc.reflection.v1": reflection_pb2.DESCRIPTOR,
    "grpc.reflection.v1alpha": reflection_pb2.DESCRIPTOR,
}


class ReflectionService:
    """Knows the services of some methods.

    Args:
        methods: The full names of all methods that are served; those of this service belong to it anyway.

    Raises:
        KeyError: A service's contract is not known to protobuf.
    """

    def __init__(self, methods: Iterable[str]) -> None:
        self.services = sorted({method.split("/")[1] for method in (*methods, *_METHODS)})
        self._files: dict[str, FileDescriptorProto] = {}
        for service in self.services:
            package = service.rpartition(".")[0]
            if package in _STANDARD:
                self._add(_STANDARD[package], package)
            else:
                self._add(Default().FindServiceByName(service).file)
        self._homes = {symbol: file.name for file in self._files.values() for symbol in _symbols(file)}

    @property
    def streams(self) -> Mapping[str, StreamOpener]:
        return dict.fromkeys(_METHODS, lambda stream: _Conversation(self, stream))

    def answer(self, request: ServerReflectionRequest) -> ServerReflectionResponse:
        """What the protocol has for a request."""
        found = self._find(request) or {"error_response": ErrorResponse(error_code=_NOT_FOUND, error_message=_NOTHING)}
        return ServerReflectionResponse(valid_host=request.host, original_request=request, **found)

    def _find(self, request: ServerReflectionRequest) -> dict[str, Any] | None:
        kind = request.WhichOneof("message_request")
        name = getattr(request, kind or "host")
        if kind == "list_services":
            services = [ServiceResponse(name=service) for service in self.services]
            return {"list_services_response": ListServiceResponse(service=services)}
        if kind == "all_extension_numbers_of_type" and name in self._homes:
            # There are none in proto3, of which all of our contracts are.
            return {"all_extension_numbers_response": ExtensionNumberResponse(base_type_name=name)}
        if kind == "file_containing_symbol":
            name = self._homes.get(name, "")
        if kind in ("file_by_filename", "file_containing_symbol") and name in self._files:
            files = [file.SerializeToString() for file in self._with_imports(name)]
            return {"file_descriptor_response": FileDescriptorResponse(file_descriptor_proto=files)}
        return None

    def _with_imports(self, name: str) -> list[FileDescriptorProto]:
        names = [name]
        for known in names:
            names += [imported for imported in self._files[known].dependency if imported not in names]
        return [self._files[known] for known in names]

    def _add(self, file: FileDescriptor, package: str = "") -> None:
        proto = FileDescriptorProto()
        file.CopyToProto(proto)
        if package:
            _move(proto, package)
        self._files[proto.name] = proto
        for imported in file.dependencies:
            self._add(imported)


class _Conversation:
    """See :class:`~aipod.rpc.front.interface.StreamHandler`."""

    def __init__(self, service: ReflectionService, stream: RawStream) -> None:
        self._service = service
        self._stream = stream
        self._answers: deque[bytes] = deque()

    def received(self, message: bytes) -> None:
        try:
            request = ServerReflectionRequest.FromString(message)
        except DecodeError:
            self._stream.finish("INVALID_ARGUMENT", "the request is no grpc.reflection.v1.ServerReflectionRequest")
            return
        self._answers.append(self._service.answer(request).SerializeToString())
        if len(self._answers) >= _MOST_WAITING:
            self._stream.hold(True)
        self._stream.wake()

    def next_message(self) -> bytes | None:
        if not self._answers:
            self._stream.hold(False)
            return None
        return self._answers.popleft()

    def half_closed(self) -> None:
        self._stream.finish()

    def gone(self) -> None:
        self._answers.clear()


def _move(proto: FileDescriptorProto, package: str) -> None:
    """Have a file say that it is of another package, and named for that."""
    old, new = f".{proto.package}.", f".{package}."
    proto.name = f"{package.replace('.', '/')}/{proto.name.rpartition('/')[2]}"
    proto.package = package
    for message in proto.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(old, new, 1)
    for service in proto.service:
        for method in service.method:
            method.input_type = method.input_type.replace(old, new, 1)
            method.output_type = method.output_type.replace(old, new, 1)


def _symbols(file: FileDescriptorProto) -> Iterator[str]:
    for service in file.service:
        yield f"{file.package}.{service.name}"
        yield from (f"{file.package}.{service.name}.{method.name}" for method in service.method)
    yield from (f"{file.package}.{kind.name}" for kind in file.enum_type)
    for message in file.message_type:
        yield from _within(message, file.package)


def _within(message: DescriptorProto, scope: str) -> Iterator[str]:
    name = f"{scope}.{message.name}"
    yield name
    yield from (f"{name}.{kind.name}" for kind in message.enum_type)
    for nested in message.nested_type:
        yield from _within(nested, name)

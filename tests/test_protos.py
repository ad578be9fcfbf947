"""The contracts in protos/ and the stubs that were made from them say the same, and neither moves under a client."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from grpc_health.v1 import health_pb2 as grpc_health_pb2

from aipod.rpc import ai_pb2
from aipod.rpc.v1 import admin_pb2, health_pb2, jobs_pb2, model_pb2, reflection_pb2, trunk_pb2

PROTOS = Path(__file__).parent.parent / "protos"
FILES = [
    ("ai.proto", ai_pb2),
    ("aipod/v1/model.proto", model_pb2),
    ("aipod/v1/admin.proto", admin_pb2),
    ("aipod/v1/jobs.proto", jobs_pb2),
    ("aipod/v1/trunk.proto", trunk_pb2),
    ("aipod/v1/health.proto", health_pb2),
    ("aipod/v1/reflection.proto", reflection_pb2),
]
TYPES = {number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items()}


def written(text: str) -> dict[str, list[str]]:
    """Read the messages and services of a contract, each with its fields or methods in short."""
    found: dict[str, list[str]] = {}
    for name, body in re.findall(r"^(?:message|service) (\w+) \{(.*?)\}$", _bare(text), re.DOTALL | re.MULTILINE):
        found[name] = [re.sub(r"\s+", " ", line).strip() for line in body.split(";") if line.strip()]
    return found


def _bare(text: str) -> str:
    # One-line messages end on their own line, too; of blocks within messages, only the fields of a oneof count.
    text = re.sub(r"\{\}", "{\n}", re.sub(r"//.*", "", text))
    text = re.sub(r"^ +enum \w+ \{.*?^ +\}$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"^ +oneof \w+ \{(.*?)^ +\}$", r"\1", text, flags=re.DOTALL | re.MULTILINE)


def generated(file: FileDescriptor) -> dict[str, list[str]]:
    """Read the same out of a stub."""
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    found = {message.name: [_field(message, field) for field in message.field] for message in proto.message_type}
    for service in proto.service:
        found[service.name] = [
            f"rpc {method.name}({_sent(method.client_streaming, method.input_type)})"
            f" returns ({_sent(method.server_streaming, method.output_type)})"
            for method in service.method
        ]
    return found


def _sent(is_stream: bool, kind: str) -> str:
    return f"stream {_short(kind)}" if is_stream else _short(kind)


def _field(message: DescriptorProto, field: FieldDescriptorProto) -> str:
    kind = _short(field.type_name) or TYPES[field.type]
    entries = {nested.name: nested for nested in message.nested_type}
    if kind in entries:
        kind = f"map<{', '.join(TYPES[part.type] for part in entries[kind].field)}>"
    elif field.label == FieldDescriptorProto.LABEL_REPEATED:
        kind = f"repeated {kind}"
    return f"{kind} {field.name} = {field.number}"


def _short(name: str) -> str:
    return name.rpartition(".")[2]


@pytest.mark.parametrize(("contract", "stub"), FILES)
def test_a_stub_says_what_its_contract_says(contract: str, stub: object) -> None:
    assert written((PROTOS / contract).read_text("utf-8")) == generated(stub.DESCRIPTOR)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("contract", "stub"), FILES)
def test_the_path_of_a_contract_mirrors_its_package(contract: str, stub: object) -> None:
    package = stub.DESCRIPTOR.package  # type: ignore[attr-defined]
    parts = contract.removesuffix(".proto").split("/")
    assert package.split(".") == (parts[:-1] or parts)


def test_every_contract_has_its_stub() -> None:
    assert {str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto")} == {contract for contract, _ in FILES}


# Field numbers are for ever: clients in other languages were generated from them.
@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (
            model_pb2.CallRequest.DESCRIPTOR,
            {
                "version": 1,
                "kwargs": 2,
                "segments": 3,
                "priority": 4,
                "timed": 5,
                "lent": 7,
                "request_id": 8,
                "detach": 9,
                "padding": 15,
            },
        ),
        (model_pb2.CallReply.DESCRIPTOR, {"value": 2, "segments": 3, "timings": 6, "lent": 7, "job": 8, "padding": 15}),
        (jobs_pb2.FollowRequest.DESCRIPTOR, {"id": 1, "after": 2, "once": 3, "without_records": 4}),
        (jobs_pb2.FollowReply.DESCRIPTOR, {"records": 1, "job": 2, "heartbeat": 3}),
        (trunk_pb2.ClientFrame.DESCRIPTOR, {"calls": 1, "cancels": 2, "chunk": 3, "greeting": 4}),
        (trunk_pb2.ServerFrame.DESCRIPTOR, {"replies": 1, "chunk": 3, "greeting": 4, "grant": 5, "draining": 6}),
        (trunk_pb2.Call.DESCRIPTOR, {"number": 1, "method": 2, "timeout": 3, "request": 4, "size": 5}),
        (trunk_pb2.Reply.DESCRIPTOR, {"number": 1, "reply": 2, "size": 3, "failure": 4, "lent": 5}),
        (trunk_pb2.Chunk.DESCRIPTOR, {"number": 1, "data": 2}),
        (model_pb2.Error.DESCRIPTOR, {"kind": 1, "error_id": 2, "data": 3, "traceback": 4}),
        (ai_pb2.Input.DESCRIPTOR, {"kwargs_json": 1, "version": 2, "binary_data": 3}),
        (ai_pb2.Output.DESCRIPTOR, {"data_json": 1}),
    ],
)
def test_the_fields_of_a_call_keep_their_numbers(message: Descriptor, fields: dict[str, int]) -> None:
    assert {field.name: field.number for field in message.fields} == fields


def test_the_wire_of_1_0_is_byte_for_byte_what_it_was() -> None:
    request = b'\n\x07{"x":1}\x12\x02v1\x1a\x02\x00\xff'
    assert ai_pb2.Input(kwargs_json=b'{"x":1}', version="v1", binary_data=b"\x00\xff").SerializeToString() == request
    assert ai_pb2.Output(data_json=b"3").SerializeToString() == b"\n\x013"
    assert [method.full_name for method in ai_pb2.DESCRIPTOR.services_by_name["AI"].methods] == [
        "ai.AI.initialize",
        "ai.AI.train",
        "ai.AI.predict",
        "ai.AI.log",
    ]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (health_pb2.HealthCheckRequest.DESCRIPTOR, grpc_health_pb2.HealthCheckRequest.DESCRIPTOR),
        (health_pb2.HealthCheckResponse.DESCRIPTOR, grpc_health_pb2.HealthCheckResponse.DESCRIPTOR),
    ],
)
def test_what_is_of_the_standard_says_what_the_standard_says(ours: Descriptor, theirs: Descriptor) -> None:
    def said(message: Descriptor) -> list[object]:
        fields = [(field.name, field.number, field.type) for field in message.fields]
        return [fields, [(kind.name, kind.values_by_name["SERVING"].number) for kind in message.enum_types]]

    assert said(ours) == said(theirs)


def test_a_call_without_arrays_needs_msgpack_and_nothing_else() -> None:
    request = model_pb2.CallRequest(version="v1", kwargs=b"\x81\xa1x\x01")
    assert request.SerializeToString() == b"\n\x02v1\x12\x04\x81\xa1x\x01"

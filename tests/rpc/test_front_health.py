"""What a server tells load balancers and tools of itself, whichever front it has."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from front_world import MIB, Guest, failure, status_of
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from waiting import BOUND, eventually

from aipod.rpc.v1.reflection_pb2 import ExtensionRequest, ServerReflectionRequest, ServerReflectionResponse

CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
REFLECTION = ["/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"]
REFLECTION += ["/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"]
SERVICES = [
    "ai.AI",
    "aipod.v1.Admin",
    "aipod.v1.Jobs",
    "aipod.v1.Model",
    "aipod.v1.Trunk",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
]


def asked(service: str) -> bytes:
    return bytes(HealthCheckRequest(service=service).SerializeToString())


def told(message: bytes) -> str:
    return str(HealthCheckResponse.ServingStatus.Name(HealthCheckResponse.FromString(message).status))


class TestHealth:
    @pytest.mark.parametrize("service", ["", "aipod.v1.Model"])
    def test_a_server_that_serves_says_so(self, server_of: Any, model: Any, service: str) -> None:
        with Guest(server_of(model).address) as guest:
            assert told(guest.call(asked(service), CHECK)) == "SERVING"
            assert told(next(guest.open(asked(service), method=WATCH))) == "SERVING"

    def test_of_what_it_does_not_serve_it_says_that(self, server_of: Any, model: Any) -> None:
        with Guest(server_of(model).address) as guest:
            assert status_of(guest.call, asked("other"), CHECK) == "NOT_FOUND"
            watch = guest.open(asked("other"), method=WATCH)
            assert told(next(watch)) == "SERVICE_UNKNOWN"
            assert guest.call(asked(""), CHECK)
            assert not watch.done()

    def test_a_drain_is_told_while_the_last_calls_run(
        self, server_of: Any, client_of: Any, model: Any, background: Any
    ) -> None:
        server = server_of(model)
        with Guest(server.address) as guest, ThreadPoolExecutor(1) as threads:
            watch = guest.open(asked("aipod.v1.Model"), method=WATCH)
            assert told(next(watch)) == "SERVING"
            running = background(client_of(server).predict, do="wait", x=1)
            eventually(lambda: model.entered)
            stopping = threads.submit(server.stop, BOUND)
            assert told(next(watch)) == "NOT_SERVING"
            assert told(guest.call(asked(""), CHECK)) == "NOT_SERVING"
            assert not stopping.done()
            model.gate.set()
            assert running.result(BOUND) == {"x": 1}
            error = failure(next, watch)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert error.details() == "the server was stopped"
            assert stopping.result(BOUND)

    def test_a_question_that_is_none_is_refused(self, server_of: Any, model: Any) -> None:
        with Guest(server_of(model).address) as guest:
            assert status_of(guest.call, b"\xff", CHECK) == "INVALID_ARGUMENT"
            assert status_of(list, guest.open(b"\xff", method=WATCH)) == "INVALID_ARGUMENT"
            assert status_of(list, guest.open(method=WATCH, half_close=True)) == "INVALID_ARGUMENT"

    def test_those_who_watch_hold_no_thread_and_are_forgotten_when_they_go(self, server_of: Any, model: Any) -> None:
        server = server_of(model)
        with Guest(server.address) as guest:
            guest.call(asked(""), CHECK)
            before = threading.active_count()
            # A client's stream has a thread there for what it sends; one that sends one message has none.
            watch = guest.channel.unary_stream(WATCH)
            watches = [watch(asked("")) for _ in range(200)]
            assert [told(next(one)) for one in watches] == ["SERVING"] * 200
            assert "200 watch" in repr(server._health)
            assert threading.active_count() <= before + 2
            for one in watches:
                one.cancel()
            eventually(lambda: "0 watch" in repr(server._health))


class Tool:
    """What grpcurl would ask."""

    def __init__(self, guest: Guest, method: str) -> None:
        self._guest = guest
        self._method = method

    def ask(self, **question: Any) -> ServerReflectionResponse:
        request = ServerReflectionRequest(host="h", **question)
        [answer] = self._guest.open(request.SerializeToString(), method=self._method, half_close=True)
        response = ServerReflectionResponse.FromString(answer)
        assert response.original_request == request
        assert response.valid_host == "h"
        return response

    def services(self) -> list[str]:
        return [service.name for service in self.ask(list_services="*").list_services_response.service]

    def files(self, **question: Any) -> list[FileDescriptorProto]:
        texts = self.ask(**question).file_descriptor_response.file_descriptor_proto
        return [FileDescriptorProto.FromString(text) for text in texts]


@pytest.fixture(params=REFLECTION)
def tool(request: Any, server_of: Any, model: Any) -> Any:
    with Guest(server_of(model).address) as guest:
        yield Tool(guest, request.param)


class TestReflection:
    def test_it_lists_what_is_served(self, tool: Tool) -> None:
        assert tool.services() == SERVICES
        assert [one.name for one in tool.ask(list_services="").list_services_response.service] == SERVICES

    def test_every_service_can_be_called_by_who_knows_nothing_else(self, tool: Tool) -> None:
        for service in SERVICES:
            pool = DescriptorPool()
            for file in reversed(tool.files(file_containing_symbol=service)):
                pool.Add(file)
            methods = pool.FindServiceByName(service).methods
            assert methods
            for method in methods:
                assert tool.files(file_containing_symbol=method.full_name)
                for message in (method.input_type, method.output_type):
                    # What is of the standard has the standard's names, though we have it in a package of our own.
                    assert message.full_name.startswith(service.rpartition(".")[0] + ".")
                    assert tool.files(file_containing_symbol=message.full_name)

    def test_a_file_comes_with_what_it_imports(self, tool: Tool) -> None:
        names = [file.name for file in tool.files(file_by_filename="aipod/rpc/v1/trunk.proto")]
        assert names == ["aipod/rpc/v1/trunk.proto", "aipod/rpc/v1/model.proto"]

    def test_things_within_things_are_found(self, tool: Tool) -> None:
        name = "grpc.health.v1.HealthCheckResponse.ServingStatus"
        assert tool.files(file_containing_symbol=name)[0].name == "grpc/health/v1/health.proto"

    @pytest.mark.parametrize(
        "question",
        [
            {"file_containing_symbol": "google.protobuf.FileDescriptorProto"},
            {"file_containing_symbol": ""},
            {"file_by_filename": "google/protobuf/descriptor.proto"},
            {"file_by_filename": "/etc/passwd"},
            {"file_containing_extension": ExtensionRequest(containing_type="ai.Input", extension_number=1)},
            {"all_extension_numbers_of_type": "no.such.Type"},
            {},
        ],
    )
    def test_of_anything_else_it_knows_nothing(self, tool: Tool, question: dict[str, Any]) -> None:
        error = tool.ask(**question).error_response
        assert error.error_code == grpc.StatusCode.NOT_FOUND.value[0]
        assert error.error_message

    def test_a_message_of_ours_has_no_extensions(self, tool: Tool) -> None:
        answer = tool.ask(all_extension_numbers_of_type="ai.Input").all_extension_numbers_response
        assert answer.base_type_name == "ai.Input"
        assert not answer.extension_number

    def test_a_question_that_is_none_ends_the_stream(self, tool: Tool) -> None:
        assert status_of(list, tool._guest.open(b"\xff", method=tool._method)) == "INVALID_ARGUMENT"

    def test_who_asks_and_does_not_listen_must_wait(self, server_of: Any, model: Any) -> None:
        server = server_of(model)
        with Guest(server.address) as guest:
            taken: list[int] = []
            question = ServerReflectionRequest(host="h" * (MIB // 8), list_services="").SerializeToString()

            def questions() -> Any:
                for number in range(1000):
                    taken.append(number)
                    yield question

            guest.pour(questions(), method=REFLECTION[0])
            eventually(lambda: server._front.counters()["sends"])
            for _ in range(20):
                guest.call(asked(""), CHECK)
            assert len(taken) < 1000

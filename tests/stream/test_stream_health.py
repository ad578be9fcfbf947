"""The health port, asked by grpcio's own stubs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from waiting import BOUND

from aipod.errors import Unavailable
from aipod.rpc.health import HealthServer

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[HealthServer, Any]]:
    async with (
        HealthServer("127.0.0.1:0") as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        yield server, health_pb2_grpc.HealthStub(channel)


async def check(stub: Any, service: str = "") -> int:
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=BOUND)
    return int(answer.status)


async def following(call: Any) -> int:
    answer = await asyncio.wait_for(call.read(), BOUND)
    return int(answer.status)


def test_it_serves_nothing_until_it_is_told_and_then_what_it_is_told() -> None:
    async def scenario() -> None:
        async with serving() as (server, stub):
            assert await check(stub) == NOT_SERVING
            for state, said in ((True, SERVING), (False, NOT_SERVING), (True, SERVING)):
                server.set("", state)
                assert await check(stub) == said

    asyncio.run(scenario())


def test_each_service_has_its_own_state_and_an_unknown_one_is_not_found() -> None:
    async def scenario() -> None:
        async with serving() as (server, stub):
            server.set("a", True)
            server.set("b", False)
            assert (await check(stub, "a"), await check(stub, "b")) == (SERVING, NOT_SERVING)
            server.drop("a")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await check(stub, "a")
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND

    asyncio.run(scenario())


def test_who_watches_is_told_of_every_change_and_of_nothing_else() -> None:
    async def scenario() -> None:
        async with serving() as (server, stub):
            watch = stub.Watch(health_pb2.HealthCheckRequest(service="a"))
            assert await following(watch) == UNKNOWN
            server.set("b", True)
            server.set("a", True)
            assert await following(watch) == SERVING
            server.set("a", True)
            server.set("a", False)
            assert await following(watch) == NOT_SERVING
            server.drop("a")
            assert await following(watch) == UNKNOWN
            watch.cancel()

    asyncio.run(scenario())


def test_somebody_who_watches_and_never_reads_holds_up_nobody() -> None:
    async def scenario() -> None:
        async with serving() as (server, stub):
            silent = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(50)]
            for call in silent:
                await call.initial_metadata()
            for state in (True, False) * 200:
                server.set("", state)
                await asyncio.sleep(0)
            server.set("", True)
            assert await check(stub) == SERVING
            for call in silent:
                call.cancel()

    asyncio.run(scenario())


def test_a_port_that_is_taken_is_said_to_be_and_never_shared() -> None:
    async def scenario(port: int) -> None:
        with pytest.raises(Unavailable, match=rf"nothing can listen on '127.0.0.1:{port}': .*; choose another port"):
            await HealthServer(f"127.0.0.1:{port}").start()

    async def twice() -> None:
        async with HealthServer("127.0.0.1:0") as server:
            await scenario(server.port)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        asyncio.run(scenario(taken.getsockname()[1]))
    asyncio.run(twice())


@pytest.mark.parametrize("address", ["", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", "[::1]:-1", "no.invalid:0"])
def test_an_address_that_is_none_is_a_clear_error(address: str) -> None:
    async def scenario() -> None:
        with pytest.raises(Unavailable, match="nothing can listen on"):
            await HealthServer(address).start()

    asyncio.run(scenario())


def test_a_port_of_the_other_kind_of_addresses_is_taken_too(capfd: pytest.CaptureFixture[str]) -> None:
    async def scenario(port: int) -> None:
        with pytest.raises(Unavailable, match=rf"nothing can listen on '\[::\]:{port}': Address already in use"):
            await HealthServer(f"[::]:{port}").start()

    with socket.create_server(("127.0.0.1", 0)) as taken:
        asyncio.run(scenario(taken.getsockname()[1]))
    assert capfd.readouterr() == ("", "")  # gRPC has nothing to say of its own

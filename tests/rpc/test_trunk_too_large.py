"""What gRPC and protobuf cannot carry whole: it goes by a trunk, and waits for one; what cannot is told so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import grpc
import numpy as np
import pytest
from fake_trunk_server import ALONE, FakeTrunkServer, greeting
from raw_trunk import RawTrunk, call
from waiting import BOUND, eventually

from aipod.codec import encode_call, encode_reply
from aipod.errors import ModelError, SerializationError
from aipod.memory import resident_bytes
from aipod.model import AIModelBase
from aipod.rpc.client import AIClient, AsyncAIClient
from aipod.rpc.server import Server
from aipod.rpc.v1 import trunk_pb2 as pb

MIB = 1 << 20
GIB = 1 << 30
WHOLE = 300_000
LARGE = np.arange(2 * WHOLE, dtype=np.uint8)
# Nobody has written to it, so it takes no memory.
HUGE = np.zeros(2 * GIB, np.uint8)
TOO_LARGE = r"^message: \d+ bytes are more than the \d+ of a call that goes alone; send them in parts, or on a trunk"


class Model(AIModelBase):
    def initialize(self, **kwargs: Any) -> Any:
        return True

    def predict(self, x: Any = None, size: int = 0) -> Any:
        return np.ones(size, np.uint8) if size else x


@pytest.fixture
def lower(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot travel whole begins early, for gigabytes are too much for a test."""
    monkeypatch.setattr("aipod.codec.wire.MAX_WHOLE_BYTES", WHOLE)
    monkeypatch.setattr("aipod.rpc.connection.MAX_WHOLE_BYTES", WHOLE)


def ups(client: Any) -> int:
    trunks = client._connections[0]._trunks
    return len(trunks._up) if trunks is not None else 0


@pytest.mark.parametrize("trunk", [True, False])
def test_limits_above_what_grpc_knows_work_like_any_other(
    server_of: Callable[..., Server], client_of: Callable[..., AIClient], trunk: bool
) -> None:
    server = server_of(Model, max_message_bytes=1024 * GIB)
    client = client_of(server, max_message_bytes=2**40, trunk=trunk, shared_memory=False)
    for _ in range(3):
        assert (client.predict(x=LARGE) == LARGE).all()
    assert ups(client) == trunk


def test_who_takes_larger_answers_waits_for_a_trunk_with_his_first_call(
    server_of: Callable[..., Server], client_of: Callable[..., AIClient], lower: None
) -> None:
    client = client_of(server_of(Model, shared_memory_bytes=0))
    assert (client.predict(size=2 * WHOLE) == 1).all()
    assert ups(client) == 1


@pytest.mark.parametrize("shared", [0, GIB])
def test_a_first_call_that_is_too_large_to_go_alone_waits_for_a_trunk(
    server_of: Callable[..., Server], client_of: Callable[..., AIClient], lower: None, shared: int
) -> None:
    server = server_of(Model, shared_memory_bytes=shared)
    client = client_of(server, max_message_bytes=WHOLE)
    with pytest.raises(Exception, match=r"larger than max \(60\d+ vs\. 300000\)"):
        client.predict(x=LARGE)
    assert ups(client) == 1

    async def main() -> None:
        async with AsyncAIClient(server.address, "v") as client:
            assert (await client.predict(x=LARGE) == LARGE).all()
            assert ups(client) == 1

    asyncio.run(main())


def test_where_there_is_no_trunk_it_is_an_error_that_says_what_to_do(
    server_of: Callable[..., Server], client_of: Callable[..., AIClient]
) -> None:
    server = server_of(Model)
    client = client_of(server, trunk=False)
    for send in (client.predict, client.train, client.initialize, client.submit):
        with pytest.raises(SerializationError, match=TOO_LARGE):
            send(x=HUGE)
    # These two never go by one.
    connected = client_of(server)
    assert connected.connect(BOUND)
    for send in (connected.train, connected.initialize):
        with pytest.raises(SerializationError, match=TOO_LARGE):
            send(x=HUGE)

    async def main() -> None:
        async with AsyncAIClient(server.address, "v", trunk=False) as client:
            with pytest.raises(SerializationError, match=TOO_LARGE):
                await client.predict(x=HUGE)

    asyncio.run(main())


def test_what_the_server_takes_on_no_trunk_is_an_error_too(
    server_of: Callable[..., Server], client_of: Callable[..., AIClient], lower: None
) -> None:
    client = client_of(server_of(Model, max_message_bytes=MIB, max_queue_bytes=MIB), shared_memory=False)
    assert client.connect(BOUND)
    with pytest.raises(SerializationError, match=TOO_LARGE):
        client.predict(x=np.zeros(2 * MIB, np.uint8))
    assert client.predict(x=1) == 1


def test_a_server_that_has_no_trunks_is_not_waited_for_over_and_over(
    server_of: Callable[..., Server], client_of: Callable[..., AIClient], lower: None
) -> None:
    client = client_of(server_of(Model, max_message_bytes=MIB // 2, max_kwargs_bytes=1000))
    with pytest.raises(SerializationError, match=TOO_LARGE):
        client.predict(x=LARGE)
    eventually(lambda: not client._connections[0]._trunks.may_come)
    assert client.predict(x=1) == 1


def test_an_answer_that_is_too_large_for_a_call_alone_is_the_models_error(
    server_of: Callable[..., Server], client_of: Callable[..., AIClient], lower: None
) -> None:
    client = client_of(server_of(Model), trunk=False)
    with pytest.raises(ModelError, match=r"predict\(\) returned what cannot travel: " + TOO_LARGE[1:]):
        client.predict(size=2 * WHOLE)


def test_a_trunk_that_ends_before_it_has_left_is_waited_for_again(
    lower: None, background: Callable[..., Future[Any]]
) -> None:
    streams: list[int] = []

    def behave(frames: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        streams.append(len(streams))
        if len(streams) == 1:
            # No call is granted, so none can leave.
            yield greeting(calls=0, size=GIB)
            eventually(lambda: client._connections[0].load)
            return
        yield greeting(size=GIB)
        for frame in frames:
            for one in pb.ClientFrame.FromString(frame).calls:
                yield pb.ServerFrame(replies=[pb.Reply(number=one.number, reply=encode_reply("b"))]).SerializeToString()

    with FakeTrunkServer(behave) as server, AIClient(server.address, shared_memory=False) as client:
        assert client.connect(BOUND)
        assert client.predict(x=1, data=LARGE) == "b" != ALONE
    assert len(streams) == 2


def test_a_terabyte_that_is_announced_and_never_comes_costs_nothing(server_of: Callable[..., Server]) -> None:
    server = server_of(Model, max_message_bytes=1024 * GIB)
    before = resident_bytes()
    with RawTrunk(server.address) as trunk:
        for number in range(1, 9):
            trunk.send(call(number, size=100 * GIB, timeout=BOUND))
        trunk.send(pb.ClientFrame(chunk=pb.Chunk(number=1, data=bytes(1000)), cancels=range(1, 9)))
        outcomes = [trunk.answer(number) for number in range(1, 9)]
        # A system may say at once that it has not so much.
        assert {outcome.status for outcome in outcomes} <= {"CANCELLED", "RESOURCE_EXHAUSTED"}
        assert resident_bytes() - before < 64 * MIB
        trunk.send(call(9, encode_call("v", {"x": 9})))
        assert trunk.answer(9).status == "OK"

"""Arrays between a client and a server of one host: through memory that both share, whatever either does with them."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from waiting import BOUND, eventually

from aipod.errors import AipodError, InvalidArgument, ModelError
from aipod.model import AIModelBase
from aipod.rpc.client import AIClient, AsyncAIClient
from aipod.rpc.server import Server
from aipod.shm import Link

MIB = 1 << 20
LARGE = np.arange(MIB, dtype=np.float32)


class Keeper(AIModelBase):
    """Keeps, returns or spoils what it gets."""

    kept: ClassVar[list[Any]] = []

    def predict(self, do: str = "return", **kwargs: Any) -> Any:
        if do == "keep":
            type(self).kept.append(kwargs["x"])
            return len(type(self).kept)
        if do == "sum":
            return float(kwargs["x"].sum())
        if do == "spoil":
            kwargs["x"][0] = 1
        if do == "fail":
            raise ValueError("no")
        return kwargs.get("x")


@pytest.fixture
def server(server_of: Callable[..., Server]) -> Server:
    Keeper.kept = []
    return server_of(Keeper)


@pytest.fixture
def client(server: Server, client_of: Callable[..., AIClient]) -> AIClient:
    client = client_of(server)
    assert client.connect(BOUND)
    assert shared(client) is not None
    return client


def shared(client: AIClient) -> Link | None:
    """The memory of a client that is connected, once it is there."""
    connection = client._connections[0]
    assert connection._trunks is not None
    (trunk,) = connection._trunks._up
    return trunk.neighbour.wait()


def lent(client: AIClient) -> int:
    link = shared(client)
    assert link is not None
    return link.arena.statistics()["lent"]


def test_a_large_array_goes_and_comes_through_shared_memory(client: AIClient) -> None:
    link = shared(client)
    assert link is not None
    answer = client.predict(x=LARGE)
    assert (answer == LARGE).all() and not answer.flags.writeable
    assert len(link.borrowed._open) == 1
    assert link.arena.statistics()["backed_bytes"] >= LARGE.nbytes
    del answer
    eventually(lambda: not link.borrowed._open)
    eventually(lambda: lent(client) == 0)


def test_large_bytes_go_the_same_way_and_stay_bytes(client: AIClient) -> None:
    data = bytes(range(256)) * 4096
    assert client.predict(x=data) == data
    eventually(lambda: lent(client) == 0)


def test_a_model_may_keep_what_it_got(client: AIClient) -> None:
    arrays = [np.full(100_000, number, np.int64) for number in range(5)]
    for number, array in enumerate(arrays, 1):
        assert client.predict(do="keep", x=array) == number
        array[:] = -1
    for _ in range(20):
        client.predict(x=LARGE)
    assert [int(array[0]) for array in Keeper.kept] == [0, 1, 2, 3, 4]
    assert lent(client) >= 5
    Keeper.kept.clear()
    gc.collect()
    eventually(lambda: lent(client) == 0)


def test_a_caller_may_keep_what_he_got(client: AIClient) -> None:
    answers = [client.predict(x=np.full(100_000, number)) for number in range(8)]
    client.close()
    assert [int(answer[-1]) for answer in answers] == list(range(8))


def test_a_model_that_writes_to_its_input_is_told_and_the_sender_keeps_his(client: AIClient) -> None:
    array = client.empty(100_000)
    array[:] = 7
    with pytest.raises(ModelError, match="write to a copy"):
        client.predict(do="spoil", x=array)
    assert (array == 7).all()


def test_a_call_that_fails_gives_its_memory_back(client: AIClient) -> None:
    for _ in range(10):
        with pytest.raises(ModelError):
            client.predict(do="fail", x=LARGE)
    eventually(lambda: lent(client) == 0)


def test_an_array_of_the_clients_own_is_lent_where_it_lies(client: AIClient) -> None:
    link = shared(client)
    assert link is not None
    array = client.empty((256, 1024), "f4")
    array[:] = LARGE[: array.size].reshape(array.shape)
    backed = link.arena.statistics()["backed_bytes"]
    for part in (array, array[10:], array[:, :]):
        assert client.predict(do="sum", x=part) == pytest.approx(float(part.sum()), rel=1e-3)
    assert link.arena.statistics()["backed_bytes"] == backed
    del array, part
    eventually(lambda: lent(client) == 0 and link.arena.statistics()["used_bytes"] == 0)


BAD_SHAPES = [-1, (2, -3), 1.5, (1.5,), "3", None, {"a": 1}, (1,) * 65]
BAD_DTYPES = [object, "O", [("a", "i4"), ("b", object)], "nonsense", 5, "U0"]


@pytest.mark.parametrize("shares", [True, False])
def test_an_array_that_there_cannot_be_is_refused(
    server: Server, client_of: Callable[..., AIClient], shares: bool
) -> None:
    client = client_of(server, shared_memory=shares)
    for shape in BAD_SHAPES:
        with pytest.raises(InvalidArgument, match=r"^shape is .*; give a whole number"):
            client.empty(shape)  # type: ignore[arg-type]
    # What was in that memory before would be taken for their addresses.
    for dtype in BAD_DTYPES:
        with pytest.raises(InvalidArgument, match=r"^dtype is .*; give one that can travel"):
            client.empty(2, dtype)
    shapes = [client.empty(shape).shape for shape in (3, np.int64(3), [2, 3], np.array([2, 3]), (), 0)]
    assert shapes == [(3,), (3,), (2, 3), (2, 3), (), (0,)]


def test_truths_and_texts_that_are_shared_arrive_as_they_are(client: AIClient) -> None:
    for array in (np.arange(200_000) % 3 == 0, np.array(["模型", "x"] * 50_000), np.zeros(90_000, "M8[s]")):
        answer = client.predict(x=array)
        assert answer.dtype == array.dtype and (answer == array).all()


@pytest.mark.parametrize("setting", [{"shared_memory_bytes": 0}, {}])
def test_without_shared_memory_the_socket_carries_everything(
    server_of: Callable[..., Server], client_of: Callable[..., AIClient], setting: dict[str, Any]
) -> None:
    server = server_of(Keeper, **setting)
    client = client_of(server, shared_memory=bool(setting))
    assert client.connect(BOUND)
    assert (client.predict(x=LARGE) == LARGE).all()
    array = client.empty(1000)
    assert array.base is None and array.flags.writeable


def test_more_than_there_is_room_for_goes_through_the_socket(
    server_of: Callable[..., Server], client_of: Callable[..., AIClient]
) -> None:
    client = client_of(server_of(Keeper, shared_memory_bytes=8 * MIB))
    assert client.connect(BOUND) and shared(client) is not None
    kept = [client.predict(x=LARGE + number) for number in range(6)]
    assert [float(answer[0]) for answer in kept] == list(range(6))
    assert (client.predict(x=np.zeros(5 * MIB)) == 0).all()


def test_the_limit_on_messages_counts_what_is_shared(
    server_of: Callable[..., Server], client_of: Callable[..., AIClient]
) -> None:
    server = server_of(Keeper, max_message_bytes=2 * MIB)
    sentences = []
    for options in ({}, {"shared_memory": False}, {"trunk": False}):
        client = client_of(server, **options)
        client.predict()
        client.connect(BOUND)
        with pytest.raises(AipodError, match="max_message_bytes") as caught:
            client.predict(do="sum", x=LARGE)
        sentences.append((type(caught.value), str(caught.value).split("(")[0]))
    assert len(set(sentences)) == 1


def test_coroutines_share_too(server: Server) -> None:
    async def main() -> None:
        async with AsyncAIClient(server.address, "v") as client:
            array = await client.empty(LARGE.shape)
            assert array.base is not None
            array[:] = LARGE
            answers = await asyncio.gather(*(client.predict(x=array) for _ in range(20)))
            assert all((answer == LARGE).all() for answer in answers)

    asyncio.run(main())


SCRIPT = """
    from aipod.model import AIModelBase
    from aipod.rpc.server import serve

    class Echo(AIModelBase):
        def predict(self, x=None):
            return x

    serve(Echo)
"""


def test_a_server_that_is_killed_leaves_what_was_received_and_a_new_one_shares_again(
    process_of: Callable[..., Any], client_of: Callable[..., AIClient]
) -> None:
    process = process_of(SCRIPT)
    client = client_of(process.address)
    for number in range(3):
        client.predict()
        assert client.connect(BOUND) and shared(client) is not None
        answer = client.predict(x=LARGE + number)
        process.send(signal.SIGKILL)
        process.wait()
        assert float(answer[0]) == number
        process.start()


def test_a_client_that_is_gone_leaves_no_mapping_behind(server: Server, client_of: Callable[..., AIClient]) -> None:
    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count("memfd:")

    before = mapped()
    gc.disable()
    try:
        for _ in range(3):
            client = client_of(server)
            assert client.connect(BOUND) and shared(client) is not None
            assert (client.predict(x=LARGE) == LARGE).all()
            client.close()
        eventually(lambda: mapped() <= before)
    finally:
        gc.enable()

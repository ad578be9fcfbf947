"""Futures, maps, several servers, priorities and timings: what a client can do with many calls."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any, ClassVar

import numpy as np
import pytest
from waiting import BOUND, eventually

from aipod.errors import (
    AipodError,
    ConfigError,
    DeadlineExceeded,
    InvalidArgument,
    ModelError,
    SerializationError,
    Unavailable,
)
from aipod.model import AIModelBase, current_call
from aipod.rpc.client import AIClient, AsyncAIClient, Timed
from aipod.rpc.connection import Connection
from aipod.rpc.server import Server


class Worker(AIModelBase):
    gate: ClassVar[threading.Event]
    order: ClassVar[list[Any]]
    left: ClassVar[list[Any]]

    def train(self) -> None:
        """Publish what there is."""

    def predict(self, x: Any = None, do: str = "") -> Any:
        if do == "wait":
            type(self).order.append("waits")
            while not self.gate.wait(0.01):
                if current_call().cancelled:
                    type(self).left.append(x)
                    break
        if do == "fail":
            raise ValueError("no")
        if do == "away":
            type(self).order.append("away")
            raise Unavailable("the database is away")
        type(self).order.append(x)
        return x


class Batched(AIModelBase):
    def predict_batch(self, inputs: list[dict[str, Any]]) -> list[Any]:
        time.sleep(0.05)
        return [one["x"] for one in inputs]


@pytest.fixture
def server(server_of: Callable[..., Server]) -> Server:
    Worker.gate, Worker.order, Worker.left = threading.Event(), [], []
    return server_of(Worker, max_concurrency=1)


@pytest.fixture(params=[True, False], ids=["together", "alone"])
def client(request: Any, server: Server, client_of: Callable[..., AIClient]) -> AIClient:
    client = client_of(server, trunk=request.param)
    client.predict()
    assert client.connect(BOUND) is request.param
    return client


class TestSubmit:
    def test_a_future_has_the_value_or_the_error(self, client: AIClient) -> None:
        futures = [client.submit(x=number) for number in range(50)]
        assert [future.result(BOUND) for future in futures] == list(range(50))
        with pytest.raises(ModelError, match="ValueError: no"):
            client.submit(do="fail").result(BOUND)

    def test_what_cannot_travel_fails_at_once(self, client: AIClient) -> None:
        with pytest.raises(SerializationError, match='kwargs\\["x"\\]'):
            client.submit(x={1, 2})

    def test_its_timeout_holds(self, client: AIClient) -> None:
        future = client.options(timeout=0.3).submit(do="wait")
        with pytest.raises(DeadlineExceeded):
            future.result(BOUND)
        Worker.gate.set()

    def test_what_the_model_raises_is_not_tried_again(self, client: AIClient) -> None:
        with pytest.raises(Unavailable, match="database"):
            client.submit(do="away").result(BOUND)
        assert Worker.order.count("away") == 1

    def test_arrays_are_copied_before_it_returns(self, client: AIClient) -> None:
        first = client.submit(do="wait")
        array = np.ones(100)
        second = client.submit(x=array)
        array[:] = 99
        Worker.gate.set()
        assert first.result(BOUND) is None
        assert (second.result(BOUND) == 1).all()

    def test_a_future_under_close_says_whether_its_call_can_have_run(self, client: AIClient) -> None:
        future = client.submit(do="wait")
        eventually(lambda: "waits" in Worker.order)
        client.close()
        with pytest.raises(Unavailable) as caught:
            future.result(BOUND)
        assert caught.value.may_have_run
        with pytest.raises(Unavailable, match="was closed"):
            client.submit().result(BOUND)
        Worker.gate.set()


def test_a_future_that_is_cancelled_gives_the_call_up(server: Server, client_of: Callable[..., AIClient]) -> None:
    client = client_of(server)
    assert client.connect(BOUND)
    running, waiting = client.submit(x=1, do="wait"), client.submit(x=2)
    eventually(lambda: "waits" in Worker.order)
    assert waiting.cancel() and running.cancel()
    eventually(lambda: Worker.left == [1])
    with pytest.raises(CancelledError):
        waiting.result()
    assert client.predict(x=3) == 3
    assert 2 not in Worker.order


class TestMap:
    def test_results_come_in_the_order_of_their_inputs(self, client: AIClient) -> None:
        assert list(client.map(({"x": number} for number in range(300)), in_flight=16)) == list(range(300))
        assert list(client.map([])) == []

    def test_inputs_are_taken_as_they_are_needed(self, client: AIClient) -> None:
        taken = []

        def inputs() -> Any:
            for number in range(1000):
                taken.append(number)
                yield {"x": number}

        results = client.map(inputs(), in_flight=4)
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        assert len(taken) <= 7
        results.close()

    @pytest.mark.parametrize("inputs", [{"x": 1}, [{"x": 1}, 5], ["x"]])
    def test_an_input_that_is_no_dictionary_is_refused(self, client: AIClient, inputs: Any) -> None:
        with pytest.raises(InvalidArgument, match=r"an input of map is of type (str|int); give a dictionary"):
            list(client.map(inputs))

        async def main() -> None:
            async with AsyncAIClient(client.address) as other:
                with pytest.raises(InvalidArgument, match=r"an input of map is of type (str|int)"):
                    [answer async for answer in other.map(inputs)]

        asyncio.run(main())

    def test_the_first_failure_ends_it(self, client: AIClient) -> None:
        results = client.map([{"x": 1}, {"do": "fail"}, {"x": 2}])
        assert next(results) == 1
        with pytest.raises(ModelError):
            next(results)

    @pytest.mark.parametrize("number", [0, -1, 1.5, True, None, 10**6])
    def test_a_number_that_makes_no_sense_is_refused(self, client: AIClient, number: Any) -> None:
        with pytest.raises(InvalidArgument, match="in_flight"):
            client.map([], in_flight=number)


def test_coroutines_map_too(server: Server) -> None:
    async def main() -> list[Any]:
        async with AsyncAIClient(server.address) as client:
            return [result async for result in client.map(({"x": number} for number in range(100)), in_flight=8)]

    assert asyncio.run(main()) == list(range(100))


class TestOptions:
    def test_a_higher_priority_is_served_first(self, client: AIClient) -> None:
        busy = client.submit(do="wait")
        eventually(lambda: "waits" in Worker.order)
        futures = [client.submit(x="first"), client.options(priority=10).submit(x="urgent")]
        futures.append(client.options(priority=-10).submit(x="whenever"))
        eventually(lambda: client.admin.statistics().lanes[0].queued == 3)
        Worker.gate.set()
        for future in (busy, *futures):
            future.result(BOUND)
        assert [one for one in Worker.order if isinstance(one, str) and one != "waits"] == [
            "urgent",
            "first",
            "whenever",
        ]

    @pytest.mark.parametrize("priority", [61, -61, 1.0, True, "high"])
    def test_a_priority_that_is_none_is_refused(self, client: AIClient, priority: Any) -> None:
        with pytest.raises(InvalidArgument, match="priority"):
            client.options(priority=priority)

    def test_timings_come_where_they_are_asked_for(self, client: AIClient) -> None:
        value = client.options(timed=True).predict(x=7)
        assert isinstance(value, Timed) and value.value == 7
        timings = value.timings
        parts = timings.queue + timings.decode + timings.predict + timings.encode
        assert timings.total > 0 and parts == pytest.approx(timings.total, rel=0.5, abs=0.01)
        assert client.options(timed=True).submit(x=8).result(BOUND).value == 8
        assert client.predict(x=9) == 9
        lane = client.admin.statistics().lanes[0]
        assert lane.run_seconds > 0 and lane.queue_seconds > 0 and lane.batches is None

    @pytest.mark.parametrize("method", ["initialize", "train", "log"])
    def test_timings_of_what_is_no_predict_add_up_too(self, client: AIClient, method: str) -> None:
        client.initialize()
        timings = getattr(client.options(timed=True), method)().timings
        parts = timings.queue + timings.decode + timings.predict + timings.encode
        assert timings.predict > 0 and parts == pytest.approx(timings.total)


def test_timings_and_statistics_of_a_batch(
    server_of: Callable[..., Server], client_of: Callable[..., AIClient]
) -> None:
    client = client_of(server_of(Batched))
    assert client.connect(BOUND)
    futures = [client.options(timed=True).submit(x=number) for number in range(8)]
    results = [future.result(BOUND) for future in futures]
    assert [result.value for result in results] == list(range(8))
    assert all(result.timings.predict >= 0.05 for result in results)
    batches = client.admin.statistics().lanes[0].batches
    assert batches is not None and batches.calls == 8 and batches.batches <= batches.runs


class TestSeveralServers:
    def test_calls_are_spread_and_a_server_that_ends_is_left_out(
        self, server_of: Callable[..., Server], client_of: Callable[..., AIClient], tmp_path: Any
    ) -> None:
        Worker.gate, Worker.order, Worker.left = threading.Event(), [], []
        first = server_of(Worker, data_path=tmp_path / "a")
        second = server_of(Worker, data_path=tmp_path / "b")
        client = AIClient([first.address, second.address])
        with client:
            assert client.connect(BOUND)
            assert list(client.map(({"x": number} for number in range(100)), in_flight=10)) == list(range(100))
            done = [AIClient(server.address).admin.statistics().lanes[0].done for server in (first, second)]
            assert sum(done) == 100 and min(done) >= 20
            first.stop()
            assert [client.predict(x=number) for number in range(20)] == list(range(20))
            with pytest.raises(InvalidArgument, match="several servers"):
                _ = client.admin
        assert client.address == f"{first.address},{second.address}"

    def test_none_of_them_being_there_is_an_error(self) -> None:
        with AIClient(["127.0.0.1:1", "127.0.0.1:2"]).options(retry=0) as client, pytest.raises(Unavailable):
            client.predict()

    @pytest.mark.parametrize("addresses", [[], [""], ["localhost:1", 5], "", [None]])
    def test_a_list_with_what_is_no_address_is_refused(self, addresses: Any) -> None:
        with pytest.raises(ConfigError):
            AIClient(addresses)

    def test_coroutines_too(self, server: Server) -> None:
        async def main() -> list[Any]:
            async with AsyncAIClient(["127.0.0.1:1", server.address]) as client:
                return [await client.predict(x=number) for number in range(5)]

        assert asyncio.run(main()) == [0, 1, 2, 3, 4]


def test_a_closed_client_says_so_and_does_not_try_again(client: AIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(self: Connection, seconds: float) -> None:
        raise AssertionError("it waits for something")

    client.close()
    monkeypatch.setattr(Connection, "pause", sleep)
    with pytest.raises(AipodError, match="this client was closed"):
        client.predict()


def test_calls_to_a_name_go_to_all_the_servers_that_it_stands_for(
    server_of: Callable[..., Server], tmp_path: Any
) -> None:
    Worker.gate, Worker.order, Worker.left = threading.Event(), [], []
    if not socket.has_dualstack_ipv6():
        pytest.skip("localhost is one address here")
    first = server_of(Worker, data_path=tmp_path / "a")
    port = int(first.address.rpartition(":")[2])
    second = server_of(Worker, port=port, listen_host="[::1]", data_path=tmp_path / "b")
    with AIClient(f"dns:///localhost:{port}") as client:
        assert client.connect(BOUND)

        def done() -> list[int]:
            assert [client.predict(x=number) for number in range(20)] == list(range(20))
            return [sum(lane.counts.done for lane in one.engine.admin.statistics().lanes) for one in (first, second)]

        eventually(lambda: min(done()) >= 20)

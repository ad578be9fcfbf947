"""The promises of trunks: what a caller may rely on, and what becomes of calls when a stream ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy
import pytest
from fake_trunk_server import ALONE, FakeTrunkServer, greeting
from raw_trunk import Outcome, RawTrunk, call
from waiting import BOUND, eventually

from aipod.codec import decode_reply, encode_call, encode_reply
from aipod.errors import DeadlineExceeded, ModelError, Unavailable
from aipod.model import AIModelBase, current_call
from aipod.rpc import trunk_service
from aipod.rpc.calls import Content
from aipod.rpc.client import AIClient, AsyncAIClient
from aipod.rpc.trunk import chunks, keeper
from aipod.rpc.trunk.request import Request
from aipod.rpc.trunk.trunk import Trunk
from aipod.rpc.v1 import trunk_pb2 as pb

MIB = 2**20
ASK = {"x": 1}


def request(**kwargs: Any) -> bytes:
    return encode_call("v", kwargs)


def value(outcome: Outcome) -> Any:
    assert outcome.status == "OK", outcome
    return decode_reply(outcome.content)


def trunk_of(client: Any) -> Trunk:
    """The one that a client has up."""
    return client._connections[0]._trunks._up[0]


def streams(server: Any) -> int:
    """How many trunks a server has open."""
    return len(server._trunks._trunks)


@pytest.fixture
def connected(client_of):
    """Makes clients whose trunk is up."""

    def make(server: Any, **options: Any) -> AIClient:
        client = client_of(server, **options)
        assert client.connect(BOUND)
        return client

    return make


class TestCalls:
    def test_the_server_greets_and_grants_first(self, server_of, model):
        with RawTrunk(server_of(model).address) as trunk:
            trunk.send(pb.ClientFrame(greeting=pb.Greeting(wire_version=1)))
            trunk.read()
            assert trunk.greeting.wire_version == 1
            assert "trunk" in trunk.greeting.abilities
            assert trunk.grant.calls >= 1000
            assert trunk.grant.bytes >= MIB

    def test_answers_come_as_they_are_ready(self, server_of, model):
        with RawTrunk(server_of(model).address) as trunk:
            trunk.send(call(7, request(do="wait")))
            trunk.send(call(3, request(x=3)))
            assert value(trunk.answer(3)) == {"x": 3}
            assert 7 not in trunk.replies
            model.gate.set()
            assert value(trunk.answer(7)) == {}

    def test_many_calls_of_one_frame_are_each_answered_once(self, server_of, model):
        with RawTrunk(server_of(model).address) as trunk:
            trunk.send(pb.ClientFrame(calls=[pb.Call(number=n, request=request(x=n)) for n in range(500)]))
            for number in range(500):
                assert value(trunk.answer(number)) == {"x": number}

    def test_an_answer_does_not_wait_for_a_call_that_takes_long(self, server_of, model):
        with RawTrunk(server_of(model, rpc_max_workers=1).address) as trunk:
            for turn in range(30):
                numbers = range(100 * turn, 100 * turn + 64)
                trunk.send(pb.ClientFrame(calls=[pb.Call(number=n, request=request(x=n)) for n in numbers]))
                for number in numbers:
                    trunk.answer(number)
            short, long = pb.Call(number=1, request=request(x=1)), pb.Call(number=2, request=request(do="wait"))
            trunk.send(pb.ClientFrame(calls=[short, long]))
            assert value(trunk.answer(1)) == {"x": 1}
            model.gate.set()
            assert value(trunk.answer(2)) == {}

    def test_a_number_may_come_again_once_it_was_answered(self, server_of, model):
        with RawTrunk(server_of(model).address) as trunk:
            for turn in range(3):
                trunk.send(call(1, request(x=turn)))
                assert value(trunk.answer(1)) == {"x": turn}

    def test_the_methods_of_the_unary_wire_are_all_there(self, server_of, model):
        with RawTrunk(server_of(model).address) as trunk:
            for method in (pb.INITIALIZE, pb.TRAIN, pb.LOG, pb.PREDICT):
                trunk.send(call(1, encode_call("v", {}), method=method))
                assert trunk.answer(1).status == "OK"

    def test_a_cancel_reaches_the_model_and_is_answered(self, server_of, model):
        seen = threading.Event()

        def predict(self: AIModelBase) -> None:
            self.entered.append("predict")
            running = current_call()
            eventually(lambda: running.cancelled)
            seen.set()

        model.predict = predict
        with RawTrunk(server_of(model).address) as trunk:
            trunk.send(call(1, encode_call("v", {})))
            eventually(lambda: model.entered)
            trunk.send(pb.ClientFrame(cancels=[1]))
            assert trunk.answer(1).status == "CANCELLED"
            assert seen.wait(BOUND)

    def test_a_coroutine_that_is_cancelled_cancels_its_call_in_the_model(self, server_of, model):
        entered, seen = threading.Event(), threading.Event()

        def predict(self: AIModelBase) -> None:
            entered.set()
            running = current_call()
            eventually(lambda: running.cancelled)
            seen.set()

        model.predict = predict
        server = server_of(model)

        async def main() -> None:
            async with AsyncAIClient(server.address) as client:
                assert await client.connect(BOUND)
                task = asyncio.create_task(client.predict())
                await asyncio.to_thread(entered.wait, BOUND)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert await asyncio.to_thread(seen.wait, BOUND)

        asyncio.run(main())

    def test_each_call_has_a_deadline_of_its_own(self, server_of, model):
        with RawTrunk(server_of(model).address) as trunk:
            for number, timeout in enumerate((0.3, 60.0, 0.1, 0.2)):
                trunk.send(call(number, request(do="wait"), timeout=timeout))
            for number in (2, 3, 0):
                assert trunk.answer(number) == ("DEADLINE_EXCEEDED", "Deadline Exceeded")
            assert 1 not in trunk.frames
            model.gate.set()
            assert value(trunk.answer(1)) == {}

    def test_a_deadline_is_kept_by_a_client_whose_server_says_nothing(self):
        def mute(frames: Iterator[bytes], context: Any) -> Iterator[bytes]:
            yield greeting()
            for _ in frames:
                pass

        async def main(address: str) -> None:
            async with AsyncAIClient(address) as client:
                assert await client.connect(BOUND)
                short, long = client.options(timeout=0.1), client.options(timeout=0.3)
                results = await asyncio.gather(*(one.predict() for one in (short, long) * 50), return_exceptions=True)
                assert {type(one) for one in results} == {DeadlineExceeded}

        with FakeTrunkServer(mute) as server:
            asyncio.run(main(server.address))
            with AIClient(server.address) as client:
                assert client.connect(BOUND)
                with pytest.raises(DeadlineExceeded):
                    client.options(timeout=0.1).predict()

    def test_a_client_that_leaves_takes_its_calls_along(self, server_of, connected, model, background):
        seen: list[object] = []

        def predict(self: AIModelBase) -> None:
            running = current_call()
            self.entered.append("predict")
            eventually(lambda: running.cancelled)
            seen.append(running)

        model.predict = predict
        server = server_of(model)
        client = connected(server)
        calls = [background(client.predict) for _ in range(3)]
        eventually(lambda: len(model.entered) == 3)
        client.close()
        for one in calls:
            assert isinstance(one.exception(BOUND), Unavailable)
        eventually(lambda: len(seen) == 3)
        eventually(lambda: streams(server) == 0)

    def test_a_stream_that_is_half_closed_still_gets_its_answers(self, server_of, model):
        with RawTrunk(server_of(model).address) as trunk:
            trunk.send(pb.ClientFrame(calls=[pb.Call(number=n, request=request(do="wait")) for n in range(3)]))
            trunk.half_close()
            eventually(lambda: len(model.entered) == 3)
            model.gate.set()
            assert trunk.end() == ("OK", "")
            assert {number: value(one) for number, one in trunk.replies.items()} == {0: {}, 1: {}, 2: {}}

    def test_a_request_that_is_not_whole_when_the_stream_is_half_closed_is_refused(self, server_of, model):
        with RawTrunk(server_of(model).address) as trunk:
            trunk.send(call(1, size=100, method=pb.TRAIN))
            trunk.half_close()
            assert trunk.end() == ("OK", "")
            assert trunk.replies[1].status == "INVALID_ARGUMENT"
        assert model.entered == []


class TestManyCallers:
    def test_a_hundred_threads_get_their_own_answers(self, server_of, connected, model, background):
        client = connected(server_of(model))

        def work(number: int) -> None:
            for n in range(20):
                assert client.predict(x=[number, n]) == {"x": [number, n]}

        for caller in [background(work, number) for number in range(100)]:
            caller.result(60)
        assert trunk_of(client).load == 0

    def test_thousands_of_coroutines_get_theirs(self, server_of, model):
        server = server_of(model, max_queue=10_000)

        async def main() -> list[object]:
            async with AsyncAIClient(server.address, "v") as client:
                assert await client.connect(BOUND)
                return await asyncio.gather(*(client.predict(x=number) for number in range(6000)))

        assert asyncio.run(main()) == [{"x": number} for number in range(6000)]

    def test_threads_and_coroutines_of_many_clients_share_a_server(self, server_of, connected, model, background):
        server = server_of(model)
        clients = [connected(server) for _ in range(5)]
        eventually(lambda: streams(server) == 5)
        for caller in [background(client.predict, x=n) for n in range(20) for client in clients]:
            caller.result(BOUND)
        for client in clients:
            client.close()
        eventually(lambda: streams(server) == 0)


class TestWindow:
    def test_callers_wait_beyond_the_calls_that_were_granted(
        self, server_of, connected, model, background, monkeypatch
    ):
        monkeypatch.setattr(trunk_service, "_CALLS", 4)
        server = server_of(model, rpc_max_workers=32)
        client = connected(server)
        calls = [background(client.predict, do="wait") for _ in range(20)]
        eventually(lambda: trunk_of(client).load == 20)
        eventually(lambda: len(model.entered) == 4)
        # More could have come before this did.
        with RawTrunk(server.address) as other:
            other.send(call(1, request(x=1)))
            assert value(other.answer(1)) == ASK
        assert len(model.entered) == 5
        model.gate.set()
        for one in calls:
            assert one.result(BOUND) == {}

    def test_callers_wait_beyond_the_bytes_that_were_granted(self, server_of, connected, model, background):
        # Without a window most of them would be refused, for the queue takes no more than that either.
        server = server_of(model, max_queue_bytes=MIB, max_message_bytes=MIB, rpc_max_workers=32)
        client = connected(server)
        data = os.urandom(400_000)
        calls = [background(client.predict, do="wait", data=data) for _ in range(10)]
        eventually(lambda: trunk_of(client).load == 10)
        eventually(lambda: len(model.entered) == 2)
        model.gate.set()
        for one in calls:
            assert one.result(BOUND) == {"data": data}

    def test_who_gives_up_in_the_window_is_never_sent(self, server_of, connected, model, background, monkeypatch):
        monkeypatch.setattr(trunk_service, "_CALLS", 1)
        client = connected(server_of(model))
        running = background(client.predict, do="wait")
        eventually(lambda: model.entered == ["wait"])
        with pytest.raises(DeadlineExceeded):
            client.options(timeout=0.05).predict(do="too late")
        assert trunk_of(client).load == 1
        model.gate.set()
        running.result(BOUND)
        assert client.predict(x=1) == ASK
        assert "too late" not in model.entered

    def test_a_grant_that_grows_lets_the_waiting_go(self, background):
        more = threading.Event()

        def behave(frames: Iterator[bytes], context: Any) -> Iterator[bytes]:
            yield greeting(calls=0)
            assert more.wait(BOUND)
            yield pb.ServerFrame(grant=pb.Grant(calls=1, bytes=MIB)).SerializeToString()
            for frame in frames:
                for one in pb.ClientFrame.FromString(frame).calls:
                    reply = pb.Reply(number=one.number, reply=encode_reply("granted"))
                    yield pb.ServerFrame(replies=[reply]).SerializeToString()

        with FakeTrunkServer(behave) as server, AIClient(server.address) as client:
            assert client.connect(BOUND)
            calls = [background(client.predict) for _ in range(5)]
            eventually(lambda: trunk_of(client).load == 5)
            more.set()
            assert [one.result(BOUND) for one in calls] == ["granted"] * 5


# Sizes of messages at which something changes.
EDGES = sorted(
    {
        edge + step
        for edge in (chunks.LARGE_BYTES, chunks.CHUNK_BYTES, 2 * chunks.CHUNK_BYTES, 4 * chunks.CHUNK_BYTES)
        for step in (-1, 0, 1)
    }
)


def sized(size: int, number: int) -> bytes:
    """A request of exactly so many bytes, whose argument is their number and some noise."""
    data = os.urandom(size - 200)
    message = encode_call("v", {"size": size, "number": number, "data": data})
    # Protobuf's own padding, to the byte.
    fill = size - len(message)
    padding = b"\x7a" + (bytes((fill - 2,)) if fill < 130 else bytes((fill - 3 & 0x7F | 0x80, fill - 3 >> 7)))
    message += padding + bytes(size - len(message) - len(padding))
    assert len(message) == size
    return message


class TestLarge:
    @pytest.mark.parametrize("size", EDGES)
    def test_a_message_is_cut_and_put_together_to_the_byte(self, size):
        message = os.urandom(size)
        leaving, arriving = chunks.Leaving(2**40, message), chunks.Arriving(size, memoryview(bytearray(size)))
        complete = False
        while not complete:
            frame = leaving.frame()
            both = pb.ClientFrame.FromString(frame), pb.ServerFrame.FromString(frame)
            number, data = chunks.read(frame)
            assert [(one.chunk.number, one.chunk.data) for one in both] == [(number, bytes(data))] * 2
            assert 0 < len(data) <= chunks.CHUNK_BYTES
            complete = arriving.add(data)
        assert leaving.left == 0
        assert bytes(arriving.message()) == message

    def test_a_message_above_two_gigabytes_is_cut_and_counted(self):
        # Zeros that nobody has written to take no memory.
        size = 2**31 + 5
        leaving, arriving = chunks.Leaving(1, numpy.zeros(size, numpy.uint8).data), chunks.Arriving(size, None)
        complete = False
        while not complete:
            assert leaving.left
            complete = arriving.add(chunks.read(leaving.frame())[1])
        assert leaving.left == 0
        assert bytes(arriving.message()) == b""

    def test_calls_of_every_size_come_back_to_the_byte(self, server_of, connected, model):
        client = connected(server_of(model))
        for edge in EDGES:
            for size in (edge, edge - 64, edge - 128):
                data = os.urandom(size)
                assert client.predict(data=data) == {"data": data}

    def test_a_request_of_another_author_may_come_whole_or_in_chunks_of_any_size(self, server_of, model):
        message = sized(200_000, 1)
        with RawTrunk(server_of(model).address) as trunk:
            trunk.send(call(1, message))
            trunk.send(pb.ClientFrame(calls=[pb.Call(number=2, size=len(message))]))
            for at in range(0, len(message), 77_777):
                trunk.send(pb.ClientFrame(chunk=pb.Chunk(number=2, data=message[at : at + 77_777])))
            # A call and a chunk in one frame, which ours never writes.
            both = pb.ClientFrame(
                calls=[pb.Call(number=3, size=len(message))], chunk=pb.Chunk(number=3, data=message[:1000])
            )
            trunk.send(both)
            trunk.send(pb.ClientFrame(chunk=pb.Chunk(number=3)))
            trunk.send(pb.ClientFrame(chunk=pb.Chunk(number=3, data=message[1000:])))
            answers = [value(trunk.answer(number)) for number in (1, 2, 3)]
            assert answers[0]["size"] == len(message)
            assert answers[0] == answers[1] == answers[2]

    def test_a_small_answer_overtakes_a_large_one(self, server_of, model):
        model.predict = lambda self, size: bytes(size)
        with RawTrunk(server_of(model).address) as trunk:
            trunk.send(call(1, request(size=50 * MIB)))
            while ("chunk", 1) not in trunk.frames:
                trunk.read()
            trunk.send(call(2, request(size=1)))
            assert value(trunk.answer(1)) == bytes(50 * MIB)
            assert 2 in trunk.frames

    def test_a_small_request_overtakes_a_large_one(self, background):
        begun, go = threading.Event(), threading.Event()
        order: list[object] = []

        def slow_reader(frames: Iterator[bytes], context: Any) -> Iterator[bytes]:
            yield greeting(size=100 * MIB)
            for frame in frames:
                parsed = pb.ClientFrame.FromString(frame)
                order.extend("large" if one.size else "small" for one in parsed.calls)
                if parsed.HasField("chunk"):
                    order.append("chunk")
                    begun.set()
                    assert go.wait(BOUND)
                if order.count("chunk") == 50 * MIB // chunks.CHUNK_BYTES + 1:
                    answers = [pb.Reply(number=number, reply=encode_reply(None)) for number in (1, 2)]
                    yield pb.ServerFrame(replies=answers).SerializeToString()

        with FakeTrunkServer(slow_reader) as server, AIClient(server.address) as client:
            assert client.connect(BOUND)
            large = background(client.predict, data=bytes(50 * MIB))
            assert begun.wait(BOUND)
            small = background(client.predict, x=1)
            eventually(lambda: trunk_of(client).load == 2)
            go.set()
            large.result(BOUND)
            small.result(BOUND)
        assert "chunk" in order[order.index("small") :]

    def test_a_cancel_amid_its_chunks_leaves_the_stream_whole(self, server_of, model):
        message = sized(500_000, 1)
        with RawTrunk(server_of(model).address) as trunk:
            trunk.send(call(1, size=len(message)))
            trunk.send(pb.ClientFrame(chunk=pb.Chunk(number=1, data=message[:200_000])))
            trunk.send(pb.ClientFrame(cancels=[1]))
            assert trunk.answer(1).status == "CANCELLED"
            trunk.send(pb.ClientFrame(chunk=pb.Chunk(number=1, data=message[200_000:])))
            trunk.send(call(2, request(x=1)))
            assert value(trunk.answer(2)) == ASK
        assert model.entered == ["echo"]

    def test_a_client_that_gives_up_amid_its_chunks_sends_no_more_of_them(self, server_of, model):
        server = server_of(model)

        async def main() -> None:
            async with AsyncAIClient(server.address, "v") as client:
                assert await client.connect(BOUND)
                for _ in range(5):
                    task = asyncio.create_task(client.predict(data=bytes(90 * MIB)))
                    for _ in range(3):
                        await asyncio.sleep(0)
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                    assert await client.predict(x=1) == ASK
                trunk = trunk_of(client)
                await asyncio.to_thread(eventually, lambda: not trunk.load and not trunk._leaving)

        asyncio.run(main())

    @pytest.mark.parametrize("fail", [False, True])
    def test_a_large_message_is_free_when_its_call_is_over(self, server_of, model, fail):
        """No cycle keeps megabytes waiting for the collector, on either side."""
        arrived: list[Any] = []

        def predict(self: AIModelBase, data: Any) -> None:
            arrived.append(weakref.ref(data.base))
            if fail:
                raise ValueError("no")

        model.predict = predict
        server = server_of(model)
        content = Content("v", {"data": numpy.zeros(MIB, numpy.uint8)}, priority=0, timed=False)

        def requests() -> list[object]:
            return [one for one in gc.get_objects() if isinstance(one, Request)]

        async def main() -> None:
            async with AsyncAIClient(server.address) as client:
                assert await client.connect(BOUND)
                with contextlib.suppress(ModelError):
                    await client._connections[0].call("predict", content, BOUND)

        with AIClient(server.address) as client:
            assert client.connect(BOUND)
            gc.collect()
            gc.disable()
            try:
                with contextlib.suppress(ModelError):
                    client._connections[0].call("predict", content, BOUND)
                asyncio.run(main())
                assert len(arrived) == 2
                eventually(lambda: not requests() and not any(one() for one in arrived))
            finally:
                gc.enable()


class TestEnds:
    def test_calls_that_were_sent_can_have_run_and_the_others_go_alone(
        self, server_of, connected, model, background, monkeypatch
    ):
        monkeypatch.setattr(trunk_service, "_CALLS", 4)
        client = connected(server_of(model, rpc_max_workers=32))
        calls = [background(client.options(retry=0).predict, do="wait") for _ in range(20)]
        eventually(lambda: trunk_of(client).load == 20 and len(model.entered) == 4)
        trunk_of(client).cut()
        eventually(lambda: len(model.entered) == 20)
        model.gate.set()
        errors = [one.exception(BOUND) for one in calls]
        lost = [error for error in errors if error is not None]
        assert len(lost) == 4
        for error in lost:
            assert isinstance(error, Unavailable)
            assert error.may_have_run
            assert "went away before it answered" in str(error)

    def test_a_predict_on_a_stream_that_breaks_is_sent_again(self, server_of, connected, model, background):
        client = connected(server_of(model))
        running = background(client.predict, do="wait")
        eventually(lambda: len(model.entered) == 1)
        trunk_of(client).cut()
        eventually(lambda: len(model.entered) == 2)
        model.gate.set()
        assert running.result(BOUND) == {}

    def test_the_next_stream_is_opened_by_the_calls_that_follow(self, server_of, connected, model):
        server = server_of(model)
        client = connected(server)
        first = trunk_of(client)
        first.cut()
        trunks = client._connections[0]._trunks
        # Between the two streams there is none.
        eventually(lambda: client.predict(x=1) == ASK and streams(server) == 1 and trunks._up not in ((), (first,)))

    def test_a_killed_server_costs_no_predict(self, process_of, background):
        process = process_of(SERVE)
        with AIClient(process.address) as client:
            assert client.connect(BOUND)
            patient = client.options(retry=60)
            calls = [background(patient.predict, seconds=0.2, x=number) for number in range(50)]
            assert client.predict(x=-1) == -1
            process.send(signal.SIGKILL)
            process.wait()
            process.start()
            assert [one.result(60) for one in calls] == list(range(50))

    def test_a_server_that_dies_under_a_call_says_that_it_can_have_run(self, process_of):
        process = process_of(SERVE)
        with AIClient(process.address) as client:
            assert client.connect(BOUND)
            with pytest.raises(Unavailable, match="the call can have run") as error:
                client.options(retry=0).predict(die=True)
            assert error.value.may_have_run

    def test_a_server_that_drains_hands_over_without_an_error(self, process_of, background):
        process = process_of(SERVE)
        ended = threading.Event()
        with AIClient(process.address) as client:
            assert client.connect(BOUND)
            patient = client.options(retry=60)

            def work() -> int:
                count = 0
                while not ended.is_set():
                    assert patient.predict(x=count) == count
                    count += 1
                return count

            workers = [background(work) for _ in range(8)]
            for _ in range(2):
                process.send(signal.SIGTERM)
                assert process.wait() == 0
                process.start()
                assert client.predict(x="served again") == "served again"
            ended.set()
            assert all(worker.result(60) for worker in workers)

    def test_a_stream_is_renewed_under_load_without_a_failed_call(
        self, server_of, connected, model, background, monkeypatch
    ):
        opened: list[object] = []
        monkeypatch.setattr(keeper, "_MAX_AGE", 0.02)
        server = server_of(model)
        client = connected(server)

        def work() -> None:
            while len(opened) < 10:
                assert client.options(retry=0).predict(x=1) == ASK
                up = client._connections[0]._trunks._up
                opened.extend(trunk for trunk in up if trunk not in opened)

        for one in [background(work) for _ in range(8)]:
            one.result(60)
        monkeypatch.setattr(keeper, "_MAX_AGE", 300.0)
        # Those that were left are ended when they are empty.
        eventually(lambda: client.predict(x=1) == ASK and streams(server) <= 2)

    def test_a_server_that_tells_of_its_drain_gets_no_more_calls(self, server_of, connected, model, background):
        server = server_of(model)
        client = connected(server)
        running = background(client.predict, do="wait")
        eventually(lambda: model.entered == ["wait"])
        retired = trunk_of(client)
        server._trunks.drain()
        eventually(lambda: not client._connections[0]._trunks._up)
        assert client.predict(x=1) == ASK
        assert retired.load == 1
        model.gate.set()
        assert running.result(BOUND) == {}
        eventually(lambda: not retired._stream._thread.is_alive())


class TestFallsBack:
    def test_where_the_server_does_not_know_trunks(self, server_of, client_of, model):
        # Frames would not fit into what it takes, so it offers none.
        client = client_of(server_of(model, max_message_bytes=2**19, max_kwargs_bytes=2**19))
        assert not client.connect(BOUND)
        for number in range(5):
            assert client.predict(x=number) == {"x": number}
        assert client._connections[0]._trunks._not_before > 0

    def test_where_a_proxy_never_answers_the_stream(self, monkeypatch):
        def swallow(frames: Iterator[bytes], context: Any) -> Iterator[bytes]:
            for _ in frames:
                pass
            yield from ()

        monkeypatch.setattr(keeper, "_GREETING_SECONDS", 0.05)
        with FakeTrunkServer(swallow) as proxy, AIClient(proxy.address) as client:
            assert not client.connect(0.2)
            # The calls that follow find that it takes too long, and it is not tried again for a while.
            eventually(lambda: client.predict(x=1) == ALONE and proxy.ended >= 1)
            opened = proxy.opened
            for _ in range(20):
                assert client.predict(x=1) == ALONE
            assert proxy.opened == opened

    def test_a_program_that_calls_once_opens_none(self, server_of, client_of, model):
        server = server_of(model)
        client = client_of(server)
        client.predict(x=1)
        assert streams(server) == 0
        assert not [thread for thread in threading.enumerate() if thread.name == "aipod-trunk"]
        client.predict(x=1)
        eventually(lambda: streams(server) == 1)


class TestLeavesNothing:
    def test_a_client_that_is_dropped(self, server_of, model):
        server = server_of(model)
        client = AIClient(server.address, "v")
        assert client.connect(BOUND)
        client.predict(x=1)
        del client
        gc.collect()
        eventually(lambda: streams(server) == 0)
        eventually(lambda: not [thread for thread in threading.enumerate() if thread.name == "aipod-trunk"])

    def test_a_client_that_is_collected_on_the_trunks_own_thread(self, server_of, connected, model):
        """The cycle collector runs on whatever thread it is due, this one, too."""
        client = connected(server_of(model))
        trunks = client._connections[0]._trunks
        done = threading.Event()

        class Collector:
            def settle(self, reply: Any, error: Any) -> None:
                with trunks._lock:
                    trunks.close()
                done.set()

        trunk = trunk_of(client)
        trunk.put(Request("predict", request(x=1), None, Collector()))
        trunk.wake()
        assert done.wait(BOUND)
        trunk.join(BOUND)
        assert not trunk._stream._thread.is_alive()
        assert trunks._channel is None

    def test_a_thread_that_is_interrupted_while_it_sends(self, server_of, connected, model, monkeypatch):
        client = connected(server_of(model))
        broken, caller, add_calls = trunk_of(client), threading.current_thread(), Trunk._add_calls

        def interrupted(self: Trunk, frame: pb.ClientFrame) -> list[Request]:
            # The trunk's own thread may be the one that sends.
            if threading.current_thread() is not caller:
                return add_calls(self, frame)
            monkeypatch.undo()
            raise KeyboardInterrupt

        monkeypatch.setattr(Trunk, "_add_calls", interrupted)
        with pytest.raises(KeyboardInterrupt):
            for _ in range(1000):
                client.predict(x=1)
        assert client.predict(x=1) == ASK
        broken.join(BOUND)
        assert not broken._stream._thread.is_alive()

    @pytest.mark.parametrize("how", ["threads", "asyncio"])
    def test_a_program_that_ends_with_a_trunk_open(self, process_of, tmp_path, how):
        server = process_of(SERVE)
        script = tmp_path / "ends.py"
        script.write_text(ENDS[how])
        done = run(script, server.address)
        assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")

    def test_a_child_after_a_fork_has_trunks_of_its_own(self, process_of, tmp_path):
        # In a process of its own: a test runner full of threads is no place to fork.
        server = process_of(SERVE)
        script = tmp_path / "forks.py"
        script.write_text(FORKS)
        done = run(script, server.address)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "child\n" * 5 + "parent\n"


SERVE = """
    import os, signal, time
    from aipod.model import AIModelBase
    from aipod.rpc.server import serve

    class Echo(AIModelBase):
        def predict(self, x=None, seconds=0.0, die=False):
            if die:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(seconds)
            return x

    serve(Echo)
"""

ENDS = {
    "threads": """
import contextlib, sys, threading
from aipod.rpc.client import AIClient
client = AIClient(sys.argv[1])
assert client.connect(20)
assert client.predict(x=1) == 1
# One that is still on its way does not keep the program, either.
def wait():
    with contextlib.suppress(Exception):
        client.options(retry=0).predict(seconds=30.0)
threading.Thread(target=wait, daemon=True).start()
print("done")
""",
    "asyncio": """
import asyncio, sys
from aipod.rpc.client import AsyncAIClient
client = AsyncAIClient(sys.argv[1])
async def main():
    assert await client.connect(20)
    assert await client.predict(x=1) == 1
asyncio.run(main())
print("done")
""",
}

FORKS = """
import os, sys
from aipod.rpc.client import AIClient
client = AIClient(sys.argv[1])
assert client.connect(20)
assert client.predict(x=1) == 1
children = [os.fork()]
while children[-1] and len(children) < 5:
    assert client.connect(20)
    children.append(os.fork())
if children[-1] == 0:
    assert client.predict(x=2) == 2
    assert client.connect(20)
    for number in range(100):
        assert client.predict(x=number) == number
    # At once: print() makes two writes of it, and another child's may come between.
    os.write(1, b"child\\n")
    sys.exit(0)
for number in range(100):
    assert client.predict(x=number) == number
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 5
assert client.predict(x=3) == 3
print("parent")
"""


def run(script: Any, address: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-W", "error", str(script), address]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

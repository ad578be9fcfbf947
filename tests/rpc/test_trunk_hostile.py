"""Frames that no client of ours writes, and servers that none of ours is: a clear end, and nothing lost with it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_trunk_server import ALONE, FakeTrunkServer, greeting
from http2 import Intruder
from raw_trunk import RawTrunk, call
from test_hostile import SERVE, forget_peak, peak_bytes
from waiting import BOUND, eventually

from aipod.codec import decode_reply, encode_call, encode_reply
from aipod.errors import Unavailable
from aipod.rpc.client import AIClient
from aipod.rpc.methods import TRUNK
from aipod.rpc.trunk import keeper
from aipod.rpc.v1 import trunk_pb2 as pb

MIB = 2**20
ECHO = encode_call("v", {"x": 1})
WAIT = encode_call("v", {"do": "wait"})
SEE = "; see trunk.proto"


def calls(*numbers: int, **fields: Any) -> bytes:
    return pb.ClientFrame(calls=[pb.Call(number=number, **fields) for number in numbers]).SerializeToString()


def chunk(number: int, size: int) -> bytes:
    return pb.ClientFrame(chunk=pb.Chunk(number=number, data=bytes(size))).SerializeToString()


def cancels(*numbers: int) -> bytes:
    return pb.ClientFrame(cancels=numbers).SerializeToString()


# Frames, and the sentence with which the stream ends.
BREACHES: dict[str, tuple[list[bytes], str]] = {
    "garbage": ([b"\xff" * 50], "a frame is no ClientFrame"),
    "a frame cut off": ([calls(1, request=WAIT)[:-3]], "a frame is no ClientFrame"),
    "a chunk cut off": ([calls(1, size=100), chunk(1, 50)[:-3]], "a frame is no ClientFrame"),
    "text that is not UTF-8": ([b"\x22\x04\x12\x02\xff\xff"], "a frame is no ClientFrame"),
    "a number twice in a frame": ([calls(1, 1, request=WAIT)], "number 1 came again before its call was answered"),
    "a number twice in two": (
        [calls(1, request=WAIT), calls(1, request=WAIT)],
        "number 1 came again before its call was answered",
    ),
    "a number that is arriving": (
        [calls(1, size=100), calls(1, size=100)],
        "number 1 came again before its call was answered",
    ),
    "a chunk too long": ([calls(1, size=100), chunk(1, 101)], "a chunk goes beyond the size that was announced"),
    "a chunk too many": (
        [calls(1, size=2**40 >> 24), chunk(1, 2**16), chunk(1, 1), calls(1, 1)],
        "number 1 came again before its call was answered",
    ),
    "5,000 calls in a frame": ([calls(*range(5000), request=WAIT)], "more than the 4096 calls that were granted"),
    "5,000 calls in two": (
        [calls(*range(2500), size=1), calls(*range(2500, 5000), size=1)],
        "more than the 4096 calls that were granted",
    ),
    "half a million calls": ([b"\x0a\0" * 500_000], "more than the 4096 calls that were granted"),
    "a million cancels": ([b"\x12\xc0\x84\x3d" + b"\1" * 1_000_000], "cancels more than the 4096 calls"),
    "2 MiB in a frame": ([calls(1, request=bytes(2 * MIB))], f"bytes, and {MIB} are allowed"),
    "more bytes than were granted": (
        [calls(*range(8), size=90 * MIB)],
        f"more than the {512 * MIB} bytes of requests that were granted",
    ),
}


@pytest.mark.parametrize(("frames", "sentence"), BREACHES.values(), ids=BREACHES)
def test_what_breaks_the_contract_ends_the_stream_and_no_other(server_of, model, frames, sentence):
    server = server_of(model)
    with RawTrunk(server.address) as good, RawTrunk(server.address) as bad:
        good.send(call(1, WAIT))
        eventually(lambda: model.entered)
        for frame in frames:
            bad.send(frame)
        status, details = bad.end()
        assert (status, sentence in details, details.endswith(SEE)) == ("INVALID_ARGUMENT", True, True), details
        model.gate.set()
        assert decode_reply(good.answer(1).content) == {}
        good.send(call(1, ECHO))
        assert decode_reply(good.answer(1).content) == {"x": 1}
    eventually(lambda: not server._trunks._trunks)


# Frames that are odd, and no reason to end anything: the call that follows is answered.
ODD: dict[str, list[bytes]] = {
    "cancels of nobody": [cancels(0, 5, 2**64 - 1)],
    "a cancel and its call in a frame": [pb.ClientFrame(calls=[pb.Call(number=9)], cancels=[9]).SerializeToString()],
    "a chunk of nobody": [chunk(5, 1000)],
    "a chunk of a call that was answered": [calls(5), chunk(5, 1000)],
    "empty frames": [b""] * 5000,
    "empty chunks": [calls(5, size=10), *[chunk(5, 0)] * 1000],
    "a greeting again": [pb.ClientFrame(greeting=pb.Greeting(wire_version=99)).SerializeToString()] * 3,
    "abilities of next year": [pb.ClientFrame(greeting=pb.Greeting(abilities=["wings"] * 1000)).SerializeToString()],
    "unknown fields": [b"\xa2\x06\x03abc", calls(5) + b"\xa2\x06\x03abc"],
    "the smallest and the largest number": [calls(0, 2**64 - 1, request=ECHO)],
    "timeouts that are none": [
        calls(10 + n, request=ECHO, timeout=timeout)
        for n, timeout in enumerate((-1.0, float("nan"), float("-inf"), float("inf"), 1e300, 5e-324))
    ],
    "a size that is too large": [calls(5, size=200 * MIB)],
    "a request that names a size, too": [calls(5, size=10, request=ECHO)],
}


@pytest.mark.parametrize("frames", ODD.values(), ids=ODD)
def test_what_is_only_odd_harms_nothing(server_of, model, frames):
    server = server_of(model)
    with RawTrunk(server.address) as trunk:
        for frame in frames:
            trunk.send(frame)
        trunk.send(call(1, ECHO))
        assert decode_reply(trunk.answer(1).content) == {"x": 1}
        trunk.half_close()
        assert trunk.end() == ("OK", "")


@pytest.mark.parametrize(
    ("fields", "status", "sentence"),
    [
        ({"method": 9}, "UNIMPLEMENTED", "Method not found!"),
        ({"size": 200 * MIB}, "RESOURCE_EXHAUSTED", f"SERVER: Received message larger than max ({200 * MIB} vs. "),
        ({"request": b"\xff" * 20}, "INVALID_ARGUMENT", "message: "),
        ({"request": WAIT, "timeout": 5e-324}, "DEADLINE_EXCEEDED", ""),
        ({"request": encode_call("../v", {})}, "INVALID_ARGUMENT", "is no version name"),
    ],
    ids=["method", "size", "request", "timeout", "version"],
)
def test_a_call_that_cannot_be_fails_alone(server_of, model, fields, status, sentence):
    with RawTrunk(server_of(model).address) as trunk:
        mates = [pb.Call(number=number, request=ECHO) for number in (1, 3)]
        trunk.send(pb.ClientFrame(calls=[mates[0], pb.Call(number=2, **fields), mates[1]]))
        outcome = trunk.answer(2)
        assert (outcome.status, sentence in outcome.content) == (status, True), outcome
        for number in (1, 3):
            assert decode_reply(trunk.answer(number).content) == {"x": 1}


def test_a_timeout_of_ages_stops_no_clock(server_of, model):
    """Those who wait behind it for a place in the pool are still told in time that there is none."""
    server = server_of(model, model_pool_size=1)
    with RawTrunk(server.address) as trunk:
        for _ in range(2):
            trunk.send(call(1, WAIT))
            eventually(lambda: "wait" in model.entered)
            trunk.send(call(2, encode_call("ages", {}), timeout=1e300))
            trunk.send(call(3, encode_call("soon", {}), timeout=1.0))
            assert trunk.answer(3).status == "RESOURCE_EXHAUSTED"
            model.gate.set()
            assert [trunk.answer(number).status for number in (1, 2)] == ["OK", "OK"]
            model.gate.clear()
            model.entered.clear()


def test_sizes_that_are_announced_and_never_sent_cost_no_memory(process_of):
    process = process_of(SERVE)
    with RawTrunk(process.address) as first:
        first.send(call(1, ECHO))
        assert first.answer(1).status == "OK"
        forget_peak(process)
        before = peak_bytes(process)
        trunks = [RawTrunk(process.address) for _ in range(20)]
        try:
            for trunk in trunks:
                trunk.send(calls(*range(5), size=100 * MIB))
                trunk.send(chunk(0, 1000))
                trunk.send(call(9, ECHO))
            for trunk in trunks:
                assert trunk.answer(9).status == "OK"
        finally:
            for trunk in trunks:
                trunk.close()
        assert peak_bytes(process) - before < 64 * MIB
        first.send(call(1, ECHO))
        assert first.answer(1).status == "OK"


def test_a_client_that_never_reads_is_read_no_more(server_of, model):
    """Its answers wait in the server's memory, so it gets no more of them than are allowed."""
    ran: list[int] = []
    model.predict = lambda self, x: ran.append(x) or bytes(60_000)
    server = server_of(model, max_message_bytes=MIB)
    with RawTrunk(server.address) as bad:
        eventually(lambda: server._trunks._trunks)
        (trunk,) = server._trunks._trunks
        sent: list[int] = []

        def send() -> None:
            bad.send(calls(len(sent), request=encode_call("v", {"x": len(sent)})))
            sent.append(len(sent))

        while not trunk._held:
            send()
            eventually(lambda: trunk._held or len(ran) == len(sent))
        for _ in range(50):
            send()
        with RawTrunk(server.address) as good:
            for number in range(50):
                good.send(calls(number, request=encode_call("v", {"x": -1})))
                assert good.answer(number).status == "OK"
        # One may have been on its way.
        assert len([x for x in ran if x >= 0]) <= len(sent) - 49
        assert trunk._unread_bytes < 2 * MIB
        # Nothing is lost with that: who reads in the end gets all of it.
        for number in sent:
            assert bad.answer(number).status == "OK"
        assert not trunk._held
        assert trunk._unread_bytes == 0


def test_a_connection_that_is_cut_amid_a_frame_takes_its_calls_along(server_of, model):
    server = server_of(model)
    with Intruder(server.address) as intruder:
        intruder.open_streams(TRUNK, 1)
        frame = calls(1, request=WAIT)
        intruder.send_data(1, b"\0" + len(frame).to_bytes(4, "big") + frame)
        eventually(lambda: model.entered)
        intruder.send_data(1, b"\0" + (1000).to_bytes(4, "big") + b"\x0a" * 10)
        assert len(server._trunks._trunks) == 1
    eventually(lambda: not server._trunks._trunks)
    model.gate.set()


def test_trunks_that_are_opened_and_dropped_leave_nothing(server_of, model):
    server = server_of(model)
    for _ in range(20):
        trunks = [RawTrunk(server.address) for _ in range(10)]
        for number, trunk in enumerate(trunks):
            trunk.send(calls(*range(number), request=ECHO, timeout=3600.0))
            trunk.cancel()
            trunk.close()
    eventually(lambda: not server._trunks._trunks)
    eventually(lambda: not any(server._front.counters().values()))


# What a server that is none of ours says on a trunk.
def says_nothing(frames: Iterator[bytes], context: Any) -> Iterator[bytes]:
    for _ in frames:
        yield from ()


def ends_at_once(frames: Iterator[bytes], context: Any) -> Iterator[bytes]:
    yield from ()


def greets_and_ends(frames: Iterator[bytes], context: Any) -> Iterator[bytes]:
    yield greeting()


def refuses(frames: Iterator[bytes], context: Any) -> Iterator[bytes]:
    context.abort(grpc.StatusCode.PERMISSION_DENIED, "no trunks here")
    yield b""


def grants_without_a_greeting(frames: Iterator[bytes], context: Any) -> Iterator[bytes]:
    yield pb.ServerFrame(grant=pb.Grant(calls=10, bytes=MIB)).SerializeToString()
    yield from says_nothing(frames, context)


def greets_without_a_grant(frames: Iterator[bytes], context: Any) -> Iterator[bytes]:
    yield pb.ServerFrame(greeting=pb.Greeting(wire_version=1)).SerializeToString()
    yield from says_nothing(frames, context)


def drains_at_once(frames: Iterator[bytes], context: Any) -> Iterator[bytes]:
    # As a server of ours does that is about to stop.
    yield greeting() + pb.ServerFrame(draining=True).SerializeToString()
    yield from says_nothing(frames, context)


def answering(*answers: pb.ServerFrame | bytes) -> Callable[..., Iterator[bytes]]:
    """Greets, waits for a call, and sends these, with its number where they have 7."""

    def behave(frames: Iterator[bytes], context: Any) -> Iterator[bytes]:
        yield greeting()
        for frame in frames:
            for one in pb.ClientFrame.FromString(frame).calls:
                for answer in answers:
                    if isinstance(answer, bytes):
                        yield answer
                        continue
                    mine = pb.ServerFrame()
                    mine.CopyFrom(answer)
                    for reply in mine.replies:
                        reply.number = one.number if reply.number == 7 else reply.number
                    if mine.chunk.number == 7:
                        mine.chunk.number = one.number
                    yield mine.SerializeToString()

    return behave


def reply(number: int = 7, **fields: Any) -> pb.ServerFrame:
    return pb.ServerFrame(replies=[pb.Reply(number=number, **fields)])


def piece(size: int, number: int = 7) -> pb.ServerFrame:
    return pb.ServerFrame(chunk=pb.Chunk(number=number, data=bytes(size)))


# Of these streams every call is lost, and the client makes it once more in another way.
WRONG: dict[str, Callable[..., Iterator[bytes]]] = {
    "garbage": answering(b"\xff" * 50),
    "an answer to nobody": answering(reply(99, reply=encode_reply(1))),
    "an answer twice": answering(reply(reply=b""), reply(reply=b"")),
    "a chunk without an answer": answering(piece(10)),
    "a chunk for nobody": answering(piece(10, 99)),
    "a chunk too long": answering(reply(size=10), piece(11)),
    "a size, and an answer": answering(reply(size=10), reply(reply=encode_reply(1))),
    "a size, and a size": answering(reply(size=10), reply(size=10)),
    "a frame of 200 MiB": answering(bytes(200 * MIB)),
}


@pytest.mark.parametrize("behaviour", WRONG.values(), ids=WRONG)
def test_a_server_that_answers_wrongly_is_asked_in_another_way(behaviour, caplog):
    with FakeTrunkServer(behaviour) as server, AIClient(server.address) as client:
        assert client.connect(BOUND)
        first = client._connections[0]._trunks._up[0]
        # An answer may be a right one before a wrong one follows.
        eventually(lambda: client.predict() == ALONE)
        first.join(BOUND)
        assert not first._stream._thread.is_alive()
        assert first.load == 0
        eventually(lambda: server.ended >= 1)


@pytest.mark.parametrize(
    "behaviour",
    [
        says_nothing,
        ends_at_once,
        greets_and_ends,
        refuses,
        grants_without_a_greeting,
        greets_without_a_grant,
        drains_at_once,
    ],
    ids=lambda one: one.__name__,
)
def test_a_server_whose_trunks_come_to_nothing_is_asked_in_another_way_and_not_over_and_over(behaviour):
    with FakeTrunkServer(behaviour) as server, AIClient(server.address) as client:
        client.connect(0.2)
        patient = client.options(retry=20)
        for _ in range(300):
            assert patient.predict() == ALONE
        # The pauses double: a hundred milliseconds, two hundred, …
        assert server.opened <= 6
    eventually(lambda: server.ended == server.opened)


def test_a_size_that_never_comes_costs_the_call_its_deadline_and_no_memory(background):
    sizes = answering(reply(size=50 * MIB), piece(1000))
    with FakeTrunkServer(sizes) as server, AIClient(server.address, timeout=0.3) as client:
        assert client.connect(BOUND)
        status = Path("/proc/self/status")

        def resident() -> int:
            return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if "VmRSS" in line)

        before = resident()
        waiting = [background(client.predict) for _ in range(40)]
        for one in waiting:
            assert isinstance(one.exception(BOUND), TimeoutError)
        assert resident() - before < 64 * MIB


def test_a_failure_of_a_class_that_nobody_knows_is_an_error_all_the_same():
    failure = pb.Failure(status=14, details="come back later")
    with FakeTrunkServer(answering(reply(failure=failure))) as server, AIClient(server.address) as client:
        assert client.connect(BOUND)
        with pytest.raises(Unavailable, match="come back later"):
            client.options(retry=0).predict()


def test_a_retired_stream_that_its_server_never_ends_is_cut_in_the_end(monkeypatch):
    stay = threading.Event()

    def stays(frames: Iterator[bytes], context: Any) -> Iterator[bytes]:
        yield greeting()
        for frame in frames:
            for one in pb.ClientFrame.FromString(frame).calls:
                yield reply(one.number, reply=encode_reply(ALONE)).SerializeToString()
        stay.wait(BOUND)

    monkeypatch.setattr(keeper, "_MAX_AGE", 0.05)
    with FakeTrunkServer(stays) as server, AIClient(server.address) as client:
        assert client.connect(BOUND)
        eventually(lambda: client.predict() == ALONE and server.ended >= 3)
        stay.set()

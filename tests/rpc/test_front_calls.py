"""What a front does for one call, whichever front it is."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from front_world import CALL, MIB, STREAM, Guest, failure, fronted, settled, status_of
from http2 import Intruder
from waiting import BOUND, eventually

from aipod.rpc.front import RawCall, aio_rpc


class Desk:
    """A handler that keeps the calls, to be answered later."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def __call__(self, raw: RawCall) -> None:
        self.calls.append(raw)

    def one(self) -> Any:
        """The only call, once it is there; not kept any longer."""
        eventually(lambda: self.calls)
        [raw] = self.calls
        self.calls.clear()
        return raw


def test_a_call_brings_its_message_and_all_that_is_known_of_the_caller(front: str) -> None:
    seen: list[Any] = []

    def look(raw: RawCall) -> None:
        seen.extend([raw.method, raw.message, raw.peer, dict(raw.metadata), raw.deadline, list(raw.identities)])
        raw.reply(b"yes")

    before = time.monotonic()
    with fronted(front, look) as (_, address), Guest(address) as guest:
        sent = [("key", "value"), ("key-bin", b"\0\xff")]
        assert guest.call(b"message", metadata=sent, timeout=BOUND) == b"yes"
    method, message, peer, metadata, deadline, identities = seen
    assert (method, message, identities) == (CALL, b"message", [])
    assert peer.startswith("ipv4:127.0.0.1:")
    assert metadata["key"] == "value"
    assert metadata["key-bin"] == b"\0\xff"
    # gRPC rounds deadlines up to milliseconds.
    assert before < deadline <= time.monotonic() + BOUND + 0.1


def test_a_caller_that_sets_no_deadline_has_none(front: str) -> None:
    desk = Desk()
    with fronted(front, desk) as (_, address), Guest(address) as guest:
        future = guest.begin()
        raw = desk.one()
        assert raw.deadline is None
        raw.reply(b"")
        assert future.result(BOUND) == b""


def test_a_failure_arrives_with_its_details_and_its_metadata(front: str) -> None:
    def fail(raw: RawCall) -> None:
        raw.fail("NOT_FOUND", "nichts da: 模型", [("key", "value"), ("key-bin", b"\0\xff")])

    with fronted(front, fail) as (_, address), Guest(address) as guest:
        error = failure(guest.call)
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == "nichts da: 模型"
    assert dict(error.trailing_metadata()) == {"key": "value", "key-bin": b"\0\xff"}


@pytest.mark.parametrize(
    "answer",
    [
        lambda raw: raw.fail("NO_SUCH_STATUS", "", ()),
        lambda raw: raw.fail("INTERNAL", "", [("Upper", "case")]),
        lambda raw: raw.fail("INTERNAL", "", [("a b", "c")]),
        lambda raw: raw.fail("INTERNAL", "", [("key", "line\nbreak")]),
        lambda raw: raw.fail("INTERNAL", "", [("key-bin", "text")]),
        lambda raw: raw.fail("INTERNAL", "", [("key", b"bytes")]),
        lambda raw: raw.reply(7),
        lambda raw: raw.reply(None),
        lambda raw: raw.reply("text"),
    ],
)
def test_an_answer_that_cannot_travel_is_told_to_who_gave_it(front: str, answer: Callable[[Any], None]) -> None:
    desk = Desk()
    with fronted(front, desk) as (_, address), Guest(address) as guest:
        future = guest.begin()
        raw = desk.one()
        with pytest.raises((KeyError, ValueError, TypeError)):
            answer(raw)
        raw.reply(b"another")
        assert future.result(BOUND) == b"another"


def test_details_that_are_no_text_for_others_arrive_without_what_is_not(front: str) -> None:
    with fronted(front, lambda raw: raw.fail("INTERNAL", "lone \ud800", ())) as (_, address), Guest(address) as guest:
        assert failure(guest.call).details() == "lone ?"


def test_a_front_that_has_stopped_has_no_call_left_that_is_slow_to_hear_of_its_own_end(
    front: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    abort = aio_rpc._abort

    async def abort_slowly(*arguments: Any) -> None:
        try:
            await abort(*arguments)
        finally:
            await asyncio.sleep(0.2)

    monkeypatch.setattr(aio_rpc, "_abort", abort_slowly)
    with fronted(front, lambda raw: raw.fail("INTERNAL", "", ())) as (_, address), Guest(address) as guest:
        assert failure(guest.call).details() == ""


def test_the_first_answer_counts(front: str) -> None:
    def answer(raw: RawCall) -> None:
        raw.reply(b"first")
        raw.reply(b"second")
        raw.fail("INTERNAL", "third", ())

    with fronted(front, answer) as (_, address), Guest(address) as guest:
        assert [guest.call() for _ in range(20)] == [b"first"] * 20


def test_of_answers_that_come_at_once_one_is_sent(front: str) -> None:
    with ThreadPoolExecutor(8) as threads:

        def answer(raw: RawCall) -> None:
            for number in range(8):
                threads.submit(raw.reply, bytes([number]))

        with fronted(front, answer) as (_, address), Guest(address) as guest:
            assert all(len(guest.call()) == 1 for _ in range(100))


def test_a_method_that_nobody_takes_is_refused(front: str) -> None:
    with fronted(front) as (_, address), Guest(address) as guest:
        for method in ("/test.Test/Other", "/", "/模型/x", CALL.lower()):
            assert status_of(guest.call, method=method) == "UNIMPLEMENTED"
        assert guest.call(b"still there") == b"still there"


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
def test_a_handler_that_raises_costs_one_call(front: str, error: BaseException, caplog: Any) -> None:
    # An event loop hands on what is meant to end the program; a handler of ours raises nothing of the kind.
    if front == "aio" and not isinstance(error, Exception):
        error = ValueError("no")

    def handle(raw: RawCall) -> None:
        if raw.message == b"bad":
            raise error
        raw.reply(b"good")

    with fronted(front, handle) as (_, address), Guest(address) as guest:
        assert status_of(guest.call, b"bad") == "INTERNAL"
        assert guest.call(b"") == b"good"
    assert "failed" in caplog.text


def test_a_message_is_kept_by_nobody_but_who_took_it(front: str) -> None:
    desk = Desk()
    with fronted(front, desk) as (_, address), Guest(address) as guest:
        future = guest.begin(b"message")
        raw = desk.one()
        eventually(lambda: raw.message == b"")
        raw.reply(b"")
        future.result(BOUND)


def test_a_call_that_is_over_is_kept_by_nobody_though_its_action_refers_to_it(front: str) -> None:
    answered: list[weakref.ref[Any]] = []

    class Work:
        def __init__(self, raw: RawCall) -> None:
            self.raw = raw
            raw.on_gone(self.stop)

        def stop(self) -> None:
            pass

    def handle(raw: RawCall) -> None:
        work = Work(raw)
        answered.append(weakref.ref(work))
        raw.reply(b"")

    with fronted(front, handle, methods={CALL: 300.0}) as (_, address), Guest(address) as guest:
        for _ in range(5):
            guest.call()
        # By reference: a cycle would wait for the collector, with megabytes.
        eventually(lambda: not any(work() for work in answered))


def test_calls_that_are_over_do_not_wait_for_their_deadline_to_be_forgotten(front: str) -> None:
    method = "/test.Test/Forgotten"
    kinds: set[type] = set()

    def handle(raw: RawCall) -> None:
        kinds.add(type(raw))
        raw.reply(b"")

    def kept() -> int:
        return sum(type(thing) in kinds and thing.method == method for thing in gc.get_objects())

    with fronted(front, handle, methods={method: 300.0}) as (_, address), Guest(address) as guest:
        for _ in range(20):
            guest.call(method=method, timeout=None)
        assert kinds
        eventually(lambda: not kept())


class TestGone:
    @staticmethod
    def heard(raw: Any) -> threading.Event:
        gone = threading.Event()
        raw.on_gone(gone.set)
        return gone

    def test_a_caller_that_cancels_is_heard_of(self, front: str) -> None:
        desk = Desk()
        with fronted(front, desk) as (over, address), Guest(address) as guest:
            future = guest.begin()
            raw = desk.one()
            gone = self.heard(raw)
            future.cancel()
            assert gone.wait(BOUND)
            settled(over)
            raw.reply(b"too late")
            raw.fail("INTERNAL", "too late", ())

    def test_a_deadline_that_passes_is_heard_of(self, front: str) -> None:
        desk = Desk()
        with fronted(front, desk) as (_, address), Guest(address) as guest:
            future = guest.begin(timeout=0.1)
            gone = self.heard(desk.one())
            assert gone.wait(BOUND)
            assert status_of(future.result, BOUND) == "DEADLINE_EXCEEDED"

    def test_a_connection_that_breaks_is_heard_of(self, front: str) -> None:
        desk = Desk()
        with fronted(front, desk) as (over, address):
            with Guest(address) as guest:
                future = guest.begin()
                gone = self.heard(desk.one())
            assert gone.wait(BOUND)
            settled(over)
            assert future.done()

    def test_whoever_asks_late_is_told_at_once(self, front: str) -> None:
        desk = Desk()
        with fronted(front, desk) as (over, address), Guest(address) as guest:
            guest.begin().cancel()
            future = guest.begin()
            eventually(lambda: desk.calls)
            future.cancel()
            settled(over)
            assert all(self.heard(raw).is_set() for raw in desk.calls)

    def test_who_was_answered_is_not_gone(self, front: str) -> None:
        desk = Desk()
        with fronted(front, desk) as (over, address), Guest(address) as guest:
            future = guest.begin()
            raw = desk.one()
            before = self.heard(raw)
            raw.reply(b"")
            future.result(BOUND)
            settled(over)
            assert not before.is_set()
            assert not self.heard(raw).is_set()

    def test_an_action_that_raises_costs_nobody_else_anything(self, front: str) -> None:
        desk = Desk()
        with fronted(front, desk) as (over, address), Guest(address) as guest:
            future = guest.begin()
            desk.one().on_gone(lambda: 1 // 0)
            future.cancel()
            settled(over)
            future = guest.begin()
            desk.one().reply(b"there")
            assert future.result(BOUND) == b"there"


class TestPatience:
    def test_who_sets_no_timeout_gets_the_servers_and_hears_whose_it_was(self, front: str) -> None:
        desk = Desk()
        with fronted(front, desk, methods={CALL: 0.1}) as (over, address), Guest(address) as guest:
            future = guest.begin()
            raw = desk.one()
            heard: list[bool] = []
            raw.on_gone(lambda: heard.append(future.done()))
            error = failure(future.result, BOUND)
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert "AIPOD_DEFAULT_TIMEOUT" in error.details()
            assert heard == [False], "who works on it must hear of it, and first"
            settled(over)
            raw.reply(b"too late")

    def test_what_the_work_says_when_its_time_is_over_comes_too_late(self, front: str) -> None:
        def handle(raw: RawCall) -> None:
            raw.on_gone(lambda: raw.fail("CANCELLED", "you left", ()))

        with fronted(front, handle, methods={CALL: 0.05}) as (_, address), Guest(address) as guest:
            assert [status_of(guest.call, timeout=None) for _ in range(5)] == ["DEADLINE_EXCEEDED"] * 5

    def test_each_method_has_its_own(self, front: str) -> None:
        methods = {"/test.Test/Short": 0.1, "/test.Test/Never": None, "/test.Test/Long": 300.0}
        desk = Desk()
        with fronted(front, desk, methods=methods) as (_, address), Guest(address) as guest:
            never, long, short = (guest.begin(method=f"/test.Test/{name}") for name in ("Never", "Long", "Short"))
            assert status_of(short.result, BOUND) == "DEADLINE_EXCEEDED"
            assert not never.done()
            assert not long.done()
            for raw in desk.calls:
                raw.reply(b"")
            assert never.result(BOUND) == long.result(BOUND) == b""

    def test_a_caller_that_sets_one_is_not_held_to_the_servers(self, front: str) -> None:
        desk = Desk()
        with fronted(front, desk, methods={CALL: 0.05}) as (_, address), Guest(address) as guest:
            patient = guest.begin(timeout=BOUND)
            raw = desk.one()
            assert status_of(guest.begin().result, BOUND) == "DEADLINE_EXCEEDED"
            raw.reply(b"in time")
            assert patient.result(BOUND) == b"in time"


class TestSizes:
    def test_a_request_that_is_too_large_is_refused_and_the_next_is_not(self, front: str) -> None:
        with fronted(front, max_message_bytes=1000) as (_, address), Guest(address) as guest:
            assert status_of(guest.call, bytes(1001)) == "RESOURCE_EXHAUSTED"
            assert guest.call(bytes(1000)) == bytes(1000)

    def test_so_is_a_reply(self, front: str) -> None:
        def answer(raw: RawCall) -> None:
            raw.reply(bytes(int(raw.message)))

        with fronted(front, answer, max_sent_bytes=1000) as (_, address), Guest(address) as guest:
            assert status_of(guest.call, b"1001") == "RESOURCE_EXHAUSTED"
            assert guest.call(b"1000") == bytes(1000)

    def test_nothing_is_a_message_too(self, front: str) -> None:
        with fronted(front) as (_, address), Guest(address) as guest:
            assert guest.call(b"") == b""

    def test_a_large_message_arrives_whole(self, front: str) -> None:
        message = bytes(range(256)) * 4 * 1024 * 24
        large = {"max_receive_message_length": 32 * MIB}
        with fronted(front, max_message_bytes=32 * MIB) as (_, address), Guest(address, **large) as guest:
            assert guest.call(message) == message

    def test_what_is_compressed_is_measured_when_it_is_not(self, front: str) -> None:
        with fronted(front, max_message_bytes=1000) as (_, address), Guest(address) as guest:
            gzip = {"compression": grpc.Compression.Gzip}
            assert guest.call(bytes(1000), **gzip) == bytes(1000)
            assert status_of(guest.call, bytes(100_000), **gzip) == "RESOURCE_EXHAUSTED"


def test_calls_that_never_send_a_request_hold_no_thread_and_end_with_their_connection(front: str) -> None:
    with fronted(front) as (over, address), Guest(address) as guest:
        guest.call()
        threads = threading.active_count()
        with Intruder(address) as intruder:
            intruder.open_streams(CALL, 300)
            intruder.open_streams(STREAM, 300)
            eventually(lambda: over.counters()["streams"] == 300)
            # The intruder's own reader.
            assert threading.active_count() <= threads + 1
            assert guest.call(b"still there") == b"still there"
        settled(over)


def test_a_call_that_ends_before_its_request_is_answered(front: str) -> None:
    with fronted(front) as (over, address), Guest(address) as guest:
        call = guest.channel.stream_unary(CALL)
        if front == "cq":
            assert status_of(call, iter(()), timeout=BOUND) == "UNIMPLEMENTED"
        else:
            # grpc.aio drops it without a word.
            assert status_of(call, iter(()), timeout=0.2) == "DEADLINE_EXCEEDED"
        settled(over)


def test_many_callers_get_each_their_own_answer_from_many_threads(front: str) -> None:
    with ThreadPoolExecutor(16) as threads:

        def handle(raw: RawCall) -> None:
            threads.submit(raw.reply, raw.message)

        with fronted(front, handle) as (_, address), Guest(address) as guest:
            futures = {number: guest.begin(str(number).encode()) for number in range(1000)}
            for number, future in futures.items():
                if number % 7 == 0:
                    future.cancel()
                else:
                    assert future.result(BOUND) == str(number).encode()

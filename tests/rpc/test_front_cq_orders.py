"""The cq front's bookkeeping of one RPC, whatever the order in which gRPC tells what has become of it.

A real server shows the usual orders; this shows all of them.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from front_world import Ear
from grpc._cython import cygrpc

from aipod.rpc.front.cq_rpc import CqCall, CqRefusal, CqRpc, CqStream
from aipod.rpc.front.end import UNKNOWN_METHOD


class Core:
    """What gRPC is to an RPC: it takes batches, and tells of them later, in any order."""

    def __init__(self) -> None:
        self.batches: list[tuple[tuple[str, ...], Callable[[Any], None]]] = []
        self.adopted: list[CqRpc] = []
        self.forgotten: list[CqRpc] = []
        self.cancelled = False
        self.refuses = False

    # The call's side.

    def start_server_batch(self, operations: tuple[Any, ...], done: Callable[[Any], None]) -> int:
        assert not self.forgotten, "work was started on an RPC that is over"
        if self.refuses:
            return 8
        self.batches.append((tuple(type(operation).__name__ for operation in operations), done))
        return 0

    def cancel(self) -> None:
        self.cancelled = True

    # The front's side.

    def adopt(self, rpc: CqRpc) -> None:
        self.adopted.append(rpc)

    def forget(self, rpc: CqRpc) -> None:
        assert not self.batches, "an RPC was forgotten while gRPC was at work on it"
        self.forgotten.append(rpc)

    # The test's side.

    @property
    def event(self) -> Any:
        class Arrival:
            call = self
            invocation_metadata = ()

            class call_details:
                deadline = time.time() + 60.0

        return Arrival

    def has(self, name: str) -> bool:
        return any(name in names for names, _ in self.batches)

    def tell(self, name: str, message: bytes | None = None) -> None:
        """Have a batch that has an operation of that name come back."""
        [batch] = [batch for batch in self.batches if name in batch[0]]
        self.batches.remove(batch)

        class Operation:
            def message(self) -> bytes | None:
                return message

        class Event:
            batch_operations = (Operation(),)

        batch[1](Event)

    def tell_if_any(self, name: str) -> None:
        if self.has(name):
            self.tell(name)


CLOSE, MESSAGE = cygrpc.ReceiveCloseOnServerOperation.__name__, cygrpc.ReceiveMessageOperation.__name__
SENT, STATUS = cygrpc.SendMessageOperation.__name__, cygrpc.SendStatusFromServerOperation.__name__
HEADERS = cygrpc.SendInitialMetadataOperation.__name__


def test_a_call_is_forgotten_once_and_last() -> None:
    for order in itertools.permutations(["close", "message", "reply", "status", "expire"]):
        core = Core()
        handled: list[Any] = []
        call = CqCall(core, "/m", core.event, handled.append)
        call.begin()
        deeds: dict[str, Callable[[], object]] = {
            "close": partial(core.tell, CLOSE),
            "message": partial(core.tell, MESSAGE, b"x"),
            "reply": partial(call.reply, b"y"),
            "status": partial(core.tell_if_any, STATUS),
            "expire": call.expire,
        }
        for deed in order:
            deeds[deed]()
        core.tell_if_any(STATUS)
        assert core.adopted == core.forgotten == [call], order
        assert len(handled) == (
            min(order.index(first) for first in ("close", "reply", "expire")) > order.index("message")
        )
        assert call.peer == ""


def test_a_stream_is_forgotten_once_and_last() -> None:
    for order in itertools.permutations(["close", "message", "headers", "say", "sent", "finish"]):
        core = Core()
        ears: list[Ear] = []
        stream = CqStream(core, "/m", core.event)
        stream.begin(lambda stream, ears=ears: ears.append(Ear(stream)) or ears[0])  # type: ignore[misc]
        deeds: dict[str, Callable[[], object]] = {
            "close": partial(core.tell, CLOSE),
            "message": partial(core.tell, MESSAGE),
            "headers": partial(core.tell, HEADERS),
            "say": partial(ears[0].say, b"x"),
            "sent": partial(core.tell_if_any, SENT),
            "finish": stream.finish,
        }
        for deed in order:
            deeds[deed]()
        core.tell_if_any(SENT)
        core.tell_if_any(STATUS)
        assert core.adopted == core.forgotten == [stream], order
        assert ears[0].ends.count("gone") == (order.index("close") < order.index("finish")), order


def test_a_refusal_is_forgotten_with_its_one_event() -> None:
    core = Core()
    CqRefusal(core, "/m", core.event).begin(UNKNOWN_METHOD)
    assert not core.forgotten
    core.tell(CLOSE)
    assert len(core.forgotten) == 1


def test_an_rpc_on_which_nothing_can_be_started_is_never_kept() -> None:
    core = Core()
    core.refuses = True
    CqCall(core, "/m", core.event, lambda raw: None).begin()
    CqStream(core, "/m", core.event).begin(Ear)
    CqRefusal(core, "/m", core.event).begin(UNKNOWN_METHOD)
    assert not core.adopted
    assert core.cancelled


def test_a_call_that_cannot_be_answered_ends_with_what_is_open() -> None:
    core = Core()
    call = CqCall(core, "/m", core.event, lambda raw: None)
    call.begin()
    core.refuses = True
    call.reply(b"x")
    assert core.cancelled
    core.tell(MESSAGE)
    assert not core.forgotten
    core.tell(CLOSE)
    assert core.forgotten == [call]

"""A server of somebody else's: it answers calls that come alone, and says on a trunk whatever a test has it say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import grpc
from waiting import BOUND

from aipod.codec import encode_reply
from aipod.rpc.methods import MODEL_METHODS, TRUNK
from aipod.rpc.v1 import trunk_pb2 as pb

__all__ = ["ALONE", "Behaviour", "FakeTrunkServer", "greeting"]

# What it answers to a call that came by no trunk.
ALONE = "it came alone"

# Takes the frames that come and gives those to send; runs on a thread of its own.
Behaviour = Callable[[Iterator[bytes], grpc.ServicerContext], Iterator[bytes]]


def greeting(calls: int = 100, size: int = 2**20) -> bytes:
    """A first frame as it should be."""
    grant = pb.Grant(calls=calls, bytes=size)
    return pb.ServerFrame(greeting=pb.Greeting(wire_version=1), grant=grant).SerializeToString()


class FakeTrunkServer:
    """Listens until it is closed.

    Attributes:
        address: Where.
        opened: How many trunks were opened.
        ended: How many of them are over.
    """

    def __init__(self, behaviour: Behaviour) -> None:
        self.opened = self.ended = 0
        self._behaviour = behaviour
        self._threads = ThreadPoolExecutor(64)
        self._server = grpc.server(self._threads, options=[("grpc.max_receive_message_length", -1)])
        handlers = {
            TRUNK: grpc.stream_stream_rpc_method_handler(self._open),
            MODEL_METHODS["predict"]: grpc.unary_unary_rpc_method_handler(lambda message, _: encode_reply(ALONE)),
        }
        self._server.add_generic_rpc_handlers((_Handlers(handlers),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def __enter__(self) -> FakeTrunkServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(None).wait(BOUND)
        self._threads.shutdown()

    def _open(self, frames: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        self.opened += 1
        context.add_callback(self._over)
        # So that the client hears of the stream before it hears anything on it.
        context.send_initial_metadata(())
        try:
            yield from self._behaviour(frames, context)
        except grpc.RpcError:
            # The client is gone.
            return

    def _over(self) -> None:
        self.ended += 1


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, handlers: dict[str, Any]) -> None:
        self._handlers = handlers

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return self._handlers.get(details.method)

"""gRPC and nothing else: servers that return the bytes they got. ``python -m benchmarks.peers.bare pool|aio|sync``

``pool`` is ``grpc.aio`` with a pool of threads behind it, the floor of a model server on it; ``aio`` answers on the
event loop; ``sync`` is gRPC's other server. Their callers' bytes are prepared beforehand.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio

from aipod.codec import encode_call
from aipod.memory import reuse_freed_memory
from benchmarks.order import Order
from benchmarks.peers import Raw

_METHOD = "/bare.Echo/Call"
_THREADS = 12
_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_ADDRESS = "127.0.0.1:0"


def blocking(order: Order) -> Callable[[], Any]:
    if order.keep_memory:
        reuse_freed_memory()
    stub = grpc.insecure_channel(order.address, options=_UNLIMITED).unary_unary(_METHOD)
    message = _message(order)
    return lambda: stub(message)


async def awaiting(order: Order) -> Callable[[], Awaitable[Any]]:
    stub = grpc.aio.insecure_channel(order.address, options=_UNLIMITED).unary_unary(_METHOD)
    message = _message(order)
    return lambda: stub(message)


def raw(order: Order) -> Raw:
    return Raw(_METHOD, _message(order))


def _message(order: Order) -> bytes:
    return encode_call("default", order.question())


def echo(message: bytes, context: object = None) -> bytes:
    return message


async def echo_soon(message: bytes, context: object) -> bytes:
    return message


def serve() -> None:
    server = grpc.server(ThreadPoolExecutor(_THREADS), options=_UNLIMITED)
    server.add_generic_rpc_handlers((_handler(echo),))
    port = server.add_insecure_port(_ADDRESS)
    server.start()
    print(f"bare: serving on 127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


async def serve_async(pool: bool) -> None:
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(_THREADS)

    async def echo_in_pool(message: bytes, context: object) -> bytes:
        return await loop.run_in_executor(executor, echo, message)

    server = grpc.aio.server(options=_UNLIMITED)
    server.add_generic_rpc_handlers((_handler(echo_in_pool if pool else echo_soon),))
    port = server.add_insecure_port(_ADDRESS)
    await server.start()
    print(f"bare: serving on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


def _handler(behavior: Callable[..., Any]) -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler("bare.Echo", {"Call": grpc.unary_unary_rpc_method_handler(behavior)})


if __name__ == "__main__":
    kind = sys.argv[1]
    if kind == "sync":
        serve()
    else:
        asyncio.run(serve_async(pool=kind == "pool"))

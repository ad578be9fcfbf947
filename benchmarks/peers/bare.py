"""The floor: ``grpc.aio`` and a thread pool that returns the bytes it got. ``python -m benchmarks.peers.bare``"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import grpc
import grpc.aio

METHOD = "/bare.Echo/Call"
_THREADS = 12
_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def echo(message: bytes) -> bytes:
    return message


async def serve() -> None:
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(_THREADS)

    async def answer(message: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return await loop.run_in_executor(executor, echo, message)

    server = grpc.aio.server(options=_UNLIMITED)
    handler = grpc.method_handlers_generic_handler("bare.Echo", {"Call": grpc.unary_unary_rpc_method_handler(answer)})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"bare: serving on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve())

"""The front on the public ``grpc.aio``: one event loop on a thread of its own.

Replies come from other threads. Those that are ready together cross into the loop together: the first of them wakes the
loop, the others find that somebody has.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import grpc
import grpc.aio

from aipod.rpc.front.aio_rpc import AioCall, AioStream
from aipod.rpc.front.end import TOO_MANY_STREAMS
from aipod.rpc.front.interface import FrontOptions, Handler
from aipod.rpc.front.listening import bind_all, server_arguments, server_credentials

__all__ = ["AioFront"]

# For calls and streams that were cut off, to learn of it.
_LAST_WORDS_SECONDS = 5.0


class AioFront:
    """See :class:`~aipod.rpc.front.interface.Front`.

    Args:
        handler: Takes the calls.
        options: What to keep to.
    """

    def __init__(self, handler: Handler, options: FrontOptions) -> None:
        self._handler = handler
        self._options = options
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread
        self._outbox: deque[tuple[Callable[..., None], tuple[object, ...]]] = deque()
        self._waking = False
        self._server: grpc.aio.Server | None = None
        self._calls: set[AioCall] = set()
        self._streams: set[AioStream] = set()

    def start(self, *addresses: str) -> list[str]:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="aipod-front", daemon=True)
        self._thread.start()
        try:
            bound: list[str] = self._run(self._start(addresses))
        except BaseException:
            self._end_loop()
            raise
        return bound

    def stop(self, grace: float) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        self._run(self._stop(server, grace))
        self._end_loop()

    def counters(self) -> dict[str, int]:
        calls, streams = list(self._calls), list(self._streams)
        return {"calls": len(calls), "streams": len(streams), "sends": sum(rpc.sending for rpc in (*calls, *streams))}

    def post(self, action: Callable[..., None], *arguments: object) -> None:
        """Have something done on the loop, together with all that comes until then; from any thread."""
        # Appended before the flag is read, and the flag is cleared before the outbox is emptied: nothing stays behind.
        self._outbox.append((action, arguments))
        if not self._waking:
            self._waking = True
            try:
                self._loop.call_soon_threadsafe(self._flush)
            except RuntimeError:
                # The loop is closed: the server has stopped, and nobody waits for this any more.
                self._outbox.clear()

    async def _start(self, addresses: tuple[str, ...]) -> list[str]:
        server = grpc.aio.server(options=server_arguments(self._options))
        server.add_generic_rpc_handlers((_Methods(self._methods()),))
        credentials = server_credentials(self._options.credentials)

        def bind(address: str) -> int:
            try:
                if credentials is None:
                    return int(server.add_insecure_port(address))
                return int(server.add_secure_port(address, credentials))
            except RuntimeError:
                return 0

        try:
            bound = bind_all(addresses, bind)
        except BaseException:
            # Only a server that has started lets go of its sockets.
            await server.start()
            await server.stop(None)
            raise
        await server.start()
        self._server = server
        return bound

    async def _stop(self, server: grpc.aio.Server, grace: float) -> None:
        await server.stop(grace)
        tasks: list[asyncio.Task[Any]] = [task for stream in self._streams for task in stream.tasks]
        tasks += [call.task for call in self._calls if call.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=_LAST_WORDS_SECONDS)

    def _flush(self) -> None:
        self._waking = False
        outbox = self._outbox
        while outbox:
            action, arguments = outbox.popleft()
            action(*arguments)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _methods(self) -> dict[str, grpc.RpcMethodHandler]:
        unary, streams = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        return {
            **{method: unary(self._unary(method, default)) for method, default in self._options.methods.items()},
            **{method: streams(self._stream(method)) for method in self._options.streams},
        }

    def _unary(self, method: str, default: float | None) -> Callable[..., Coroutine[Any, Any, bytes | None]]:
        async def answer(message: bytes, context: grpc.aio.ServicerContext) -> bytes | None:
            call = AioCall(self.post, method, context, default)
            call.message = message
            del message
            self._calls.add(call)
            try:
                return await call.run(self._handler)
            finally:
                self._calls.discard(call)

        return answer

    def _stream(self, method: str) -> Callable[..., Coroutine[Any, Any, None]]:
        opener = self._options.streams[method]

        async def converse(_: object, context: grpc.aio.ServicerContext) -> None:
            if len(self._streams) >= self._options.max_streams:
                await context.abort(TOO_MANY_STREAMS.status, TOO_MANY_STREAMS.details)
            stream = AioStream(self.post, method, context)
            self._streams.add(stream)
            try:
                await stream.run(opener)
            finally:
                self._streams.discard(stream)

        return converse


class _Methods(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, handlers: Mapping[str, grpc.RpcMethodHandler]) -> None:
        self._handlers = handlers

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self._handlers.get(details.method)

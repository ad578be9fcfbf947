"""The front on the public ``grpc.aio``: one event loop on a thread of its own.

Replies come from other threads. Those that are ready together cross into the loop together: the first of them wakes the
loop, the others find that somebody has.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import grpc
import grpc.aio

from aipod.errors import Unavailable
from aipod.rpc.front.interface import FrontOptions, Handler, obstacle
from aipod.rpc.keepalive import SERVER_OPTIONS

__all__ = ["AioFront"]


class AioFront:
    """See :class:`~aipod.rpc.front.interface.Front`.

    Args:
        handler: Takes the calls.
        options: What to keep to.
    """

    def __init__(self, handler: Handler, options: FrontOptions) -> None:
        self._handler = handler
        self._options = options
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="aipod-front", daemon=True)
        self._outbox: deque[tuple[_AioCall, bytes | _Failure]] = deque()
        self._waking = False
        self._server: grpc.aio.Server | None = None

    def start(self, address: str) -> str:
        self._thread.start()
        try:
            bound: str = self._run(self._start(address))
        except BaseException:
            self._end_loop()
            raise
        return bound

    def stop(self, grace: float) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        self._run(server.stop(grace))
        self._end_loop()

    def send(self, call: _AioCall, answer: bytes | _Failure) -> None:
        """Hand an answer over to the loop; from any thread."""
        # Appended before the flag is read, and the flag is cleared before the outbox is emptied: no answer is left
        # behind.
        self._outbox.append((call, answer))
        if not self._waking:
            self._waking = True
            try:
                self._loop.call_soon_threadsafe(self._flush)
            except RuntimeError:
                # The loop is closed: the server has stopped, and nobody waits for this any more.
                self._outbox.clear()

    async def _start(self, address: str) -> str:
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", self._options.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                # Without it a second server on the same port starts, and each gets some of the calls.
                ("grpc.so_reuseport", 0),
                *SERVER_OPTIONS,
            ]
        )
        server.add_generic_rpc_handlers((_Methods(self, self._options, self._handler),))
        host = address.rpartition(":")[0]
        reason = obstacle(address)
        try:
            port = 0 if reason else server.add_insecure_port(address)
        except RuntimeError:
            port = 0
        if not port:
            raise Unavailable(f"nothing can listen on {address}: {reason or 'gRPC refuses the address'}")
        await server.start()
        self._server = server
        return f"{host}:{port}" if host and not address.startswith("unix:") else address

    def _flush(self) -> None:
        self._waking = False
        outbox = self._outbox
        while outbox:
            call, answer = outbox.popleft()
            call.settle(answer)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Failure:
    __slots__ = ("details", "status", "trailing")

    def __init__(self, status: str, details: str, trailing: Sequence[tuple[str, str | bytes]]) -> None:
        self.status = grpc.StatusCode[status]
        self.details = details
        self.trailing = tuple(trailing)


class _AioCall:
    """See :class:`~aipod.rpc.front.interface.RawCall`. All but ``reply`` and ``fail`` belongs to the loop."""

    __slots__ = ("_front", "_gone", "_on_gone", "answer", "deadline", "message", "method")

    def __init__(self, front: AioFront, method: str, message: bytes, deadline: float | None) -> None:
        self._front = front
        self.method = method
        self.message = message
        self.deadline = deadline
        self.answer: asyncio.Future[bytes | _Failure] = front._loop.create_future()
        self._gone = False
        self._on_gone: Callable[[], None] | None = None

    def reply(self, message: bytes) -> None:
        self._front.send(self, message)

    def fail(self, status: str, details: str, trailing: Sequence[tuple[str, str | bytes]]) -> None:
        self._front.send(self, _Failure(status, details, trailing))

    def on_gone(self, action: Callable[[], None]) -> None:
        self._on_gone = action
        if self._gone:
            action()

    def settle(self, answer: bytes | _Failure) -> None:
        # The action refers to the call of the engine, which refers to us: megabytes would wait for the cycle collector.
        self._on_gone = None
        if not self.answer.done():
            self.answer.set_result(answer)

    def leave(self) -> None:
        self._gone = True
        action, self._on_gone = self._on_gone, None
        if action is not None:
            action()

    def expire(self) -> None:
        """A timeout of ours, for a caller that set none: the engine hears of it first, the caller gets our reason."""
        self.leave()
        sentence = "the time that the server allows passed (AIPOD_DEFAULT_TIMEOUT); set a timeout of your own"
        self.settle(_Failure("DEADLINE_EXCEEDED", sentence, ()))


class _Methods(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, front: AioFront, options: FrontOptions, handler: Handler) -> None:
        self._handlers = {
            method: grpc.unary_unary_rpc_method_handler(_unary(front, method, default, handler))
            for method, default in options.methods.items()
        }

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self._handlers.get(details.method)


def _unary(
    front: AioFront, method: str, default_timeout: float | None, handler: Handler
) -> Callable[[bytes, grpc.aio.ServicerContext], Coroutine[Any, Any, bytes]]:
    async def answer(message: bytes, context: grpc.aio.ServicerContext) -> bytes:
        remaining = context.time_remaining()
        timer: asyncio.TimerHandle | None = None
        timeout = default_timeout if remaining is None else remaining
        call = _AioCall(front, method, message, None if timeout is None else time.monotonic() + timeout)
        if remaining is None and timeout is not None:
            timer = front._loop.call_later(timeout, call.expire)
        del message
        try:
            handler(call)
            # Who took the message keeps it for as long as it needs it.
            call.message = b""
            result = await call.answer
        except asyncio.CancelledError:
            call.leave()
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if isinstance(result, _Failure):
            await context.abort(result.status, result.details, result.trailing)
        return result  # type: ignore[return-value]

    return answer

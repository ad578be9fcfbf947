"""One RPC of the ``aio`` front. All but what :class:`RawCall` and :class:`RawStream` promise belongs to the loop.

A coroutine of ``grpc.aio`` that waits for a message of the peer, or for one that is sent, must never be cancelled: gRPC
would write into memory that is free by then. The reader and the writer of a stream are therefore tasks of their own,
which end when gRPC says so; what gRPC cancels, when the peer is gone, is a coroutine that waits for them.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

import grpc
import grpc.aio

from aipod.rpc.front.end import OUR_FAULT, OUT_OF_TIME, End, checked
from aipod.rpc.front.interface import Handler, Metadata, StreamHandler, StreamOpener

__all__ = ["AioCall", "AioStream"]

_log = logging.getLogger("aipod.rpc")

Post = Callable[..., None]


class _Rpc:
    """What a call and a stream have in common."""

    __slots__ = ("_context", "_post", "deadline", "method", "sending")

    def __init__(self, post: Post, method: str, context: grpc.aio.ServicerContext) -> None:
        self._post = post
        self._context: grpc.aio.ServicerContext | None = context
        self.method = method
        remaining = context.time_remaining()
        self.deadline: float | None = None if remaining is None else time.monotonic() + remaining
        self.sending = False

    @property
    def peer(self) -> str:
        context = self._context
        return context.peer() if context is not None else ""

    @property
    def metadata(self) -> Metadata:
        context = self._context
        return tuple(context.invocation_metadata() or ()) if context is not None else ()

    @property
    def identities(self) -> Sequence[str]:
        context = self._context
        return [name.decode() for name in context.peer_identities() or ()] if context is not None else []


class AioCall(_Rpc):
    """See :class:`~aipod.rpc.front.interface.RawCall`."""

    __slots__ = ("_answer", "_gone", "_on_gone", "_timer", "message", "task")

    link = None
    room = None

    def __init__(self, post: Post, method: str, context: grpc.aio.ServicerContext, default: float | None) -> None:
        super().__init__(post, method, context)
        loop = asyncio.get_running_loop()
        self.task = asyncio.current_task()
        self.message = b""
        self._answer: asyncio.Future[bytes | End] = loop.create_future()
        self._gone = False
        self._on_gone: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        if self.deadline is None and default is not None:
            self.deadline = time.monotonic() + default
            self._timer = loop.call_later(default, self._expire)

    def reply(self, message: bytes | memoryview, loans: object = None) -> None:
        self._post(self._settle, checked(message))

    def fail(self, status: str, details: str, trailing: Metadata) -> None:
        self._post(self._settle, End(status, details, trailing))

    def on_gone(self, action: Callable[[], None]) -> None:
        self._on_gone = action
        if self._gone:
            action()

    async def run(self, handler: Handler) -> bytes | None:
        try:
            try:
                handler(self)
            except Exception:
                _log.exception("%s: the handler failed", self.method)
                self._settle(OUR_FAULT)
            # Who took the message keeps it for as long as it needs it.
            self.message = b""
            answer = await self._answer
        except asyncio.CancelledError:
            self._leave()
            raise
        finally:
            if self._timer is not None:
                self._timer.cancel()
            context, self._context = self._context, None
        if isinstance(answer, End):
            await _abort(context, answer)
        return answer

    def _settle(self, answer: bytes | End) -> None:
        # The action refers to the call of the engine, which refers to us: megabytes would wait for the cycle collector.
        self._on_gone = None
        if not self._answer.done():
            self._answer.set_result(answer)

    def _leave(self) -> None:
        self._gone = True
        action, self._on_gone = self._on_gone, None
        if action is not None:
            action()

    def _expire(self) -> None:
        """A timeout of ours, for a caller that set none: the engine hears of it first, the caller gets our reason."""
        self._leave()
        self._settle(OUT_OF_TIME)


class AioStream(_Rpc):
    """See :class:`~aipod.rpc.front.interface.RawStream`."""

    __slots__ = ("_end", "_ended", "_flowing", "_held", "_news", "_once", "_over", "_woken", "tasks")

    def __init__(self, post: Post, method: str, context: grpc.aio.ServicerContext) -> None:
        super().__init__(post, method, context)
        # Who gets it decides how the stream ends: we finish it, or the peer is gone.
        self._once = threading.Lock()
        self._end: End | None = None
        self._over = False
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._news = asyncio.Event()
        self._woken = False
        self._flowing = asyncio.Event()
        self._held = False
        self.tasks: list[asyncio.Task[None]] = []

    def wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._post(self._news.set)

    def hold(self, held: bool) -> None:
        self._held = held
        if not held:
            self._post(self._flowing.set)

    def finish(self, status: str = "OK", details: str = "", trailing: Metadata = ()) -> None:
        self._finish(End(status, details, trailing))

    def _finish(self, end: End) -> None:
        if self._once.acquire(blocking=False):
            self._end = end
            self._post(self._news.set)

    async def run(self, opener: StreamOpener) -> None:
        context = self._context
        assert context is not None
        try:
            handler = opener(self)
        except Exception:
            _log.exception("%s: nobody could be found to handle a stream", self.method)
            await _abort(context, OUR_FAULT)
        self.tasks = [
            asyncio.ensure_future(work) for work in (self._read(context, handler), self._write(context, handler))
        ]
        try:
            await self._ended
        finally:
            # Of a peer that is gone we hear as a cancellation.
            self._over = True
            self._news.set()
            self._flowing.set()
            self._context = None
            if self._once.acquire(blocking=False):
                self._tell(handler.gone)
        if self._end is not None:
            context.set_code(self._end.status)
            context.set_details(self._end.details)
            context.set_trailing_metadata(self._end.trailing)

    async def _read(self, context: grpc.aio.ServicerContext, handler: StreamHandler) -> None:
        while await self._may_read():
            try:
                message = await context.read()
            except Exception:  # The RPC is over, and gRPC has several words for that.
                return
            if self._once.locked():
                return
            if message is grpc.aio.EOF:
                self._tell(handler.half_closed)
                return
            self._tell(handler.received, message)
            del message

    async def _may_read(self) -> bool:
        while self._held and not self._over:
            self._flowing.clear()
            await self._flowing.wait()
        return not self._once.locked()

    async def _write(self, context: grpc.aio.ServicerContext, handler: StreamHandler) -> None:
        try:
            await context.send_initial_metadata(())
            ending = False
            while not ending and not self._over:
                # Read before the handler is asked, so that what it has by the time of finish() goes first.
                ending, self._woken = self._end is not None, False
                while not self._over and (message := self._next_message(handler)) is not None:
                    self.sending = True
                    await context.write(message)
                    self.sending = False
                    del message
                if not ending and not self._over:
                    await self._news.wait()
                    self._news.clear()
        except Exception:
            # Mostly the peer is gone, and this reaches nobody.
            self._end = self._end or OUR_FAULT
        finally:
            self.sending = False
            if not self._ended.done():
                self._ended.set_result(None)

    def _next_message(self, handler: StreamHandler) -> bytes | None:
        try:
            message = handler.next_message()
            return None if message is None else checked(message)
        except Exception:
            self._blame()
            return None

    def _tell(self, action: Callable[..., None], *arguments: object) -> None:
        try:
            action(*arguments)
        except Exception:
            self._blame()

    def _blame(self) -> None:
        _log.exception("%s: who handles a stream failed", self.method)
        self._finish(OUR_FAULT)


async def _abort(context: grpc.aio.ServicerContext, end: End) -> NoReturn:
    await context.abort(end.status, end.details, end.trailing)
    raise AssertionError("gRPC's abort() raises")

"""One RPC of the ``cq`` front: its state, and the only place that starts work on it.

A wrong step here is a segmentation fault, so these hold without exception:

1. Work is started by ``_start``, and never once the RPC is ``_closed``. Every piece that was started comes back as one
   event, whatever becomes of the RPC; ``_open`` counts those that have not, beginning before they are started.
2. Events come on the poll thread, and nowhere else. The last of them finds that the RPC is closed and nothing is open:
   then gRPC's call is let go, and the front forgets the RPC. The queue outlives every RPC that the front knows.
3. gRPC takes one message to send at a time, and waits for one at a time: ``_turn`` and ``_reading`` say so.
4. Neither gRPC nor a handler works under the lock: the one lets go of the interpreter's, and who waits for ours waits
   for two then; the other may call back. What a handler raises ends its RPC, and no more.
5. An RPC that is over refers to no handler, call, message or action: they refer to it, and would wait for the cycle
   collector with megabytes in hand.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

from grpc._cython import cygrpc

from aipod.rpc.front.end import OUR_FAULT, OUT_OF_TIME, WITHOUT_REQUEST, End, checked
from aipod.rpc.front.interface import Handler, Metadata, StreamHandler, StreamOpener

__all__ = ["CqCall", "CqRefusal", "CqRpc", "CqStream"]

_log = logging.getLogger("aipod.rpc")

# A deadline that is further away than thirty years is gRPC's word for none.
_NEVER_SECONDS = 1e9


class Owner(Protocol):
    """What an RPC knows of its front."""

    def adopt(self, rpc: CqRpc) -> None:
        """It has begun, and :meth:`forget` will follow."""

    def forget(self, rpc: CqRpc) -> None:
        """It is over."""


class CqRpc:
    """What all RPCs have in common.

    Args:
        owner: Whom to tell of the end.
        method: The full name.
        event: The one that brought it.
    """

    __slots__ = ("_call", "_closed", "_lock", "_metadata", "_open", "_owner", "deadline", "method", "sending")

    kind: ClassVar[str] = "calls"

    def __init__(self, owner: Owner, method: str, event: Any) -> None:
        self._owner = owner
        self._call: Any = event.call
        self._metadata: Metadata = event.invocation_metadata
        self._lock = threading.Lock()
        self._closed = False
        self._open = 0
        self.method = method
        remaining = event.call_details.deadline - time.time()
        self.deadline: float | None = None if remaining > _NEVER_SECONDS else time.monotonic() + remaining
        self.sending = False

    @property
    def peer(self) -> str:
        call = self._call
        return call.peer().decode() if call is not None else ""

    @property
    def metadata(self) -> Metadata:
        return self._metadata

    @property
    def identities(self) -> Sequence[str]:
        call = self._call
        names = cygrpc.peer_identities(call) if call is not None else None
        return [name.decode() for name in names or ()]

    def _start(self, operations: tuple[Any, ...], done: Callable[[Any], None]) -> bool:
        """Have gRPC do something and tell ``done``; False if it does not. Without the lock."""
        with self._lock:
            if self._closed:
                return False
            # From here on gRPC's call stays, whatever becomes of the RPC.
            self._open += 1
        try:
            error = self._call.start_server_batch(operations, done)
        except Exception as failure:
            error = failure
        if error:
            # Never seen, and no event comes of it: the RPC ends with what is open.
            _log.error("%s: gRPC refuses to go on (%r)", self.method, error)
            self._call.cancel()
            self._came_back(closed=True)
        return not error

    def _watch(self, operations: tuple[Any, ...] = ()) -> None:
        """Have gRPC tell of the RPC's end; the first thing to start."""
        if self._start((cygrpc.ReceiveCloseOnServerOperation(0), *operations), self._on_close):
            self._owner.adopt(self)

    def _on_close(self, event: Any) -> None:
        self._came_back(closed=True)

    def _came_back(self, closed: bool = False) -> None:
        """An event has come; ``closed`` if it is the one that says that the RPC has ended. Without the lock."""
        with self._lock:
            self._open -= 1
            self._closed = self._closed or closed
            over = self._closed and not self._open
        if over:
            self._call = None
            self._owner.forget(self)

    def _guarded(self, action: Callable[..., object], *arguments: object) -> bool:
        """Do what others want done; whether it went well. Without the lock."""
        try:
            action(*arguments)
        except BaseException:
            # SystemExit, too: nothing may end the thread that serves everybody.
            _log.exception("%s: who handles it failed", self.method)
            return False
        return True


class CqRefusal(CqRpc):
    """An RPC that is answered without anybody's having seen it."""

    __slots__ = ()

    def begin(self, end: End) -> None:
        self._watch((_headers(), _status(end)))


class CqCall(CqRpc):
    """See :class:`~aipod.rpc.front.interface.RawCall`."""

    __slots__ = ("_answered", "_gone", "_handler", "_on_gone", "message")

    link = None
    room = None

    def __init__(self, owner: Owner, method: str, event: Any, handler: Handler) -> None:
        super().__init__(owner, method, event)
        self._handler = handler
        self._answered = False
        self._gone = False
        self._on_gone: Callable[[], None] | None = None
        self.message = b""

    def begin(self) -> None:
        self._watch()
        self._start((cygrpc.ReceiveMessageOperation(0),), self._on_message)

    def reply(self, message: bytes | memoryview, loans: object = None) -> None:
        self._answer((_headers(), cygrpc.SendMessageOperation(checked(message), 0), _ok()))

    def fail(self, status: str, details: str, trailing: Metadata) -> None:
        self._end(End(status, details, trailing))

    def on_gone(self, action: Callable[[], None]) -> None:
        with self._lock:
            gone = self._gone
            if not gone and not self._answered:
                self._on_gone = action
        if gone:
            action()

    def expire(self) -> None:
        """A timeout of ours, for a caller that set none: the engine hears of it first, the caller gets our reason."""
        if self._leave():
            self._send((_headers(), _status(OUT_OF_TIME)))

    def _end(self, end: End) -> None:
        self._answer((_headers(), _status(end)))

    def _answer(self, operations: tuple[Any, ...]) -> None:
        with self._lock:
            if self._answered:
                return
            self._answered = True
            self._on_gone = None
        self._send(operations)

    def _send(self, operations: tuple[Any, ...]) -> None:
        """By who has set ``_answered``."""
        self.sending = True
        self._start(operations, self._on_sent)

    def _leave(self) -> bool:
        """The caller counts as gone from now on; False if it had been answered before."""
        with self._lock:
            if self._answered:
                return False
            # What the action makes others answer comes too late.
            self._answered = self._gone = True
            action, self._on_gone = self._on_gone, None
        if action is not None:
            self._guarded(action)
        return True

    def _on_message(self, event: Any) -> None:
        message = event.batch_operations[0].message()
        self._came_back()
        if self._closed or self._answered:
            return
        if message is None:
            # With a caller that is gone, this is the first that we hear of it, and the answer gets lost.
            self._end(WITHOUT_REQUEST)
            return
        self.message = message
        if not self._guarded(self._handler, self):
            self._end(OUR_FAULT)
        # Who took the message keeps it for as long as it needs it.
        self.message = b""

    def _on_sent(self, _: Any) -> None:
        self.sending = False
        self._came_back()

    def _on_close(self, event: Any) -> None:
        self._leave()
        super()._on_close(event)


class CqStream(CqRpc):
    """See :class:`~aipod.rpc.front.interface.RawStream`."""

    __slots__ = ("_end", "_handler", "_held", "_no_more", "_reading", "_turn", "_woken")

    kind = "streams"

    def __init__(self, owner: Owner, method: str, event: Any) -> None:
        super().__init__(owner, method, event)
        self._handler: StreamHandler | None = None
        self._end: End | None = None
        # Held by who asks the handler, until what it gave has left; after the status for ever. Nobody waits for it.
        self._turn = threading.Lock()
        self._woken = False
        self._reading = False
        self._held = False
        self._no_more = False

    def begin(self, opener: StreamOpener) -> None:
        self._turn.acquire()
        self._watch()
        if not self._guarded(self._open_with, opener):
            self._finish(OUR_FAULT)
        self._start((_headers(),), self._on_headers)
        self._turn.release()
        self._read()
        self._pump()

    def wake(self) -> None:
        # Set before it is looked whose turn it is, and looked at when a turn is over: no wake-up is lost.
        self._woken = True
        self._pump()

    def hold(self, held: bool) -> None:
        self._held = held
        self._read()

    def finish(self, status: str = "OK", details: str = "", trailing: Metadata = ()) -> None:
        self._finish(End(status, details, trailing))

    def _open_with(self, opener: StreamOpener) -> None:
        self._handler = opener(self)

    def _finish(self, end: End) -> None:
        with self._lock:
            if self._end is not None:
                return
            self._end = end
        self._pump()

    def _pump(self) -> None:
        """Send what the handler has, unless somebody else does; from any thread, without the lock."""
        while (self._woken or self._end) and not self._closed and self._turn.acquire(blocking=False):
            self._woken = False
            handler, end = self._handler, self._end
            message = self._ask(handler)
            if message is not None:
                self.sending = True
                self._start((cygrpc.SendMessageOperation(message, 0),), self._on_sent)
                return
            # Looked at before the handler was asked, so that what it had by the time of finish() has left.
            if end is not None:
                self._start((_status(end),), self._on_status)
                return
            self._turn.release()

    def _ask(self, handler: StreamHandler | None) -> bytes | None:
        found: list[bytes | None] = [None]
        if handler is not None and not self._guarded(lambda: found.append(_next_of(handler))):
            self._blame()
        return found[-1]

    def _blame(self) -> None:
        """Who handles it failed, and will not be asked for anything more."""
        self._handler = None
        self._finish(OUR_FAULT)

    def _read(self) -> None:
        """Wait for the next message, unless that is done already, or there is none."""
        with self._lock:
            if self._reading or self._held or self._no_more or self._end:
                return
            self._reading = True
        self._start((cygrpc.ReceiveMessageOperation(0),), self._on_message)

    def _on_headers(self, _: Any) -> None:
        self._came_back()

    def _on_message(self, event: Any) -> None:
        message = event.batch_operations[0].message()
        self._came_back()
        with self._lock:
            self._reading = False
            self._no_more = message is None
            handler = None if self._end or self._closed else self._handler
        if handler is None:
            return
        took = self._guarded(handler.half_closed) if message is None else self._guarded(handler.received, message)
        if not took:
            self._blame()
        self._read()

    def _on_sent(self, _: Any) -> None:
        self._came_back()
        self.sending = False
        self._turn.release()
        self.wake()

    def _on_status(self, _: Any) -> None:
        self._came_back()

    def _on_close(self, event: Any) -> None:
        with self._lock:
            handler, self._handler = self._handler, None
            finished = self._end is not None
        super()._on_close(event)
        if handler is not None and not finished:
            self._guarded(handler.gone)


def _next_of(handler: StreamHandler) -> bytes | None:
    message = handler.next_message()
    return None if message is None else checked(message)


def _headers() -> Any:
    return cygrpc.SendInitialMetadataOperation(None, 0)


def _ok() -> Any:
    return cygrpc.SendStatusFromServerOperation(None, cygrpc.StatusCode.ok, b"", 0)


def _status(end: End) -> Any:
    return cygrpc.SendStatusFromServerOperation(end.trailing, end.status.value[0], end.details.encode(), 0)

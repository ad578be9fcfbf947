"""A connection to a server: a channel for unary calls, and trunks beside it.

Both are made when they are first needed, made anew after a fork, and closed under running calls without harm. A call
goes by a trunk where one is up, and unary otherwise; it is sent once, whichever way.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from aipod.codec import MAX_WHOLE_BYTES
from aipod.codec.dtypes import DType
from aipod.errors import AipodError, InvalidArgument, Unavailable
from aipod.rpc.calls import ClientClosed, Content
from aipod.rpc.methods import FOLLOW, MODEL_METHODS
from aipod.rpc.status import error_of_rpc, trailing_of
from aipod.rpc.trunk.chunks import LARGE_BYTES
from aipod.rpc.trunk.keeper import Trunks
from aipod.rpc.trunk.request import NeverSent, Reply, Request, Waiter
from aipod.rpc.trunk.sharing import Lender
from aipod.rpc.trunk.trunk import Trunk
from aipod.rpc.trunk.waiters import LoopSide, wait_for

__all__ = ["ASYNC_FAILURES", "FAILURES", "AsyncConnection", "BaseConnection", "Connection"]

# What a call on a channel can raise; closing the channel under it makes it raise the others.
FAILURES: tuple[type[BaseException], ...] = (grpc.RpcError, ValueError)
ASYNC_FAILURES: tuple[type[BaseException], ...] = (grpc.RpcError, grpc.aio.UsageError, asyncio.CancelledError)

# Channels of a parent process or of an event loop that is gone: they can be neither used nor closed.
_abandoned: list[Any] = []

# The others run once and for long, and keep to calls of their own, which no trunk's renewal has to wait for.
_BY_TRUNK = frozenset({"predict", "log"})
# How long a call waits for the trunk that it needs.
_TRUNK_SECONDS = 1.0
# Asks for nothing that could do harm. What is answered does not matter.
_HEALTH_CHECK = "/grpc.health.v1.Health/Check"
# Streams to a name that may stand for several servers.
_SPREAD = 4
# Calls, and streams, go to all the servers of a name in turn.
_SPREADING = ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}')


Shape = tuple[int, ...]


class _Process:
    """This process; to ask for its number would be a system call for every call of a model."""

    this = object()

    @classmethod
    def forked(cls) -> None:
        cls.this = object()


os.register_at_fork(after_in_child=_Process.forked)


class _Sending(NamedTuple):
    """A call, written for the trunk that it goes by."""

    trunk: Trunk
    message: bytes | memoryview
    lender: Lender | None


class BaseConnection:
    """What the two have in common. Shared by a client and all that was made of it with ``options``.

    Args:
        address: Where to.
        options: Of the channel.
        max_message_bytes: The largest reply.
        trunk: Whether calls may travel together.
        shares: Whether large arrays may go through memory that is shared with a server on the same host.
    """

    def __init__(
        self, address: str, options: list[tuple[str, Any]], max_message_bytes: int, trunk: bool, shares: bool
    ) -> None:
        self.address = address
        self._options = [*options, _SPREADING] if self._is_name else options
        self._max_message_bytes = max_message_bytes
        self._has_trunks = trunk
        self._shares = shares
        self._lock = threading.Lock()
        self._process = _Process.this
        self._home: object = None
        self._channel: Any = None
        self._stubs: dict[str, Callable[..., Any]] = {}
        self._trunks: Trunks | None = None
        self._closed = False

    @property
    def _is_name(self) -> bool:
        """Whether the address may stand for several servers."""
        return self.address.startswith("dns:")

    @property
    def load(self) -> int:
        """Calls that are on their way together."""
        return self._trunks.load if self._trunks is not None else 0

    def stub(self, method: str) -> Callable[..., Any]:
        """What sends bytes to a method and returns bytes; many of them, one after another, to follow a job.

        Raises:
            Unavailable: The client was closed.
        """
        if self._home == self._here():
            stub = self._stubs.get(method)
            if stub is not None:
                return stub
        return self._open(method)

    def error_of(self, failure: BaseException) -> AipodError:
        """Our error for what a call raised; what was raised for another reason than gRPC's goes through."""
        if self._closed:
            return _closed_under()
        if not isinstance(failure, grpc.RpcError):
            raise failure
        call: Any = failure
        return error_of_rpc(call.code(), call.details(), trailing_of(call.trailing_metadata()), self.address)

    def empty(self, shape: Shape, dtype: DType) -> NDArray[Any] | None:
        """An array in memory that is shared with the server; None if there is no such memory, or no room in it."""
        trunk = self._trunks.take(time.monotonic()) if self._trunks is not None and self._shares else None
        link = trunk.neighbour.wait() if trunk is not None else None
        if link is None:
            return None
        memory = link.arena.reserve(math.prod(shape) * dtype.itemsize)
        return np.ndarray(shape, dtype, memory) if memory is not None else None

    def _trunk(self, method: str) -> Trunk | None:
        """The trunk for a call, if there is one up."""
        trunks = self._trunks
        if trunks is None or method not in _BY_TRUNK or self._home != self._here():
            return None
        return trunks.take(time.monotonic())

    def _by_trunk(self, method: str, content: Content) -> _Sending | None:
        """A call written for the trunk that it can go by; None: it goes unary."""
        trunk = self._trunk(method)
        if trunk is None:
            return None
        if not self._shares:
            message = content.message(room=trunk.buffers.room)
            return _Sending(trunk, message, None) if len(message) <= trunk.max_request_bytes else None
        lender = Lender(trunk.neighbour.link)
        message = content.message(lender, trunk.buffers.room)
        lent = lender.lent_bytes
        if lent and (len(message) > LARGE_BYTES or len(message) + lent > trunk.max_request_bytes):
            # What goes in pieces may be given up on the way, and then nobody would say that the loans are over.
            lender.take_back()
            message, lent = content.message(room=trunk.buffers.room), 0
        if not lent:
            content.keep(message)
        if len(message) > trunk.max_request_bytes:
            return None
        return _Sending(trunk, message, lender if lent else None)

    def _needs_trunk(self, method: str, content: Content) -> bool:
        """Whether a call that could go alone has to wait for a trunk, which carries what nothing else does."""
        if not self._has_trunks or method not in _BY_TRUNK:
            return False
        # It has those made that it is asked about.
        self.stub(MODEL_METHODS[method])
        trunks = self._trunks
        takes_more = self._max_message_bytes > MAX_WHOLE_BYTES and trunks is not None and trunks.may_come
        return takes_more or self._is_too_large_alone(content)

    def _is_too_large_alone(self, content: Content) -> bool:
        trunks = self._trunks
        return trunks is not None and len(content.message(room=trunks.buffers.room)) > MAX_WHOLE_BYTES

    def _shut(self) -> Any:
        """Take no more calls; gives the channel, if there is one that can be closed from here."""
        with self._lock:
            self._closed = True
            channel, self._channel = self._channel, None
            self._stubs = {}
            trunks, self._trunks = self._trunks, None
        if trunks is not None:
            trunks.close()
        return channel if self._home == self._here() else None

    def _here(self) -> object:
        """What a channel belongs to."""
        raise NotImplementedError

    def _make(self) -> Any:
        raise NotImplementedError

    def _check_move(self, home: object) -> None:
        """May the channel, whose home is not here, be left behind?"""

    def _open(self, method: str) -> Callable[..., Any]:
        here = self._here()
        if self._process is not _Process.this:
            # A child after a fork: a thread of the parent may have held the lock, and nobody would ever release it.
            self._process, self._lock = _Process.this, threading.Lock()
        if self._channel is not None and self._home != here:
            self._check_move(self._home)
            if self._trunks is not None:
                # Those of a loop that is gone; where a fork made us move they are the parent's, and it knows that.
                self._trunks.close()
            _abandoned.append((self._channel, self._stubs))
            self._channel, self._stubs, self._trunks = None, {}, None
        with self._lock:
            if self._closed:
                raise ClientClosed("this client was closed; make a new one")
            if self._channel is None:
                self._channel = self._make()
                self._home = here
                self._plant()
            make = self._channel.unary_stream if method == FOLLOW else self._channel.unary_unary
            return self._stubs.setdefault(method, make(method))

    def _plant(self) -> None:
        if self._has_trunks:
            count = _SPREAD if self._is_name else 1
            self._trunks = Trunks(self.address, self._options, self._max_message_bytes, count)
            # A client that is dropped, or left open at the end, leaves no stream and no thread.
            weakref.finalize(self, self._trunks.close)


class Connection(BaseConnection):
    """For threads."""

    def call(self, method: str, content: Content, timeout: float | None) -> Reply:
        """Send a call of the model and wait for its reply.

        Raises:
            AipodError: Its failure.
        """
        sending = self._by_trunk(method, content)
        if sending is None and self._needs_trunk(method, content):
            began = time.monotonic()
            self.connect(_patience(timeout))
            sending, timeout = self._by_trunk(method, content), _left(timeout, began)
        if sending is not None:
            try:
                return wait_for(sending.trunk, method, sending.message, timeout, sending.lender)
            except NeverSent as error:
                if self._is_too_large_alone(content):
                    raise Unavailable(str(error)) from None
            except Unavailable:
                if self._closed:
                    raise _closed_under() from None
                raise
        try:
            reply: bytes = self.stub(MODEL_METHODS[method])(content.whole(), timeout=timeout)
        except FAILURES as failure:
            raise self.error_of(failure) from None
        return reply

    def send(
        self, method: str, content: Content, deadline: float | None, waiter: Waiter
    ) -> tuple[Trunk, Request] | None:
        """Send a call without waiting, if that can be had; ``waiter`` is settled when it is answered."""
        sending = self._by_trunk(method, content)
        if sending is None:
            return None
        request = Request(method, sending.message, deadline, waiter, sending.lender)
        sending.trunk.put(request)
        sending.trunk.wake()
        return sending.trunk, request

    def connect(self, timeout: float) -> bool:
        """Have a trunk up; False if none is to be had in time."""
        self.stub(MODEL_METHODS["predict"])
        return self._trunks is not None and self._trunks.connect(timeout)

    def close(self) -> None:
        channel = self._shut()
        if channel is not None:
            channel.close()

    def pause(self, seconds: float) -> None:
        """Wait before another try, and have the channel see meanwhile if the server is back.

        Older versions of gRPC, 1.74 still, look after a connection only while some call waits, and those that find no
        server do not: it could take 20 seconds, and all tries, to see one that was there. So a call waits for it here.
        """
        end = time.monotonic() + seconds
        with contextlib.suppress(AipodError, *FAILURES):
            self.stub(_HEALTH_CHECK)(b"", timeout=seconds, wait_for_ready=True)
        time.sleep(max(0.0, end - time.monotonic()))

    def _here(self) -> object:
        return _Process.this

    def _make(self) -> Any:
        return grpc.insecure_channel(self.address, options=self._options)


class AsyncConnection(BaseConnection):
    """For coroutines: a channel belongs to an event loop."""

    _side: LoopSide | None = None

    async def call(self, method: str, content: Content, timeout: float | None) -> Reply:
        """As :meth:`Connection.call`."""
        sending = self._by_trunk(method, content)
        if sending is None and self._needs_trunk(method, content):
            began = time.monotonic()
            await self.connect(_patience(timeout))
            sending, timeout = self._by_trunk(method, content), _left(timeout, began)
        if sending is not None:
            side = self._side
            if side is None or side.trunk is not sending.trunk:
                side = self._side = LoopSide(sending.trunk, asyncio.get_running_loop())
            try:
                return await side.call(method, sending.message, timeout, sending.lender)
            except NeverSent as error:
                if self._is_too_large_alone(content):
                    raise Unavailable(str(error)) from None
            except Unavailable:
                if self._closed:
                    raise _closed_under() from None
                raise
        try:
            reply: bytes = await self.stub(MODEL_METHODS[method])(content.whole(), timeout=timeout)
        except ASYNC_FAILURES as failure:
            raise self.error_of(failure) from None
        return reply

    async def connect(self, timeout: float) -> bool:
        """As :meth:`Connection.connect`."""
        self.stub(MODEL_METHODS["predict"])
        trunks = self._trunks
        return trunks is not None and await asyncio.to_thread(trunks.connect, timeout)

    async def close(self) -> None:
        channel = self._shut()
        if channel is not None:
            await channel.close()

    def error_of(self, failure: BaseException) -> AipodError:
        if isinstance(failure, asyncio.CancelledError) and _is_cancelled(asyncio.current_task()):
            raise failure
        return super().error_of(failure)

    def _here(self) -> object:
        try:
            return _Process.this, asyncio.get_running_loop()
        except RuntimeError:
            return _Process.this, None

    def _make(self) -> Any:
        return grpc.aio.insecure_channel(self.address, options=self._options)

    def _check_move(self, home: object) -> None:
        process, loop = home if isinstance(home, tuple) else (None, None)
        if process is _Process.this and loop is not None and not loop.is_closed():
            raise InvalidArgument("this client belongs to an event loop that still runs; make one for each loop")


def _patience(timeout: float | None) -> float:
    return _TRUNK_SECONDS if timeout is None else min(timeout, _TRUNK_SECONDS)


def _left(timeout: float | None, began: float) -> float | None:
    return None if timeout is None else max(0.0, timeout - (time.monotonic() - began))


def _closed_under() -> ClientClosed:
    return ClientClosed("this client was closed under the call; the call can have run", may_have_run=True)


def _is_cancelled(task: Any) -> bool:
    """Whether somebody cancelled the task, and not the channel its call; Python 3.10 does not tell them apart."""
    return bool(task.cancelling()) if hasattr(task, "cancelling") else False

"""A channel: made when it is first needed, made anew after a fork, closed under running calls without harm."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from aipod.errors import AipodError, InvalidArgument, Unavailable
from aipod.rpc.status import error_of_rpc, trailing_of

__all__ = ["ASYNC_FAILURES", "FAILURES", "AsyncConnection", "Connection"]

# What a call on a channel can raise; closing the channel under it makes it raise the others.
FAILURES: tuple[type[BaseException], ...] = (grpc.RpcError, ValueError)
ASYNC_FAILURES: tuple[type[BaseException], ...] = (grpc.RpcError, grpc.aio.UsageError, asyncio.CancelledError)

# Channels of a parent process or of an event loop that is gone: they can be neither used nor closed.
_abandoned: list[Any] = []


class Connection:
    """Shared by a client and all that was made of it with ``options``.

    Args:
        address: Where to.
        options: Of the channel.
    """

    def __init__(self, address: str, options: list[tuple[str, Any]]) -> None:
        self.address = address
        self._options = options
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._home: object = None
        self._channel: Any = None
        self._stubs: dict[str, Callable[..., Any]] = {}
        self._closed = False

    def stub(self, method: str) -> Callable[..., Any]:
        """What sends bytes to a method and returns bytes.

        Raises:
            Unavailable: The client was closed.
        """
        if self._home == self._here():
            stub = self._stubs.get(method)
            if stub is not None:
                return stub
        return self._open(method)

    def close(self) -> Any:
        """Take no more calls; gives the channel, if there is one that can be closed from here."""
        with self._lock:
            self._closed = True
            channel, self._channel = self._channel, None
            self._stubs = {}
            return channel if self._home == self._here() else None

    def error_of(self, failure: BaseException) -> AipodError:
        """Our error for what a call raised; what was raised for another reason than gRPC's goes through."""
        if self._closed:
            return Unavailable("this client was closed under the call; the call can have run", may_have_run=True)
        if not isinstance(failure, grpc.RpcError):
            raise failure
        call: Any = failure
        return error_of_rpc(call.code(), call.details(), trailing_of(call.trailing_metadata()), self.address)

    def _here(self) -> object:
        """What a channel belongs to."""
        return os.getpid()

    def _make(self) -> Any:
        return grpc.insecure_channel(self.address, options=self._options)

    def _check_move(self, home: object) -> None:
        """May the channel, whose home is not here, be left behind?"""

    def _open(self, method: str) -> Callable[..., Any]:
        here = self._here()
        if self._pid != os.getpid():
            # A child after a fork: a thread of the parent may have held the lock, and nobody would ever release it.
            self._pid, self._lock = os.getpid(), threading.Lock()
        if self._channel is not None and self._home != here:
            self._check_move(self._home)
            _abandoned.append((self._channel, self._stubs))
            self._channel, self._stubs = None, {}
        with self._lock:
            if self._closed:
                raise Unavailable("this client was closed; make a new one")
            if self._channel is None:
                self._channel = self._make()
                self._home = here
            return self._stubs.setdefault(method, self._channel.unary_unary(method))


class AsyncConnection(Connection):
    """The same for asyncio: a channel belongs to an event loop."""

    def error_of(self, failure: BaseException) -> AipodError:
        if isinstance(failure, asyncio.CancelledError) and _is_cancelled(asyncio.current_task()):
            raise failure
        return super().error_of(failure)

    def _here(self) -> object:
        try:
            return os.getpid(), asyncio.get_running_loop()
        except RuntimeError:
            return os.getpid(), None

    def _make(self) -> Any:
        return grpc.aio.insecure_channel(self.address, options=self._options)

    def _check_move(self, home: object) -> None:
        pid, loop = home if isinstance(home, tuple) else (0, None)
        if pid == os.getpid() and loop is not None and not loop.is_closed():
            raise InvalidArgument("this client belongs to an event loop that still runs; make one for each loop")


def _is_cancelled(task: Any) -> bool:
    """Whether somebody cancelled the task, and not the channel its call; Python 3.10 does not tell them apart."""
    return bool(task.cancelling()) if hasattr(task, "cancelling") else False

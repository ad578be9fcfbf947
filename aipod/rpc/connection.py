"""A channel that is made when it is first needed, and made anew after a fork."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from aipod.errors import Unavailable

__all__ = ["Connection"]

C = TypeVar("C")

# Channels of a parent process: their threads do not exist after the fork, so they are neither used nor closed.
_abandoned: list[Any] = []


class Connection(Generic[C]):
    """Shared by a client and all that was made of it with ``options``.

    Args:
        address: Where to.
        make: Makes a channel.
    """

    def __init__(self, address: str, make: Callable[[], C]) -> None:
        self.address = address
        self._make = make
        self._lock = threading.Lock()
        self._pid = 0
        self._channel: C | None = None
        self._stubs: dict[str, Callable[..., Any]] = {}
        self._closed = False

    def stub(self, method: str) -> Callable[..., Any]:
        """What sends bytes to a method and returns bytes.

        Raises:
            Unavailable: The client was closed.
        """
        if self._pid == os.getpid():
            stub = self._stubs.get(method)
            if stub is not None:
                return stub
        return self._open(method)

    def close(self) -> C | None:
        """Take no more calls; gives the channel, if there is one of this process, for the caller to close."""
        with self._lock:
            self._closed = True
            channel, self._channel = self._channel, None
            self._stubs = {}
            return channel if self._pid == os.getpid() else None

    def _open(self, method: str) -> Callable[..., Any]:
        pid = os.getpid()
        if self._pid not in (0, pid):
            # A child after a fork: a thread of the parent may have held the lock for ever.
            self._lock = threading.Lock()
            _abandoned.append((self._channel, self._stubs))
            self._channel, self._stubs = None, {}
        with self._lock:
            if self._closed:
                raise Unavailable("this client was closed; make a new one")
            if self._channel is None:
                self._channel = self._make()
                self._pid = pid
            channel: Any = self._channel
            return self._stubs.setdefault(method, channel.unary_unary(method))

"""The clients: the model's own methods, for callers elsewhere.

::

    model = AIClient("localhost:50051", version="v1")
    model.predict(image=array)

A client touches no disk and connects with its first call. It may be used from any number of threads, and after a fork.
Every keyword belongs to the model; what is meant for AIPOD goes through ``options``.
"""

from __future__ import annotations

import asyncio
import copy
import time
from functools import cached_property
from types import TracebackType
from typing import Any

from aipod.codec import encode_call
from aipod.config import check_address
from aipod.rpc.admin_client import Admin, AsyncAdmin
from aipod.rpc.calls import (
    DEFAULT_RETRY,
    MAX_MESSAGE_BYTES,
    Attempts,
    channel_options,
    decode,
    raising,
    take_bytes,
    take_ping,
    take_retry,
    take_timeout,
    take_version,
)
from aipod.rpc.connection import ASYNC_FAILURES, FAILURES, AsyncConnection, Connection
from aipod.rpc.keepalive import PING_SECONDS
from aipod.rpc.methods import MODEL_METHODS

__all__ = ["AIClient", "AsyncAIClient"]


class _Unset:
    def __repr__(self) -> str:
        return "unchanged"


_UNSET: Any = _Unset()


class _Options:
    """What a client and its variants differ in."""

    _timeouts: dict[str, float | None]
    _retry: int

    def _set_up(self, version: str | None, timeout: float | None) -> None:
        self.version = take_version(version)
        seconds = take_timeout(timeout)
        self._timeouts = {method: None if method == "train" else seconds for method in MODEL_METHODS}
        self._retry = DEFAULT_RETRY

    def _variant(self, timeout: float | None, retry: int | bool) -> Any:
        variant = copy.copy(self)
        if timeout is not _UNSET:
            variant._timeouts = dict.fromkeys(MODEL_METHODS, take_timeout(timeout))
        if retry is not _UNSET:
            variant._retry = take_retry(retry)
        return variant


class AIClient(_Options):
    """Calls a model on a server.

    Args:
        address: ``host:port``, or anything else that gRPC resolves (``unix:/path``, ``dns:///name:port``).
        version: The version, or an alias, that all calls go to.
        timeout: Seconds for predict, initialize and log; None for ever. A train has no limit unless ``options`` sets
            one.
        datapath: For code of 1.0; ignored, since nothing of a client is on disk.
        ping_seconds: While a call runs, how often to make sure that the server is alive; a dead one is noticed after
            twice that.
        max_message_bytes: The largest reply.

    Raises:
        ConfigError: The address is none (also a ValueError).
        InvalidArgument: The timeout or the version is none.
    """

    def __init__(
        self,
        address: str,
        version: str | None = "default",
        timeout: float | None = 60.0,
        *,
        datapath: object = None,
        ping_seconds: float = PING_SECONDS,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        self._set_up(version, timeout)
        target, options = (
            check_address(address),
            channel_options(take_ping(ping_seconds), take_bytes(max_message_bytes)),
        )
        self._connection = Connection(target, options)

    def __repr__(self) -> str:
        return f"AIClient({self._connection.address!r}, version={self.version!r})"

    def __enter__(self) -> AIClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        return self._connection.address

    @cached_property
    def admin(self) -> Admin:
        """The operator's side of the server: versions, load, unload, pin, rollback, aliases, delete, statistics."""
        return Admin(self._connection)

    def options(self, *, timeout: float | None = _UNSET, retry: int | bool = _UNSET) -> AIClient:
        """This client with other options, on the same connection; ``client.options(timeout=1.0).predict(…)``.

        Args:
            timeout: Seconds for every method, train included; None for ever.
            retry: How many more tries a predict or a log may have when the server is away; 0 or False for none.

        Raises:
            InvalidArgument: One of them makes no sense.
        """
        variant: AIClient = self._variant(timeout, retry)
        return variant

    def initialize(self, /, **kwargs: Any) -> Any:
        """Publish a new revision with these parameters. Sent once."""
        return self._call("initialize", kwargs)

    def train(self, /, **kwargs: Any) -> Any:
        """Train and publish; returns what the model's ``train`` returned, when the new revision serves. Sent once."""
        return self._call("train", kwargs)

    def predict(self, /, **kwargs: Any) -> Any:
        """Ask the model. Arrays in the answer are read-only views; copy one to write to it.

        Raises:
            AipodError: See :mod:`aipod.errors`; what the server raised has the same class here.
        """
        return self._call("predict", kwargs)

    def log(self, /, **kwargs: Any) -> Any:
        """The records of the latest training, or what the model's own ``log`` makes of ``name`` and the rest."""
        return self._call("log", kwargs)

    def close(self) -> None:
        """Close the connection, that of every variant too; a second time does nothing."""
        channel = self._connection.close()
        if channel is not None:
            channel.close()

    def _call(self, method: str, kwargs: dict[str, Any]) -> Any:
        message = encode_call(self.version, kwargs)
        timeout = self._timeouts[method]
        attempts = Attempts(method, timeout, self._retry)
        while True:
            try:
                reply = self._connection.stub(MODEL_METHODS[method])(message, timeout=timeout)
            except FAILURES as failure:
                error = self._connection.error_of(failure)
            else:
                return decode(reply)
            pause = attempts.pause(error)
            if pause is None:
                raise raising(error)
            time.sleep(pause)
            timeout = attempts.timeout()


class AsyncAIClient(_Options):
    """:class:`AIClient` for asyncio: every method is awaited. Belongs to the event loop of its first call."""

    def __init__(
        self,
        address: str,
        version: str | None = "default",
        timeout: float | None = 60.0,
        *,
        ping_seconds: float = PING_SECONDS,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        self._set_up(version, timeout)
        target, options = (
            check_address(address),
            channel_options(take_ping(ping_seconds), take_bytes(max_message_bytes)),
        )
        self._connection = AsyncConnection(target, options)

    def __repr__(self) -> str:
        return f"AsyncAIClient({self._connection.address!r}, version={self.version!r})"

    async def __aenter__(self) -> AsyncAIClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def address(self) -> str:
        return self._connection.address

    @cached_property
    def admin(self) -> AsyncAdmin:
        return AsyncAdmin(self._connection)

    def options(self, *, timeout: float | None = _UNSET, retry: int | bool = _UNSET) -> AsyncAIClient:
        variant: AsyncAIClient = self._variant(timeout, retry)
        return variant

    async def initialize(self, /, **kwargs: Any) -> Any:
        return await self._call("initialize", kwargs)

    async def train(self, /, **kwargs: Any) -> Any:
        return await self._call("train", kwargs)

    async def predict(self, /, **kwargs: Any) -> Any:
        return await self._call("predict", kwargs)

    async def log(self, /, **kwargs: Any) -> Any:
        return await self._call("log", kwargs)

    async def close(self) -> None:
        channel = self._connection.close()
        if channel is not None:
            await channel.close()

    async def _call(self, method: str, kwargs: dict[str, Any]) -> Any:
        message = encode_call(self.version, kwargs)
        timeout = self._timeouts[method]
        attempts = Attempts(method, timeout, self._retry)
        while True:
            try:
                reply = await self._connection.stub(MODEL_METHODS[method])(message, timeout=timeout)
            except ASYNC_FAILURES as failure:
                error = self._connection.error_of(failure)
            else:
                return decode(reply)
            pause = attempts.pause(error)
            if pause is None:
                raise raising(error)
            await asyncio.sleep(pause)
            timeout = attempts.timeout()

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
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import cached_property, partial
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from aipod.errors import AipodError, InvalidArgument
from aipod.rpc.admin_client import Admin, AsyncAdmin
from aipod.rpc.calls import (
    DEFAULT_RETRY,
    MAX_MESSAGE_BYTES,
    Attempts,
    Content,
    Timed,
    Timings,
    channel_options,
    decode,
    take_addresses,
    take_bytes,
    take_dtype,
    take_flag,
    take_ping,
    take_priority,
    take_retry,
    take_shape,
    take_timeout,
    take_version,
)
from aipod.rpc.connection import AsyncConnection, BaseConnection, Connection
from aipod.rpc.keepalive import PING_SECONDS
from aipod.rpc.methods import MODEL_METHODS
from aipod.rpc.route import AsyncRoute, Route
from aipod.rpc.submitting import Submitter, mapped, take_in_flight, take_input

__all__ = ["AIClient", "AsyncAIClient", "Timed", "Timings"]

_CONNECT_SECONDS = 5.0

C = TypeVar("C", bound=BaseConnection)


class _Unset:
    def __repr__(self) -> str:
        return "unchanged"


_UNSET: Any = _Unset()


class _Client:
    """What the two clients have in common: all but how they wait."""

    def _set_up(self, version: str | None, timeout: float | None) -> None:
        self.version = take_version(version)
        seconds = take_timeout(timeout)
        self._timeouts = {method: None if method == "train" else seconds for method in MODEL_METHODS}
        self._retry = DEFAULT_RETRY
        self._priority = 0
        self._timed = False

    def _variant(self, timeout: float | None, retry: int | bool, priority: int, timed: bool) -> Any:
        variant = copy.copy(self)
        if timeout is not _UNSET:
            variant._timeouts = dict.fromkeys(MODEL_METHODS, take_timeout(timeout))
        if retry is not _UNSET:
            variant._retry = take_retry(retry)
        if priority is not _UNSET:
            variant._priority = take_priority(priority)
        if timed is not _UNSET:
            variant._timed = take_flag("timed", timed)
        return variant

    def _content(self, kwargs: dict[str, Any]) -> Content:
        return Content(self.version, kwargs, self._priority, self._timed)


class AIClient(_Client):
    """Calls a model on a server, or on one of several that serve the same.

    Args:
        address: ``host:port``, or anything else that gRPC resolves (``unix:/path``, ``dns:///name:port``); or a list of
            them: each call goes to the one with the least to do.
        version: The version, or an alias, that all calls go to.
        timeout: Seconds for predict, initialize and log; None for ever. A train has no limit unless ``options`` sets
            one.
        datapath: For code of 1.0; ignored, since nothing of a client is on disk.
        ping_seconds: While a call runs, how often to make sure that the server is alive; a dead one is noticed after
            twice that.
        max_message_bytes: The largest reply.
        trunk: Whether calls may travel together on one stream, which is what makes many of them at a time fast. Without
            it, or where the server or a proxy on the way does not know it, each is a unary call.
        shared_memory: Whether large arrays may go through memory that is shared with a server on the same host; only
            together with ``trunk``.

    Raises:
        ConfigError: The address is none (also a ValueError).
        InvalidArgument: The timeout or the version is none.
    """

    def __init__(
        self,
        address: str | Sequence[str],
        version: str | None = "default",
        timeout: float | None = 60.0,
        *,
        datapath: object = None,
        ping_seconds: float = PING_SECONDS,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        trunk: bool = True,
        shared_memory: bool = True,
    ) -> None:
        self._set_up(version, timeout)
        options = channel_options(take_ping(ping_seconds), take_bytes(max_message_bytes))
        trunk, shared_memory = take_flag("trunk", trunk), take_flag("shared_memory", shared_memory)
        connections = [
            Connection(one, options, max_message_bytes, trunk, shared_memory) for one in take_addresses(address)
        ]
        self._connections = connections
        self._route: Connection | Route = Route(connections) if len(connections) > 1 else connections[0]
        self._submitter = Submitter(self._route)

    def __repr__(self) -> str:
        return f"AIClient({self._route.address!r}, version={self.version!r})"

    def __enter__(self) -> AIClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        return self._route.address

    @cached_property
    def admin(self) -> Admin:
        """The operator's side of the server: versions, load, unload, pin, rollback, aliases, delete, statistics.

        Raises:
            InvalidArgument: The client is for several servers.
        """
        return Admin(_only(self._connections))

    def options(
        self,
        *,
        timeout: float | None = _UNSET,
        retry: int | bool = _UNSET,
        priority: int = _UNSET,
        timed: bool = _UNSET,
    ) -> AIClient:
        """This client with other options, on the same connection; ``client.options(timeout=1.0).predict(…)``.

        Args:
            timeout: Seconds for every method, train included; None for ever.
            retry: How many more tries a predict or a log may have when the server is away; 0 or False for none.
            priority: From -60 to 60: where calls of a version wait, one is served as if it had come so many seconds
                earlier. 0 is the usual.
            timed: Have each call return a :class:`Timed`: its value, and where its time went on the server.

        Raises:
            InvalidArgument: One of them makes no sense.
        """
        variant: AIClient = self._variant(timeout, retry, priority, timed)
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

    def submit(self, /, **kwargs: Any) -> Future[Any]:
        """Ask the model without waiting: a future of what :meth:`predict` returns, or raises.

        Arrays in ``kwargs`` are copied before this returns, but for those of :meth:`empty`. To cancel the future gives
        the call up.

        Raises:
            SerializationError: An argument cannot travel.
        """
        content = self._content(kwargs)
        return self._submitter.submit(
            content,
            self._timeouts["predict"],
            partial(decode, timed=self._timed),
            partial(self._send, "predict", content),
            again=self._retry > 0,
        )

    def map(self, inputs: Iterable[Mapping[str, Any]], in_flight: int = 64) -> Iterator[Any]:
        """What :meth:`predict` returns for each of the inputs, in their order; the first that fails ends it.

        Args:
            inputs: The keyword arguments of each call; taken as they are needed, so that there may be any number.
            in_flight: How many calls may be on their way at a time.

        Raises:
            InvalidArgument: ``in_flight`` makes no sense, or an input is no dictionary.
        """
        return mapped(self.submit, inputs, take_in_flight(in_flight))

    def empty(self, shape: int | Sequence[int], dtype: Any = np.float32) -> NDArray[Any]:
        """An array to be filled and sent, uninitialised.

        Where the server is on the same host it lies in memory that both share, and a call that has it among its
        arguments copies nothing: do not write to it before the call is answered. Elsewhere it is an ordinary array.

        Raises:
            InvalidArgument: There is no array of that shape or dtype, or it could not travel.
        """
        lengths, kind = take_shape(shape), take_dtype(dtype)
        for connection in self._connections:
            array = connection.empty(lengths, kind) if connection.connect(_CONNECT_SECONDS) else None
            if array is not None:
                return array
        return np.empty(lengths, kind)

    def connect(self, timeout: float = _CONNECT_SECONDS) -> bool:
        """Connect now and not with the first calls; says whether calls travel together from here on.

        Nothing needs it: what a benchmark measures, and what a user waits for first, is better without the beginning.
        """
        return self._route.connect(timeout)

    def close(self) -> None:
        """Close the connection, that of every variant too; a second time does nothing."""
        self._submitter.close()
        self._route.close()
        self._submitter.join()

    def _call(self, method: str, kwargs: dict[str, Any]) -> Any:
        return self._send(method, self._content(kwargs), self._timeouts[method])

    def _send(self, method: str, content: Content, timeout: float | None) -> Any:
        attempts = Attempts(method, timeout, self._retry)
        while True:
            try:
                return decode(self._route.call(method, content, timeout), self._timed)
            except AipodError as error:
                pause = attempts.pause(error)
            self._route.pause(pause)
            timeout = attempts.timeout()


class AsyncAIClient(_Client):
    """:class:`AIClient` for asyncio: every method is awaited. Belongs to the event loop of its first call."""

    def __init__(
        self,
        address: str | Sequence[str],
        version: str | None = "default",
        timeout: float | None = 60.0,
        *,
        ping_seconds: float = PING_SECONDS,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        trunk: bool = True,
        shared_memory: bool = True,
    ) -> None:
        self._set_up(version, timeout)
        options = channel_options(take_ping(ping_seconds), take_bytes(max_message_bytes))
        trunk, shared_memory = take_flag("trunk", trunk), take_flag("shared_memory", shared_memory)
        connections = [
            AsyncConnection(one, options, max_message_bytes, trunk, shared_memory) for one in take_addresses(address)
        ]
        self._connections = connections
        self._route: AsyncConnection | AsyncRoute = AsyncRoute(connections) if len(connections) > 1 else connections[0]

    def __repr__(self) -> str:
        return f"AsyncAIClient({self._route.address!r}, version={self.version!r})"

    async def __aenter__(self) -> AsyncAIClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def address(self) -> str:
        return self._route.address

    @cached_property
    def admin(self) -> AsyncAdmin:
        return AsyncAdmin(_only(self._connections))

    def options(
        self,
        *,
        timeout: float | None = _UNSET,
        retry: int | bool = _UNSET,
        priority: int = _UNSET,
        timed: bool = _UNSET,
    ) -> AsyncAIClient:
        variant: AsyncAIClient = self._variant(timeout, retry, priority, timed)
        return variant

    async def initialize(self, /, **kwargs: Any) -> Any:
        return await self._call("initialize", kwargs)

    async def train(self, /, **kwargs: Any) -> Any:
        return await self._call("train", kwargs)

    async def predict(self, /, **kwargs: Any) -> Any:
        return await self._call("predict", kwargs)

    async def log(self, /, **kwargs: Any) -> Any:
        return await self._call("log", kwargs)

    async def map(self, inputs: Iterable[Mapping[str, Any]], in_flight: int = 64) -> AsyncIterator[Any]:
        """As :meth:`AIClient.map`."""
        at_most = take_in_flight(in_flight)
        waiting: deque[asyncio.Task[Any]] = deque()
        try:
            for kwargs in inputs:
                waiting.append(asyncio.create_task(self.predict(**take_input(kwargs))))
                if len(waiting) >= at_most:
                    yield await waiting.popleft()
            while waiting:
                yield await waiting.popleft()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def empty(self, shape: int | Sequence[int], dtype: Any = np.float32) -> NDArray[Any]:
        """As :meth:`AIClient.empty`."""
        lengths, kind = take_shape(shape), take_dtype(dtype)
        for connection in self._connections:
            if await connection.connect(_CONNECT_SECONDS):
                array = await asyncio.to_thread(connection.empty, lengths, kind)
                if array is not None:
                    return array
        return np.empty(lengths, kind)

    async def connect(self, timeout: float = _CONNECT_SECONDS) -> bool:
        return await self._route.connect(timeout)

    async def close(self) -> None:
        await self._route.close()

    async def _call(self, method: str, kwargs: dict[str, Any]) -> Any:
        content = self._content(kwargs)
        timeout = self._timeouts[method]
        attempts = Attempts(method, timeout, self._retry)
        while True:
            try:
                return decode(await self._route.call(method, content, timeout), self._timed)
            except AipodError as error:
                pause = attempts.pause(error)
            await asyncio.sleep(pause)
            timeout = attempts.timeout()


def _only(connections: Sequence[C]) -> C:
    if len(connections) > 1:
        raise InvalidArgument("this client is for several servers; make one for the server that is to be administered")
    return connections[0]

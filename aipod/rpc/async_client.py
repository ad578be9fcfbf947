"""The client for asyncio. :mod:`aipod.rpc.client` has both, and says what there is to say of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import cached_property
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aipod.errors import AipodError
from aipod.rpc.admin_client import AsyncAdmin
from aipod.rpc.arguments import take_addresses, take_bytes, take_dtype, take_flag, take_ping, take_shape
from aipod.rpc.base_client import CONNECT_SECONDS, UNSET, BaseClient, only
from aipod.rpc.calls import MAX_MESSAGE_BYTES, Attempts, channel_options, decode
from aipod.rpc.connection import AsyncConnection
from aipod.rpc.job_calls import JobInfo, JobRequests
from aipod.rpc.keepalive import PING_SECONDS
from aipod.rpc.route import AsyncRoute
from aipod.rpc.submitting import take_in_flight, take_input
from aipod.rpc.training_job import AsyncTrainingJob, async_ask, async_begin, async_train, started

__all__ = ["AsyncAIClient"]


class AsyncAIClient(BaseClient):
    """:class:`~aipod.rpc.client.AIClient` for asyncio: every method is awaited.

    It belongs to the event loop of its first call.
    """

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
        return AsyncAdmin(only(self._connections))

    def options(
        self,
        *,
        timeout: float | None = UNSET,
        retry: int | bool = UNSET,
        priority: int = UNSET,
        timed: bool = UNSET,
        request_id: str | None = UNSET,
    ) -> AsyncAIClient:
        variant: AsyncAIClient = self._variant(timeout, retry, priority, timed, request_id)
        return variant

    async def initialize(self, /, **kwargs: Any) -> Any:
        return await self._call("initialize", kwargs)

    async def train(self, /, **kwargs: Any) -> Any:
        """As :meth:`~aipod.rpc.client.AIClient.train`; to cancel the task leaves the job running."""
        attempts = self._attempts("train")
        return await async_train(self._targets(), self._training(kwargs), self.version, attempts, self._timed)

    async def start_training(self, /, **kwargs: Any) -> AsyncTrainingJob:
        """As :meth:`~aipod.rpc.client.AIClient.start_training`."""
        content, attempts = self._training(kwargs), self._attempts("train")
        job: AsyncTrainingJob = started(await async_begin(self._targets(), content, self.version, attempts))
        return job

    async def jobs(self, version: str | None = None) -> tuple[JobInfo, ...]:
        """As :meth:`~aipod.rpc.client.AIClient.jobs`."""
        return await async_ask(only(self._connections), JobRequests.jobs(version))

    async def job(self, job_id: str) -> AsyncTrainingJob:
        """As :meth:`~aipod.rpc.client.AIClient.job`."""
        connection = only(self._connections)
        return AsyncTrainingJob(connection, job_id, (await async_ask(connection, JobRequests.get(job_id))).version)

    async def predict(self, /, **kwargs: Any) -> Any:
        return await self._call("predict", kwargs)

    async def log(self, /, **kwargs: Any) -> Any:
        return await self._call("log", kwargs)

    async def map(self, inputs: Iterable[Mapping[str, Any]], in_flight: int = 64) -> AsyncIterator[Any]:
        """As :meth:`~aipod.rpc.client.AIClient.map`."""
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
        """As :meth:`~aipod.rpc.client.AIClient.empty`."""
        lengths, kind = take_shape(shape), take_dtype(dtype)
        for connection in self._connections:
            if await connection.connect(CONNECT_SECONDS):
                array = await asyncio.to_thread(connection.empty, lengths, kind)
                if array is not None:
                    return array
        return np.empty(lengths, kind)

    async def connect(self, timeout: float = CONNECT_SECONDS) -> bool:
        return await self._route.connect(timeout)

    async def close(self) -> None:
        await self._route.close()

    def _targets(self) -> Sequence[AsyncConnection]:
        return self._route.order() if isinstance(self._route, AsyncRoute) else self._connections

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

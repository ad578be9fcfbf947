"""Several servers that serve the same models: which of them gets a call.

A call goes to the server with the least on its way. One that is away rests for a while; a call that cannot have run
there goes to the next at once.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

from aipod.errors import Unavailable
from aipod.rpc.calls import Content
from aipod.rpc.connection import AsyncConnection, BaseConnection, Connection
from aipod.rpc.trunk.request import Reply, Request, Waiter
from aipod.rpc.trunk.trunk import Trunk

__all__ = ["AsyncRoute", "Route"]

_REST_SECONDS = 1.0

C = TypeVar("C", bound=BaseConnection)


class _Route(Generic[C]):
    """What the two have in common.

    Args:
        connections: One for each server; at least one.
    """

    def __init__(self, connections: Sequence[C]) -> None:
        self.connections: tuple[C, ...] = tuple(connections)
        self._turns: Iterator[int] = itertools.cycle(range(len(self.connections)))
        self._resting: dict[C, float] = {}

    @property
    def address(self) -> str:
        return ",".join(connection.address for connection in self.connections)

    def order(self) -> list[C]:
        """All of them, the best first; of those that are alike each comes first in its turn."""
        turn: int = next(self._turns)
        now = time.monotonic()
        order: list[C] = [*self.connections[turn:], *self.connections[:turn]]
        order.sort(key=lambda one: (self._resting.get(one, 0.0) > now, one.load))
        return order

    def _rest(self, connection: C, error: Unavailable) -> None:
        """Have a server that was away rest; raises the error if the call can have run there."""
        self._resting[connection] = time.monotonic() + _REST_SECONDS
        if error.may_have_run:
            raise error


class Route(_Route[Connection]):
    """For threads."""

    def call(self, method: str, content: Content, timeout: float | None) -> Reply:
        """As :meth:`Connection.call`."""
        *others, last = self.order()
        for connection in others:
            try:
                return connection.call(method, content, timeout)
            except Unavailable as error:
                self._rest(connection, error)
        return last.call(method, content, timeout)

    def send(
        self, method: str, content: Content, deadline: float | None, waiter: Waiter
    ) -> tuple[Trunk, Request] | None:
        """As :meth:`Connection.send`."""
        return self.order()[0].send(method, content, deadline, waiter)

    def pause(self, seconds: float) -> None:
        """As :meth:`Connection.pause`, with each of them in its turn."""
        self.order()[0].pause(seconds)

    def connect(self, timeout: float) -> bool:
        """Have trunks to all of them."""
        deadline = time.monotonic() + timeout
        return all([one.connect(max(0.0, deadline - time.monotonic())) for one in self.connections])

    def close(self) -> None:
        for connection in self.connections:
            connection.close()


class AsyncRoute(_Route[AsyncConnection]):
    """For coroutines."""

    async def call(self, method: str, content: Content, timeout: float | None) -> Reply:
        """As :meth:`AsyncConnection.call`."""
        *others, last = self.order()
        for connection in others:
            try:
                return await connection.call(method, content, timeout)
            except Unavailable as error:
                self._rest(connection, error)
        return await last.call(method, content, timeout)

    async def connect(self, timeout: float) -> bool:
        """As :meth:`Route.connect`."""
        deadline = time.monotonic() + timeout
        return all([await one.connect(max(0.0, deadline - time.monotonic())) for one in self.connections])

    async def close(self) -> None:
        for connection in self.connections:
            await connection.close()

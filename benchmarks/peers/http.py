"""The callers of servers that speak HTTP."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import requests

from benchmarks.order import Order
from benchmarks.peers import Raw
from benchmarks.peers.bodies import sides

__all__ = ["awaiting", "blocking", "raw"]

_BYTES, _JSON = "application/octet-stream", "application/json"
_PATIENCE = 60.0


def blocking(order: Order, path: str, listed: bool = False) -> Callable[[], Any]:
    """``requests`` with a session for each thread, as its project advises.

    Args:
        order: What to ask.
        path: Whom.
        listed: See :func:`~benchmarks.peers.bodies.sides`.
    """
    url, headers, local = f"http://{order.address}{path}", _headers(order), threading.local()
    send, take = sides(order, listed)

    def call() -> Any:
        if not hasattr(local, "session"):
            local.session = requests.Session()
        response = local.session.post(url, data=send(), headers=headers, timeout=_PATIENCE)
        response.raise_for_status()
        return take(response.content)

    return call


async def awaiting(order: Order, path: str, listed: bool = False) -> Callable[[], Awaitable[Any]]:
    """``aiohttp`` with one session for all callers."""
    url, headers = f"http://{order.address}{path}", _headers(order)
    send, take = sides(order, listed)
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=order.callers))

    async def call() -> Any:
        async with session.post(url, data=send(), headers=headers) as response:
            response.raise_for_status()
            return take(await response.read())

    return call


def raw(order: Order, path: str, listed: bool = False) -> Raw:
    send, _ = sides(order, listed)
    return Raw(path, send(), _headers(order), grpc=False)


def _headers(order: Order) -> dict[str, str]:
    return {"Content-Type": _BYTES if order.work == "sum" else _JSON}

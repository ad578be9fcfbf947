"""AIPOD, as its users call it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

from aipod.codec import encode_call
from aipod.memory import reuse_freed_memory
from aipod.rpc.client import AIClient, AsyncAIClient
from benchmarks.order import Order
from benchmarks.peers import Raw

# What a call takes from the answer.
_ANSWERS: dict[str, Callable[[Any], Any]] = {
    "array": lambda answer: answer["data"],
    "sum": lambda answer: (answer["data"], answer["total"]),
}


def blocking(order: Order) -> Callable[[], Any]:
    if order.keep_memory:
        reuse_freed_memory()
    options = dict(order.options)
    lend = options.pop("empty", False)
    client = AIClient(order.address, **options)
    client.connect()
    kwargs = _kwargs(order)
    if lend:
        kwargs["data"] = _lent(client, kwargs["data"])
    take = _ANSWERS.get(order.work)
    if take is None:
        return lambda: client.predict(**kwargs)
    return lambda: take(client.predict(**kwargs))


async def awaiting(order: Order) -> Callable[[], Awaitable[Any]]:
    client = AsyncAIClient(order.address, **order.options)
    await client.connect()
    kwargs = _kwargs(order)
    take = _ANSWERS.get(order.work)
    if take is None:
        return lambda: client.predict(**kwargs)

    async def call() -> Any:
        return take(await client.predict(**kwargs))

    return call


def loader(order: Order) -> Callable[[], Any]:
    client = AIClient(order.address)
    return lambda: client.admin.load(order.loading)


def raw(order: Order) -> Raw:
    return Raw("/aipod.v1.Model/Predict", encode_call("default", _kwargs(order)))


def can_lend() -> bool:
    """Whether the client has arrays that lie in shared memory already."""
    return hasattr(AIClient, "empty")


def _lent(client: Any, data: Any) -> Any:
    lent = client.empty(data.shape, data.dtype)
    np.copyto(lent, data)
    return lent


def _kwargs(order: Order) -> dict[str, Any]:
    return {**order.question(), "total": True} if order.work == "sum" else order.question()

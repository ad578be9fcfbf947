"""The calling side, a process of its own per measurement. ``python -m benchmarks.callers '{"peer": "aipod", …}'``

The order comes as JSON in the argument, what was measured goes out as JSON in one line.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

import grpc
import grpc.aio
import numpy as np

from aipod.codec import encode_call
from aipod.memory import reuse_freed_memory
from aipod.rpc.ai_pb2 import Input, Output
from aipod.rpc.client import AIClient, AsyncAIClient
from benchmarks.peers import bare, original

TINY = {"x": 1.5, "name": "abc", "values": [1, 2, 3]}
_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
# Enough that a call which is due finds somebody to make it while others wait.
_OPEN_LOOP_CALLERS = 32

Span = tuple[float, float]


@dataclass(frozen=True)
class Order:
    """What to measure.

    Attributes:
        peer: ``aipod``, ``bare`` or ``original``.
        address: Of the server.
        style: ``threads`` or ``asyncio``.
        callers: How many of them, each with one call at a time.
        seconds: How long to measure.
        warmup: Seconds of the same before that.
        array_bytes: Size of the float32 array in each call; 0 for the tiny payload.
        total: Whether the model is to sum the array, too.
        rate: Calls per second that fall due whatever became of those before; 0 for as many as the callers manage.
        loading: A version to load meanwhile, from the beginning of the measured time.
        keep_memory: Whether the caller's process keeps freed memory, as a server does.
    """

    peer: str
    address: str
    style: str = "threads"
    callers: int = 1
    seconds: float = 1.0
    warmup: float = 0.3
    array_bytes: int = 0
    total: bool = False
    rate: float = 0.0
    loading: str = ""
    keep_memory: bool = False


@dataclass(frozen=True)
class Measured:
    """Calls per second, and percentiles of their latency in seconds."""

    rate: float
    p50: float
    p99: float


def arguments(order: Order) -> dict[str, Any]:
    if not order.array_bytes:
        return TINY
    data = np.random.default_rng(1).random(order.array_bytes // 4, dtype=np.float32)
    return {"data": data, "total": True} if order.total else {"data": data}


def threaded(order: Order) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """One call, and the load of the other version."""
    kwargs = arguments(order)
    if order.peer == "aipod":
        model = AIClient(order.address)
        return (lambda: model.predict(**kwargs)), (lambda: model.admin.load(order.loading))
    channel = grpc.insecure_channel(order.address, options=_UNLIMITED)
    if order.peer == "bare":
        stub, message = channel.unary_unary(bare.METHOD), encode_call("default", kwargs)
        return (lambda: stub(message)), (lambda: None)
    predict = channel.unary_unary(original.METHOD, Input.SerializeToString, Output.FromString)

    def call(version: str = "default") -> Any:
        reply = predict(Input(kwargs_json=json.dumps(kwargs).encode(), version=version))
        return json.loads(reply.data_json)

    return call, lambda: call(order.loading)


def asynchronous(order: Order) -> Callable[[], Awaitable[Any]]:
    kwargs = arguments(order)
    if order.peer == "aipod":
        model = AsyncAIClient(order.address)
        return lambda: model.predict(**kwargs)
    channel = grpc.aio.insecure_channel(order.address, options=_UNLIMITED)
    stub, message = channel.unary_unary(bare.METHOD), encode_call("default", kwargs)
    return lambda: stub(message)


def closed_loop(order: Order) -> list[Span]:
    """Each thread calls again as soon as it has its answer."""
    call, _ = threaded(order)
    end = time.perf_counter() + order.warmup + order.seconds
    spans: list[list[Span]] = [[] for _ in range(order.callers)]

    def caller(mine: list[Span]) -> None:
        now = time.perf_counter()
        while now < end:
            before = now
            call()
            now = time.perf_counter()
            mine.append((before, now))

    _run(caller, [(mine,) for mine in spans])
    return list(itertools.chain.from_iterable(spans))


async def closed_loop_async(order: Order) -> list[Span]:
    call = asynchronous(order)
    end = time.perf_counter() + order.warmup + order.seconds
    spans: list[Span] = []

    async def caller() -> None:
        now = time.perf_counter()
        while now < end:
            before = now
            await call()
            now = time.perf_counter()
            spans.append((before, now))

    await asyncio.gather(*(caller() for _ in range(order.callers)))
    return spans


def open_loop(order: Order) -> list[Span]:
    """Calls fall due by the clock. A latency counts from then: a call that nobody was free to make has waited, too."""
    call, load = threaded(order)
    start = time.perf_counter()
    ticks = itertools.count()
    last = round((order.warmup + order.seconds) * order.rate)
    spans: list[Span] = []

    def caller() -> None:
        while (tick := next(ticks)) < last:
            due = start + tick / order.rate
            time.sleep(max(0.0, due - time.perf_counter()))
            call()
            spans.append((due, time.perf_counter()))

    loader = threading.Timer(order.warmup, load)
    if order.loading:
        loader.start()
    _run(caller, [()] * _OPEN_LOOP_CALLERS)
    if order.loading:
        loader.join()
    return spans


def measure(order: Order) -> Measured:
    if order.keep_memory:
        reuse_freed_memory()
    begin = time.perf_counter() + order.warmup
    if order.rate:
        spans = open_loop(order)
    elif order.style == "asyncio":
        spans = asyncio.run(closed_loop_async(order))
    else:
        spans = closed_loop(order)
    # What began in the warmup is left out, and so is the time that it took.
    counted = [(before, after) for before, after in spans if before >= begin]
    took = np.array([after - before for before, after in counted])
    elapsed = max(after for _, after in counted) - min(before for before, _ in counted)
    return Measured(len(counted) / elapsed, *(float(one) for one in np.percentile(took, (50, 99))))


def _run(target: Callable[..., None], arguments: list[tuple[Any, ...]]) -> None:
    threads = [threading.Thread(target=target, args=one) for one in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    print(json.dumps(asdict(measure(Order(**json.loads(sys.argv[1]))))))

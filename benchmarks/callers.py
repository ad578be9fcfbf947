"""The calling side, a process of its own per measurement. ``python -m benchmarks.callers '{"peer": "ours", …}'``

The order comes as JSON in the argument, what was measured goes out as JSON in one line. It runs in the environment of
the peer whose client it is, so that nothing but numpy may be imported here.

A module in ``peers/`` has for each style what makes the call: ``blocking(order)`` and, awaited, ``awaiting(order)``.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from benchmarks import family, work
from benchmarks.order import Measured, Order

# Enough that a call which is due finds somebody to make it while others wait.
_OPEN_LOOP_CALLERS = 32
# Some servers listen long before they serve.
_PATIENCE = 60.0
_LOOK_AT_MEMORY = 0.01
# A call with so little imports everything that one with much needs.
_SMALL = 4096

Span = tuple[float, float]


def closed_loop(order: Order, call: Callable[[], Any]) -> list[Span]:
    """Each thread calls again as soon as it has its answer."""
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


async def closed_loop_async(order: Order, call: Callable[[], Awaitable[Any]]) -> list[Span]:
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


def open_loop(order: Order, call: Callable[[], Any]) -> list[Span]:
    """Calls fall due by the clock. A latency counts from then: a call that nobody was free to make has waited, too."""
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

    _run(caller, [()] * _OPEN_LOOP_CALLERS)
    return spans


class Watch:
    """What both sides use from the end of the warmup on, from :meth:`start` to :meth:`stop`."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._server = family.members(order.family) if order.family else []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._cpu = np.zeros(2)
        self._idle = self._peak = self._memory() if order.memory else np.zeros(2)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        self._cpu = self._used() - self._cpu

    def measured(self, spans: list[Span], begin: float) -> Measured:
        """What began in the warmup is left out, and so is the time that it took."""
        # Unless nothing else began, which is so where a call takes longer than all that.
        counted = [(before, after) for before, after in spans if before >= begin] or spans
        took = np.array([after - before for before, after in counted])
        elapsed = max(after for _, after in counted) - min(before for before, _ in counted)
        p50, p99 = (float(one) for one in np.percentile(took, (50, 99)))
        server_cpu, client_cpu = (self._cpu * 1000 / len(counted)).tolist()
        server_bytes, client_bytes = (int(one) for one in self._peak - self._idle)
        return Measured(len(counted) / elapsed, p50, p99, server_cpu, client_cpu, server_bytes, client_bytes)

    def _watch(self) -> None:
        self._over.wait(self._order.warmup)
        self._cpu = self._used()
        while self._order.memory and not self._over.wait(_LOOK_AT_MEMORY):
            self._peak = np.maximum(self._peak, self._memory())

    def _used(self) -> Any:
        return np.array([family.cpu_seconds(self._server), time.process_time()])

    def _memory(self) -> Any:
        return np.array([family.pss_bytes(self._server), family.pss_bytes([os.getpid()])], dtype=float)


def measure(order: Order) -> Measured:
    peer = importlib.import_module(f"benchmarks.peers.{order.peer}")
    if order.style == "asyncio":
        return asyncio.run(_measure_async(order, peer))
    if order.memory:
        _patiently(peer.blocking(replace(order, array_bytes=_SMALL)))
        watch = Watch(order)
    call = peer.blocking(order)
    _check(order, _patiently(call))
    if not order.memory:
        watch = Watch(order)
    watch.start()
    begin = time.perf_counter() + order.warmup
    if order.loading:
        loader = threading.Timer(order.warmup, peer.loader(order))
        loader.start()
    spans = open_loop(order, call) if order.rate else closed_loop(order, call)
    if order.loading:
        loader.join()
    watch.stop()
    return watch.measured(spans, begin)


async def _measure_async(order: Order, peer: Any) -> Measured:
    call = await peer.awaiting(order)
    _check(order, await _patiently_async(call))
    watch = Watch(order)
    watch.start()
    begin = time.perf_counter() + order.warmup
    spans = await closed_loop_async(order, call)
    watch.stop()
    return watch.measured(spans, begin)


def _patiently(call: Callable[[], Any]) -> Any:
    """The first answer. Libraries have errors of their own for a server that is not ready yet; the last one counts."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            return call()
        except Exception:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


async def _patiently_async(call: Callable[[], Awaitable[Any]]) -> Any:
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            return await call()
        except Exception:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.1)


def _check(order: Order, answer: Any) -> None:
    if not work.is_right(order.work, order.question(), answer):
        raise SystemExit(f"{order.peer} answered {str(answer)[:200]!r}, which is not right")


def _run(target: Callable[..., None], arguments: list[tuple[Any, ...]]) -> None:
    threads = [threading.Thread(target=target, args=one) for one in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def raw(order: Order) -> dict[str, Any]:
    """The call as bytes, in words that JSON knows; when the server has answered it once."""
    peer = importlib.import_module(f"benchmarks.peers.{order.peer}")
    _check(order, _patiently(peer.blocking(order)))
    one = asdict(peer.raw(order))
    return {**one, "body": one["body"].hex()}


def main() -> None:
    order = Order(**json.loads(sys.argv[1]))
    print(json.dumps(raw(order) if order.style == "raw" else asdict(measure(order))))


if __name__ == "__main__":
    main()

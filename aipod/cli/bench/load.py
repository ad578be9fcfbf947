"""Callers that call as often as they get answers, for a while; and what came of it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aipod.errors import AipodError
from aipod.rpc.client import AIClient, AsyncAIClient

__all__ = ["Run", "by_coroutines", "by_threads"]

_PERCENTS = (50.0, 90.0, 99.0, 99.9)


@dataclass
class Run:
    """One measurement.

    Attributes:
        callers: How many called side by side.
        elapsed: Seconds from the first call to the last answer.
        cpu: Seconds of processor time of this process, all callers together.
        latencies: Seconds that each answered call took.
        errors: How many calls failed, by the class of the error; each with a sentence in ``examples``.
    """

    callers: int
    elapsed: float = 0.0
    cpu: float = 0.0
    latencies: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Answered calls per second."""
        return len(self.latencies) / self.elapsed if self.elapsed else 0.0

    def percentiles(self) -> dict[float, float]:
        """Seconds below which so many percent of the answered calls stayed."""
        if not self.latencies:
            return {}
        values = np.percentile(np.asarray(self.latencies), _PERCENTS, method="higher")
        return {percent: float(value) for percent, value in zip(_PERCENTS, values, strict=True)}

    def histogram(self, rows: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Counts, and the bounds in seconds of the bins, each so many times as wide as the one before."""
        low, high = min(self.latencies), max(self.latencies)
        bounds = np.geomspace(max(low, 1e-7), max(high, low * 1.01, 2e-7), rows + 1)
        # Rounding must not leave the extremes out.
        bounds[0], bounds[-1] = min(low, bounds[0]), max(high, bounds[-1])
        counts, _ = np.histogram(self.latencies, bounds)
        return counts, bounds

    def note(self, error: AipodError) -> None:
        name = type(error).__name__
        self.errors[name] += 1
        self.examples.setdefault(name, str(error))


def by_threads(client: AIClient, kwargs: dict[str, Any], callers: int, seconds: float) -> Run:
    """Call from threads."""
    run = Run(callers)
    parts: list[list[float]] = [[] for _ in range(callers)]
    lock = threading.Lock()
    began, cpu = time.perf_counter(), time.process_time()
    end = began + seconds

    def call(latencies: list[float]) -> None:
        before = time.perf_counter()
        while before < end:
            try:
                client.predict(**kwargs)
            except AipodError as error:
                with lock:
                    run.note(error)
                before = time.perf_counter()
                continue
            after = time.perf_counter()
            latencies.append(after - before)
            before = after

    threads = [threading.Thread(target=call, args=(part,), daemon=True) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.elapsed, run.cpu = time.perf_counter() - began, time.process_time() - cpu
    run.latencies = [latency for part in parts for latency in part]
    return run


async def by_coroutines(client: AsyncAIClient, kwargs: dict[str, Any], callers: int, seconds: float) -> Run:
    """Call from coroutines of this loop."""
    run = Run(callers)
    began, cpu = time.perf_counter(), time.process_time()
    end = began + seconds

    async def call() -> None:
        before = time.perf_counter()
        while before < end:
            try:
                await client.predict(**kwargs)
            except AipodError as error:
                run.note(error)
                before = time.perf_counter()
                continue
            after = time.perf_counter()
            run.latencies.append(after - before)
            before = after

    await asyncio.gather(*(call() for _ in range(callers)))
    run.elapsed, run.cpu = time.perf_counter() - began, time.process_time() - cpu
    return run

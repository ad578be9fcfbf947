"""What is to be measured, and what was; between the harness and the callers' process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from benchmarks import work

__all__ = ["Measured", "Order"]


@dataclass(frozen=True)
class Order:
    """What to measure.

    Attributes:
        peer: A module in ``peers/``.
        address: Of the server.
        style: ``threads`` or ``asyncio``; ``raw`` measures nothing, and gives the call as bytes.
        callers: How many of them, each with one call at a time.
        seconds: How long to measure.
        warmup: Seconds of the same before that.
        work: See :mod:`benchmarks.work`.
        array_bytes: Size of the array in each call.
        family: Of the server's processes; what these use is measured, too.
        memory: Whether to watch the memory of both sides, which takes time from both; for threads.
        rate: Calls per second that fall due whatever became of those before; 0 for as many as the callers manage.
        loading: A version to load meanwhile, from the beginning of the measured time.
        keep_memory: Whether the caller's process keeps freed memory, as a server does; for ours and the bare ones.
        options: For our client.
    """

    peer: str
    address: str
    style: str = "threads"
    callers: int = 1
    seconds: float = 1.0
    warmup: float = 0.3
    work: str = "echo"
    array_bytes: int = 0
    family: str = ""
    memory: bool = False
    rate: float = 0.0
    loading: str = ""
    keep_memory: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def question(self) -> dict[str, Any]:
        return work.question(self.work, self.array_bytes)


@dataclass(frozen=True)
class Measured:
    """What came of an order.

    Attributes:
        rate: Calls per second.
        p50: Of their latency, in seconds.
        p99: Likewise.
        server_cpu: Seconds per 1,000 calls, of all of the server's processes.
        client_cpu: Likewise, of the callers'.
        server_bytes: What the server's memory grew by at most since a small call, if it was to be watched.
        client_bytes: Likewise, the callers'; the array that they send is part of it.
    """

    rate: float
    p50: float
    p99: float
    server_cpu: float
    client_cpu: float
    server_bytes: int = 0
    client_bytes: int = 0

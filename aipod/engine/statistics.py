"""What the engine counts: plain data, for operators and for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["BatchStatistics", "LaneState", "LaneStatistics", "PoolStatistics", "Statistics"]


@dataclass
class LaneStatistics:
    """Calls since the lane was made, and what it holds now.

    Attributes:
        queue_seconds: How long the calls that ran had waited before, together.
        run_seconds: How long they ran, together; of a batch, the whole of it for each of its calls.
    """

    queued: int = 0
    running: int = 0
    held_bytes: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0
    refused: int = 0
    queue_seconds: float = 0.0
    run_seconds: float = 0.0


@dataclass
class BatchStatistics:
    """Batches since the lane was made.

    Attributes:
        calls: How many calls were in them.
        runs: How often ``predict_batch`` was called; more often than there are batches if inputs were bad.
        last_size: Calls in the last one.
        size_limit: Calls that the next one may have: ``max_batch_size``, or what was found for ``latency_target``.
    """

    batches: int = 0
    calls: int = 0
    runs: int = 0
    last_size: int = 0
    size_limit: int = 0

    @property
    def mean_size(self) -> float:
        """0.0 before the first."""
        return self.calls / self.batches if self.batches else 0.0


@dataclass
class PoolStatistics:
    """Counters since the pool was made, and what it holds now; a capacity of 0 is none."""

    size: int = 0
    capacity: int = 0
    size_bytes: int = 0
    capacity_bytes: int = 0
    waiting: int = 0
    loads: int = 0
    load_failures: int = 0
    evictions: int = 0


@dataclass(frozen=True)
class LaneState:
    """One instance's lane; ``batches`` is None where calls run alone."""

    version: str
    revision: int
    counts: LaneStatistics
    batches: BatchStatistics | None = None


@dataclass(frozen=True)
class Statistics:
    pool: PoolStatistics
    lanes: Sequence[LaneState] = field(default_factory=list)
    workers_busy: int = 0

"""What the engine counts: plain data, for operators and for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["LaneState", "LaneStatistics", "PoolStatistics", "Statistics"]


@dataclass
class LaneStatistics:
    """Calls since the lane was made, and what it holds now."""

    queued: int = 0
    running: int = 0
    held_bytes: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0
    refused: int = 0


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
    version: str
    revision: int
    counts: LaneStatistics


@dataclass(frozen=True)
class Statistics:
    pool: PoolStatistics
    lanes: Sequence[LaneState] = field(default_factory=list)
    workers_busy: int = 0

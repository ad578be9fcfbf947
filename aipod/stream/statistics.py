"""What a task has done, as plain numbers: counters, gauges, and histograms with fixed buckets.

One object for each pipeline, on its event loop; whoever shows or exports the numbers takes ``as_dict()``.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["COUNTERS", "COUNTS", "SECONDS", "Histogram", "Statistics", "merged"]

# Upper bounds. Fixed, so that the histograms of several processes can be added up.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
COUNTS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0)

COUNTERS = (
    "messages",  # taken from the source, each once
    "bytes",  # their payloads
    "windows",  # closed
    "results",  # recorded; early and corrected ones too
    "late",  # messages that came after their window
    "ahead",  # messages whose time was too far ahead to be believed
    "unreadable",  # messages that could not be decoded, or had no key or time
    "poison",  # messages that the model does not take
    "too_large",  # windows whose result no sink takes
    "dead",  # dead letters in all
    "expired",  # messages that the source removed before they were processed
    "retries",  # tries that failed for a reason that was not the input's
    "restarts",  # times the pipeline began anew after an error
    "takeovers",  # times it got the lease
)


class Histogram:
    """Counts observations by size."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def as_dict(self) -> dict[str, Any]:
        """``counts[i]`` observations were at most ``bounds[i]`` and above the bound before; the last one has none."""
        return {
            "bounds": list(self._bounds),
            "counts": list(self._counts),
            "count": sum(self._counts),
            "sum": self._total,
        }


class Statistics:
    """The numbers of one pipeline.

    Counters are attributes, to be added to. Gauges are asked for when somebody looks.

    Args:
        gauges: Called for the numbers that go up and down.
    """

    def __init__(self, gauges: Callable[[], Mapping[str, float]] = dict) -> None:
        self.messages = self.bytes = self.windows = self.results = 0
        self.late = self.ahead = self.unreadable = self.poison = self.too_large = self.dead = self.expired = 0
        self.retries = self.restarts = self.takeovers = 0
        self.predict_seconds = Histogram(SECONDS)
        self.write_seconds = Histogram(SECONDS)
        # From the moment the server stored a window's last message to the moment its result was in every sink.
        self.latency_seconds = Histogram(SECONDS)
        self.window_messages = Histogram(COUNTS)
        self.gauges = gauges
        self._since = time.monotonic()
        # Up to where it is counted what expired, and of which stream.
        self._expired = ("", 0)

    def expire(self, source: str, first: int, last: int) -> int:
        """Count messages of these positions as expired, and say how many; what was counted before is not again."""
        counted = self._expired[1] if self._expired[0] == source else 0
        count = max(0, last - max(first - 1, counted))
        self._expired = (source, max(counted, last))
        self.expired += count
        return count

    def as_dict(self) -> dict[str, Any]:
        """``{"seconds": …, "counters": {…}, "gauges": {…}, "histograms": {…}}``, counted since ``seconds`` ago."""
        return {
            "seconds": time.monotonic() - self._since,
            "counters": {name: getattr(self, name) for name in COUNTERS},
            "gauges": dict(self.gauges()),
            "histograms": {
                name: getattr(self, name).as_dict()
                for name in ("predict_seconds", "write_seconds", "latency_seconds", "window_messages")
            },
        }


def merged(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up what several pipelines say (the partitions of one task); ``seconds`` is that of the oldest."""
    whole: dict[str, Any] = {"seconds": 0.0, "counters": dict.fromkeys(COUNTERS, 0), "gauges": {}, "histograms": {}}
    for part in parts:
        whole["seconds"] = max(whole["seconds"], part["seconds"])
        for group in ("counters", "gauges"):
            for name, number in part[group].items():
                whole[group][name] = whole[group].get(name, 0) + number
        for name, histogram in part["histograms"].items():
            there = whole["histograms"].get(name)
            whole["histograms"][name] = histogram if there is None else _added(there, histogram)
    return whole


def _added(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "bounds": list(one["bounds"]),
        "counts": [a + b for a, b in zip(one["counts"], other["counts"], strict=True)],
        "count": one["count"] + other["count"],
        "sum": one["sum"] + other["sum"],
    }

"""How far a training is, in one line that fits a terminal. Knows no terminal, and no clock: both are passed in."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from math import ceil
from typing import Any

from aipod.cli.records import metrics_text, progress_of
from aipod.cli.text import cut, duration, one_line
from aipod.rpc.client import JobInfo

__all__ = ["Progress"]

_BAR = 24
# The rate is that of the latest records: what went before, a slow beginning say, counts no more.
_RATED = 32
# A process of ours gives a sign of life about once a second, and the server passes it on every few seconds.
_QUIET_SECONDS = 30.0


class Progress:
    """What is known of one training. Instants are monotonic.

    Args:
        now: When it was first looked at.
    """

    def __init__(self, now: float) -> None:
        self._began = now
        self._info: JobInfo | None = None
        self._record: Mapping[str, Any] = {}
        self._heard = (0.0, now)
        # When there was how much of it; these instants are those of the records, and of the clock of their server.
        self._steps: deque[tuple[float, float]] = deque(maxlen=_RATED)
        self._step_came = now

    def tell(self, info: JobInfo, now: float) -> None:
        """It stands so now."""
        if info.heartbeat != self._heard[0] or self._info is None or info.state != self._info.state:
            self._heard = (info.heartbeat, now)
        self._info = info

    def add(self, record: Mapping[str, Any], now: float) -> None:
        """It has written a record."""
        self._record = record
        progress, instant = progress_of(record), record.get("time")
        if progress is None or not isinstance(instant, (int, float)):
            return
        if self._steps and progress < self._steps[-1][1]:
            # It began again, as one does that could not resume.
            self._steps.clear()
        self._steps.append((instant, progress))
        self._step_came = now

    def seconds_left(self, now: float) -> float | None:
        """None where there is nothing to go by."""
        if len(self._steps) < 2:
            return None
        (first, low), (last, high) = self._steps[0], self._steps[-1]
        if last <= first or high <= low:
            return None
        return max(0.0, (100 - high) * (last - first) / (high - low) - (now - self._step_came))

    def line(self, now: float, columns: int) -> str:
        """``[#####    ]  40%  0:07, 0:10 left  fitting  epoch 8, accuracy 0.91``, in no more than ``columns``."""
        state = self._info.state if self._info is not None else "starting"
        progress = progress_of(self._record)
        done = "" if progress is None else "#" * int(_BAR * progress / 100)
        parts = [
            f"[{done:{_BAR}}] " + ("    " if progress is None else f"{progress:3.0f}%"),
            "" if state == "running" else state,
            self._times(state, now),
            one_line(self._record.get("stage") or ""),
            metrics_text(self._record.get("data")),
            one_line(self._record.get("message") or ""),
        ]
        return cut("  ".join(part for part in parts if part), columns)

    def _times(self, state: str, now: float) -> str:
        gone = duration(now - self._began)
        quiet = now - self._heard[1]
        if state == "running" and quiet >= _QUIET_SECONDS:
            return f"{gone}, no sign of life for {duration(quiet)}"
        left = self.seconds_left(now) if state == "running" else None
        return gone if left is None else f"{gone}, {duration(ceil(left))} left"

"""Many deadlines on few timers: calls have one each, and nearly all are answered long before."""

from __future__ import annotations

import heapq
import math
import threading
import time
from collections.abc import Callable

__all__ = ["Deadlines"]

_NEVER = float("inf")
# Alarms are set so many a second at most, and never further ahead than this: whatever deadlines a peer thinks of, the
# timers that are left over from them are few, and soon gone.
_A_SECOND = 200
_FURTHEST_SECONDS = 60.0


class Deadlines:
    """Rings soon after the earliest deadline that was told, and from then on after the earliest of those that are left.

    A call that is answered in time costs one comparison.

    Args:
        at: Runs an action at an instant; may be called from any thread that calls :meth:`watch`.
        ring: Ends what is over; gives the earliest deadline that is left, or infinity.
    """

    def __init__(self, at: Callable[[float, Callable[[], None]], object], ring: Callable[[], float]) -> None:
        self._at = at
        self._ring = ring
        self._lock = threading.Lock()
        # Instants for which a timer is set, the earliest first; ``_next`` is that one.
        self._alarms: list[float] = []
        self._next = _NEVER

    def watch(self, instant: float) -> None:
        """There is something that ends at an instant."""
        if instant < self._next:
            instant = min(instant, time.monotonic() + _FURTHEST_SECONDS)
            alarm = math.ceil(instant * _A_SECOND) / _A_SECOND
            with self._lock:
                if alarm >= self._next:
                    return
                self._next = alarm
                heapq.heappush(self._alarms, alarm)
            self._at(alarm, self._alarm)

    def close(self) -> None:
        """Ring no more; the timers that are left refer to nothing but this."""
        self._ring = _silence

    def _alarm(self) -> None:
        with self._lock:
            heapq.heappop(self._alarms)
            self._next = self._alarms[0] if self._alarms else _NEVER
        self.watch(self._ring())


def _silence() -> float:
    return _NEVER

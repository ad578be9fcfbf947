"""What has to happen at an instant: one thread that sleeps until the next of them.

Only exceptional waits are here; the deadlines of ordinary calls are looked after together, on one timer (see
:mod:`aipod.rpc.deadlines`).
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable

__all__ = ["Clock", "Timer"]

_log = logging.getLogger("aipod.clock")


class Timer:
    """Something that is going to happen, unless it is cancelled."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], object]) -> None:
        self.action: Callable[[], object] | None = action

    def cancel(self) -> None:
        """Forget the action and all that it refers to; the instant itself is passed over when it comes."""
        self.action = None


class Clock:
    """Timers. The thread starts with the first of them; callbacks run on it, so they must be short."""

    def __init__(self) -> None:
        self._wake = threading.Condition()
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None
        self._closed = False

    def at(self, instant: float, action: Callable[[], object]) -> Timer:
        """Run an action at an instant of the monotonic clock, unless the clock is closed before."""
        timer = Timer(action)
        with self._wake:
            if self._closed:
                return timer
            heapq.heappush(self._timers, (instant, next(self._numbers), timer))
            if self._thread is None:
                self._thread = threading.Thread(target=self._tick, name="aipod-clock", daemon=True)
                self._thread.start()
            elif self._timers[0][2] is timer:
                # It sleeps until what was the first before.
                self._wake.notify()
        return timer

    def close(self) -> None:
        with self._wake:
            self._closed = True
            self._timers.clear()
            self._wake.notify()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _tick(self) -> None:
        while (timer := self._next()) is not None:
            try:
                action, timer.action = timer.action, None
                if action is not None:
                    action()
            except Exception:
                _log.exception("a timer's action failed")
            del timer

    def _next(self) -> Timer | None:
        with self._wake:
            while not self._closed:
                if not self._timers:
                    self._wake.wait()
                    continue
                pause = self._timers[0][0] - time.monotonic()
                if pause <= 0:
                    return heapq.heappop(self._timers)[2]
                self._wake.wait(pause)
            return None

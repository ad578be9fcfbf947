"""Messages that their stream removed before the task had processed them: counted, and told now and then."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from aipod.stream.statistics import Statistics

__all__ = ["Expiry"]

# A line of the log at most every so many seconds: who is too slow for its stream loses messages all the time.
_LOG_SECONDS = 60.0


class Expiry:
    """Of one stream. To be called with the first and the last position of what is missing, and with whether all of that
    was the task's.

    Args:
        source: Names the stream.
        shared: Whether others have a part in every message, so that nobody knows whose a missing one was.
    """

    def __init__(
        self,
        source: str,
        shared: bool,
        statistics: Statistics,
        log: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._shared = shared
        self._statistics = statistics
        self._log = log
        self._clock = clock
        self._silent_until = -math.inf
        self._unsaid = 0
        self._first = 0
        self._exact = True

    def __call__(self, first: int, last: int, exact: bool) -> None:
        count = self._statistics.expire(self._source, first, last)
        if not count:
            return
        self._first = self._first or first
        self._unsaid += count
        self._exact = self._exact and exact and not self._shared
        if self._clock() >= self._silent_until:
            self._log.warning(
                "%s%d messages were removed from the stream before they were processed, from %d to %d; see its limits",
                "" if self._exact else "up to ",
                self._unsaid,
                self._first,
                last,
            )
            self._unsaid, self._first, self._exact = 0, 0, True
            self._silent_until = self._clock() + _LOG_SECONDS

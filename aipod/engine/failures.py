"""The memory of failed loads: a version that does not load is not tried again at once, by however many callers."""

from __future__ import annotations

import time
from dataclasses import dataclass

from cachetools import LRUCache

from aipod.errors import AipodError, again

__all__ = ["Failures"]

_LONGEST_PAUSE = 60.0
# Callers may invent names of versions; what is remembered of them is bounded.
_MAX_VERSIONS = 1024


@dataclass
class _Failure:
    error: AipodError
    pause: float
    until: float


class Failures:
    """What failed, and until when it is not worth another try. Not thread-safe: the pool's lock guards it.

    Args:
        first_pause: Seconds after the first failure; each further one doubles them, to a minute at most. 0 remembers
            nothing.
    """

    def __init__(self, first_pause: float) -> None:
        self._first_pause = first_pause
        self._failures: LRUCache[str, _Failure] = LRUCache(_MAX_VERSIONS)

    def note(self, version: str, error: AipodError) -> None:
        last = self._failures.get(version)
        pause = min(last.pause * 2, _LONGEST_PAUSE) if last is not None else self._first_pause
        if pause > 0:
            self._failures[version] = _Failure(error, pause, time.monotonic() + pause)

    def recall(self, version: str) -> AipodError | None:
        """The error to answer with, one of its own for each caller; None if a load may be tried."""
        failure = self._failures.get(version)
        if failure is None or failure.until <= time.monotonic():
            return None
        return again(failure.error)

    def reason(self, version: str) -> str:
        """Why the version counts as failed, ``""`` if it does not."""
        failure = self._failures.get(version)
        return str(failure.error) if failure is not None else ""

    def forget(self, version: str) -> None:
        """The version loaded, or has got other data: what was learned of it is no longer true."""
        self._failures.pop(version, None)

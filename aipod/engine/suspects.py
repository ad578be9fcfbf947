"""Inputs that were there when a model's process died. One that was there twice in a row is refused for a while."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from typing import Any

from cachetools import LRUCache

from aipod.codec import encode_call
from aipod.errors import ModelCrashed

__all__ = ["Suspects"]

_MAX_SUSPECTS = 256
_DEATHS = 2
_PAUSE_SECONDS = 60.0


class Suspects:
    """Knows inputs by their digests; for any thread. While nobody is suspected it costs nothing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # How often it was there, and the last time.
        self._known: LRUCache[bytes, tuple[int, float]] = LRUCache(_MAX_SUSPECTS)

    def check(self, method: str, arguments: dict[str, Any]) -> None:
        """
        Raises:
            ModelCrashed: The input has killed a process twice in a row, a short while ago.
        """
        if not self._known:
            return
        digest = _digest(method, arguments)
        with self._lock:
            deaths, last = self._known.get(digest, (0, 0.0))
            left = last + _PAUSE_SECONDS - self._clock()
            if deaths and left <= 0:
                self._known.pop(digest)
        if deaths >= _DEATHS and left > 0:
            raise ModelCrashed(
                f"this very input was there {deaths} times in a row when the model's process died; it is refused for"
                f" {left:.0f} more seconds, and was not run"
            )

    def died(self, method: str, arguments: dict[str, Any]) -> None:
        """A process has died with this input."""
        digest = _digest(method, arguments)
        with self._lock:
            deaths, _ = self._known.get(digest, (0, 0.0))
            self._known[digest] = (deaths + 1, self._clock())

    def lived(self, method: str, arguments: dict[str, Any]) -> None:
        """It was answered."""
        if self._known:
            digest = _digest(method, arguments)
            with self._lock:
                self._known.pop(digest, None)


def _digest(method: str, arguments: dict[str, Any]) -> bytes:
    return hashlib.blake2b(encode_call(method, arguments), digest_size=16).digest()

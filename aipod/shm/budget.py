"""How much memory several arenas may have between them."""

from __future__ import annotations

import threading

__all__ = ["Budget"]


class Budget:
    """A number of bytes that arenas take from and give back to; for any thread.

    Args:
        max_bytes: How many there are.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._taken = 0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Budget {self._taken} of {self.max_bytes} bytes taken>"

    @property
    def taken_bytes(self) -> int:
        """How many are out."""
        return self._taken

    def take(self, nbytes: int) -> bool:
        """Take so many, or none and False if they are not there."""
        with self._lock:
            if self._taken + nbytes > self.max_bytes:
                return False
            self._taken += nbytes
            return True

    def give(self, nbytes: int) -> None:
        """Give back what was taken."""
        with self._lock:
            self._taken -= nbytes

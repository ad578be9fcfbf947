"""How many calls a batch may have."""

from __future__ import annotations

__all__ = ["BatchSize"]

_BACK_OFF = 0.9


class BatchSize:
    """The size that keeps a run within its time: one more after each full batch that did, a tenth fewer after one that
    did not. So it hovers just below what is possible, and follows when that changes.

    Clipper found its sizes so (Crankshaw et al., NSDI 2017, section 4.3.1). Not thread-safe.

    Args:
        most: It is never larger; without a target it is always this.
        target: Seconds that a run may take; 0.0 is no target.
    """

    def __init__(self, most: int, target: float) -> None:
        self._most = most
        self._target = target
        self._exact = 1.0 if target else float(most)

    @property
    def limit(self) -> int:
        return int(self._exact)

    def ran(self, count: int, seconds: float) -> None:
        """A batch of ``count`` calls took so long."""
        if not self._target:
            return
        if seconds > self._target:
            self._exact = max(1.0, min(self._exact, count) * _BACK_OFF)
        elif count >= self.limit:
            self._exact = min(float(self._most), self._exact + 1)

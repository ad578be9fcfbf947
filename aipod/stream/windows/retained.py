"""Closed windows that late messages may still amend."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable

from aipod.stream.result import Recorded

__all__ = ["Retained"]


class Retained:
    """Keeps windows for a while after their close; costs nothing to those who keep none.

    Args:
        retain: For how long, in seconds.
        recorded: Windows of earlier lives. When they were closed is not known, so they are as new.
    """

    def __init__(self, retain: float, recorded: Iterable[Recorded] = ()) -> None:
        self._retain = retain
        self._windows: dict[str, dict[str, Recorded]] = {}
        self._due: deque[tuple[float, str, str]] = deque()
        self._old: list[Recorded] = list(recorded)
        for window in self._old:
            self._windows.setdefault(window.key, {})[window.id] = window

    def __len__(self) -> int:
        return sum(len(windows) for windows in self._windows.values())

    def of(self, key: str) -> Collection[Recorded]:
        """List a key's windows, in the order in which they were closed."""
        return self._windows.get(key, {}).values()

    def keep(self, window: Recorded, now: float) -> None:
        self._windows.setdefault(window.key, {})[window.id] = window
        self._due.append((now + self._retain, window.key, window.id))

    def amended(self, window: Recorded) -> None:
        """Put a window in the place of the revision before."""
        known = self._windows.get(window.key, {})
        if window.id in known and known[window.id].revision <= window.revision:
            known[window.id] = window

    def expire(self, now: float) -> None:
        if self._old:
            # The first time that anybody says what time it is.
            self._due.extendleft((now + self._retain, one.key, one.id) for one in self._old)
            self._old = []
        while self._due and self._due[0][0] <= now:
            _, key, id_ = self._due.popleft()
            windows = self._windows[key]
            windows.pop(id_, None)
            if not windows:
                del self._windows[key]

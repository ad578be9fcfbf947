"""Closed windows that late messages may still amend."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from aipod.stream.result import Recorded

__all__ = ["Retained"]

# So many are let go at a time. A recall may have brought a million, all of which are over at the same instant.
_PIECE = 64


@dataclass(slots=True)
class _Kept:
    """A window, and when it was closed; None for one of an earlier life."""

    window: Recorded
    closed: float | None


class Retained:
    """Keeps windows for a while after their close; costs nothing to those who keep none.

    Args:
        retain: For how long, in seconds.
        recorded: Windows of earlier lives: as new as the first instant that anybody tells.
    """

    def __init__(self, retain: float, recorded: Iterable[Recorded] = ()) -> None:
        self._retain = retain
        self._began = math.inf
        self._now = -math.inf
        self._windows: dict[str, dict[str, _Kept]] = {}
        # The same, in the order of their closes; with those that others have taken the place of.
        self._line: deque[_Kept] = deque()
        for window in recorded:
            self._add(_Kept(window, None))

    def __len__(self) -> int:
        """How many are in memory; some of them may be over."""
        return sum(len(windows) for windows in self._windows.values())

    def of(self, key: str) -> list[Recorded]:
        """List a key's windows, in the order in which they were closed."""
        return [kept.window for kept in self._windows.get(key, {}).values() if not self._is_over(kept)]

    def keep(self, window: Recorded, now: float) -> None:
        self._add(_Kept(window, now))
        self._let_go(2)  # where more come than instants pass, still more go than come

    def amended(self, window: Recorded) -> None:
        """Put a window in the place of the revision before."""
        kept = self._windows.get(window.key, {}).get(window.id)
        if kept is not None and not self._is_over(kept) and kept.window.revision <= window.revision:
            kept.window = window

    def expire(self, now: float) -> None:
        """Have what is over at ``now`` not listed any more, and forget it by and by."""
        self._now = now
        self._began = min(self._began, now)
        self._let_go(_PIECE)

    def _add(self, kept: _Kept) -> None:
        self._windows.setdefault(kept.window.key, {})[kept.window.id] = kept
        self._line.append(kept)

    def _is_over(self, kept: _Kept) -> bool:
        return (self._began if kept.closed is None else kept.closed) + self._retain <= self._now

    def _let_go(self, count: int) -> None:
        for _ in range(count):
            if not self._line or not self._is_over(self._line[0]):
                return
            kept = self._line.popleft()
            key, name = kept.window.key, kept.window.id
            windows = self._windows[key]
            if windows[name] is kept:
                del windows[name]
                if not windows:
                    del self._windows[key]

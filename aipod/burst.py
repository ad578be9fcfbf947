"""Wake-ups put off to the end of a burst.

To wake a thread costs some ten microseconds, and as much again if it then has to wait for the interpreter's lock. So
whoever is about to bring more wakes once, when all is there, and with the lock about to come free.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType

__all__ = ["Burst", "Bursts"]

Action = Callable[[], object]


class Bursts(threading.local):
    """The bursts of one kind: each thread is in one of them, or in none."""

    current: Burst | None = None

    def after(self, action: Action) -> None:
        """Do it when this thread's burst is over, perhaps on another thread; now, if it is in none."""
        burst = self.current
        if burst is None:
            action()
        else:
            burst.put(action)


class Burst:
    """From ``with`` to its end; what one thread is at.

    Args:
        kind: What is put off.
    """

    __slots__ = ("_kind", "_waiting")

    def __init__(self, kind: Bursts) -> None:
        self._kind = kind
        self._waiting: deque[Action] = deque()

    def __enter__(self) -> Burst:
        self._kind.current = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kind.current = None
        self.settle()

    @property
    def waits(self) -> bool:
        """Whether something has been put off."""
        return bool(self._waiting)

    def put(self, action: Action) -> None:
        self._waiting.append(action)

    def settle(self) -> bool:
        """Do now what has been put off, from any thread; says whether there was something."""
        waiting, some = self._waiting, False
        while waiting:
            try:
                action = waiting.popleft()
            except IndexError:
                # Another thread was faster.
                break
            some = True
            action()
        return some

"""Threads that wait for their answers, and are woken one by one.

Those whose answers came in one frame would all wake at once, and then wait for the interpreter's lock, which makes two
switches of each. Here each of them wakes the next before it goes its own way.
"""

from __future__ import annotations

import threading
from itertools import pairwise
from types import TracebackType

__all__ = ["Gate", "Relay"]


class _Here(threading.local):
    opened: list[Gate] | None = None


_here = _Here()


class Gate:
    """Where one thread waits, once."""

    __slots__ = ("_following", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._following: Gate | None = None

    def open(self) -> None:
        """Wake who waits; within a :class:`Relay`, when those before it are awake."""
        opened = _here.opened
        if opened is None:
            self._lock.release()
        else:
            opened.append(self)

    def wait(self, timeout: float | None) -> bool:
        """Wait until it is open, and wake the next; False if it was not in ``timeout`` seconds."""
        is_open = self._lock.acquire(timeout=-1 if timeout is None else timeout)
        if is_open:
            self.pass_on()
        return is_open

    def pass_on(self) -> None:
        """Wake the next; a second time does nothing."""
        following, self._following = self._following, None
        if following is not None:
            following._lock.release()


class Relay:
    """From ``with`` to its end, gates that this thread opens are chained: the first is opened, each opens the next.

    Whoever waits at a gate owes the others that he passes on, whatever happens to him.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        _here.opened = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        opened, _here.opened = _here.opened, None
        if opened:
            for gate, following in pairwise(opened):
                gate._following = following
            opened[0].open()

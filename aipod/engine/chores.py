"""Work that may take long and is not a prediction: loading, training, disposing, reading records.

Each chore has a thread of its own, a daemon: what a user's code never finishes must not keep the process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from aipod.errors import Overloaded

__all__ = ["Chores"]

_log = logging.getLogger("aipod.engine")


class Chores:
    """Threads for chores.

    Args:
        limit: How many chores of callers may run at a time; the engine's own are not counted.
    """

    def __init__(self, limit: int = 64) -> None:
        self._limit = limit
        self._changed = threading.Condition()
        self._threads: set[threading.Thread] = set()
        self._callers = 0

    def run(self, name: str, work: Callable[[], object], for_caller: bool = False) -> None:
        """Begin a chore; what it raises is logged. Where the system gives no thread, it runs on this one.

        Raises:
            Overloaded: ``for_caller`` and too many of those run, or the system gives no thread.
        """
        with self._changed:
            if for_caller and self._callers >= self._limit:
                raise Overloaded(f"{self._limit} trainings and other long requests run already; try again later")
            self._callers += for_caller
            thread = threading.Thread(target=self._do, args=(work, for_caller), name=f"aipod-{name}", daemon=True)
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            with self._changed:
                self._callers -= for_caller
                self._threads.discard(thread)
            if for_caller:
                raise Overloaded("the system gives this server no more threads; try again later") from None
            work()

    def close(self, timeout: float) -> bool:
        """Wait for all of them; False if some still run after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        with self._changed:
            done = self._changed.wait_for(lambda: not self._threads, max(0.0, deadline - time.monotonic()))
        return done

    def _do(self, work: Callable[[], object], for_caller: bool) -> None:
        try:
            work()
        except BaseException:
            _log.exception("%s failed", threading.current_thread().name)
        finally:
            with self._changed:
                self._callers -= for_caller
                self._threads.discard(threading.current_thread())
                self._changed.notify_all()

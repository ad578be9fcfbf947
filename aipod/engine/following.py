"""Who wants to know when something about a job may have changed.

What happens to a job of this process is told at once. One stat a second of what is followed finds the rest: another
process's jobs, and records of a model that writes them in some way of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import count

from aipod.clock import Clock
from aipod.model.jobs import Jobs

__all__ = ["Followers"]

_LOOK_SECONDS = 1.0


class Followers:
    """Those who follow jobs.

    Args:
        jobs: The jobs on disk.
        clock: For the looks at them, as long as somebody follows one.
    """

    def __init__(self, jobs: Jobs, clock: Clock) -> None:
        self._jobs = jobs
        self._clock = clock
        self._lock = threading.Lock()
        self._tickets = count()
        self._told: dict[str, dict[int, Callable[[], None]]] = {}
        self._seen: dict[str, tuple[int, ...]] = {}
        self._looking = False

    def add(self, job_id: str, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed``, which must be short, whenever the job may have changed; gives what ends that."""
        with self._lock:
            ticket = next(self._tickets)
            self._told.setdefault(job_id, {})[ticket] = changed
            self._seen.setdefault(job_id, self._jobs.changed(job_id))
            if not self._looking:
                self._looking = True
                self._clock.at(time.monotonic() + _LOOK_SECONDS, self._look)

        def end() -> None:
            with self._lock:
                told = self._told.get(job_id, {})
                told.pop(ticket, None)
                if not told:
                    self._told.pop(job_id, None)
                    self._seen.pop(job_id, None)

        return end

    def tell(self, job_id: str) -> None:
        """Something about a job has changed."""
        with self._lock:
            told = list(self._told.get(job_id, {}).values())
        for changed in told:
            changed()

    def _look(self) -> None:
        with self._lock:
            followed = list(self._seen)
        marks = {job_id: self._jobs.changed(job_id) for job_id in followed}
        with self._lock:
            moved = [job_id for job_id, mark in marks.items() if self._seen.get(job_id, mark) != mark]
            self._seen.update({job_id: marks[job_id] for job_id in moved})
            self._looking = bool(self._seen)
            if self._looking:
                self._clock.at(time.monotonic() + _LOOK_SECONDS, self._look)
        for job_id in moved:
            self.tell(job_id)

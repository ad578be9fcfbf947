"""A lane: the queue and the run policy of one instance.

Rules of this file:

- ``_lock`` guards the bookkeeping and nothing else: no user code, no reply and no disk under it.
- A lane is *open* between :meth:`open` (its instance is ready) and :meth:`close`. Before, calls wait and none runs;
  after, none comes in and those inside run to their end.
- ``_announced`` is True while a runner has been told of the lane and has not come yet. So a lane stands in the runners'
  queue at most once, which makes their turns fair, and a call never waits unannounced while the lane may run one more.
- The lane is idle when nothing waits and nothing runs; only an idle lane's instance may be disposed.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from aipod.engine.call import Call
from aipod.engine.statistics import LaneStatistics
from aipod.errors import AipodError, DeadlineExceeded, Overloaded

__all__ = ["Lane", "Runner"]


class Runner(Protocol):
    """What takes calls from lanes and runs them: threads, or an event loop."""

    def wake(self, lane: Lane) -> None:
        """Come for a call soon. Never blocks; called under the lane's lock."""


class Lane:
    """The calls of one instance.

    Args:
        version: For the sentences of errors.
        runner: What runs the calls.
        max_queue: How many calls may wait.
        max_bytes: How many bytes of requests may wait and run.
        on_idle: Called, without a lock held, when the lane becomes idle and somebody asked (:attr:`watched`) or it is
            closed.
    """

    def __init__(
        self, version: str, runner: Runner, max_queue: int, max_bytes: int, on_idle: Callable[[Lane], None]
    ) -> None:
        self.version = version
        self.last_used = time.monotonic()
        self.watched = False
        self.methods: dict[str, Callable[..., Any]] = {}
        self._runner = runner
        self._max_queue = max_queue
        self._max_bytes = max_bytes
        self._on_idle = on_idle
        self._lock = threading.Lock()
        self._queue: deque[Call] = deque()
        self._running: set[Call] = set()
        self._limit = 0
        self._bytes = 0
        self._announced = False
        self._closed = False
        self._counts = LaneStatistics()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._limit else "waiting"
        return f"<Lane {self.version!r} {state}, {len(self._queue)} queued, {len(self._running)} running>"

    @property
    def is_open(self) -> bool:
        return self._limit > 0 and not self._closed

    @property
    def idle(self) -> bool:
        # A call on its way from the queue to those that run is in neither for a moment.
        with self._lock:
            return not self._queue and not self._running

    def put(self, call: Call) -> bool:
        """Let a call in; False if the lane is closed.

        Raises:
            Overloaded: The lane is full; the call was not taken.
        """
        with self._lock:
            if self._closed:
                return False
            if len(self._queue) >= self._max_queue or self._bytes + call.size_bytes > self._max_bytes:
                self._counts.refused += 1
                raise self._full(call)
            call.queue = self
            if call.answered:
                # It was cancelled on its way here, before it could know which lane to leave.
                return True
            self._queue.append(call)
            self._bytes += call.size_bytes
            self.last_used = time.monotonic()
            if not self._announced and len(self._running) < self._limit:
                self._announce()
        return True

    def take(self) -> Call | None:
        """The next call that is worth running, or None. The runner owes :meth:`done` for it."""
        with self._lock:
            self._announced = False
            call, expired = self._next()
        self._bury(expired)
        return call

    def done(self, call: Call, failed: bool = False, another: bool = False) -> Call | None:
        """A call that :meth:`take` gave has run.

        Args:
            call: The call.
            failed: For the statistics.
            another: The runner would go on with this lane at once; without it the lane takes its turn again.
        """
        following: Call | None = None
        expired: list[Call] = []
        with self._lock:
            self._running.discard(call)
            self._bytes -= call.size_bytes
            self._counts.done += 1
            self._counts.failed += failed
            if another:
                following, expired = self._next()
            elif self._queue and not self._announced and len(self._running) < self._limit:
                self._announce()
            notify = self._must_tell()
        self._bury(expired)
        if notify:
            self._on_idle(self)
        return following

    def forget(self, call: Call) -> None:
        """A call was cancelled: it leaves the queue; if it runs, it stays until the model is through with it."""
        with self._lock:
            try:
                self._queue.remove(call)
            except ValueError:
                return
            self._bytes -= call.size_bytes
            self._counts.cancelled += 1
            notify = self._must_tell()
        if notify:
            self._on_idle(self)

    def open(self, methods: dict[str, Callable[..., Any]], limit: int) -> None:
        """The instance is ready: run its calls, ``limit`` at a time."""
        with self._lock:
            self.methods = methods
            self._limit = limit
            if self._queue:
                self._announce()

    def set_limit(self, limit: int) -> None:
        """Change how many calls may run at a time; those that run stay."""
        with self._lock:
            if self._limit and limit != self._limit:
                self._limit = limit
                if self._queue and not self._announced and len(self._running) < limit:
                    self._announce()

    def close(self, only_if_idle: bool = False) -> bool:
        """Let no more calls in; says whether it is closed now. The caller looks at :attr:`idle` afterwards itself."""
        with self._lock:
            if only_if_idle and (self._queue or self._running):
                return False
            self._closed = True
            return True

    def started_before(self, instant: float) -> bool:
        """Whether a call runs that began before an instant: a long one, whose end is not in sight."""
        with self._lock:
            return any(call.started < instant for call in self._running)

    def waiting(self) -> list[Call]:
        """The calls that have not begun."""
        with self._lock:
            return list(self._queue)

    def remove(self, calls: Iterable[Call]) -> None:
        """Take calls out that somebody else is going to answer."""
        gone = set(calls)
        with self._lock:
            kept = [call for call in self._queue if call not in gone]
            self._bytes -= sum(call.size_bytes for call in self._queue if call in gone)
            self._counts.refused += len(self._queue) - len(kept)
            self._queue = deque(kept)
            notify = self._must_tell()
        if notify:
            self._on_idle(self)

    def fail_all(self, error: Callable[[], AipodError]) -> None:
        """There will be no instance: close, and answer every call that waits, each with an error of its own."""
        with self._lock:
            self._counts.failed += len(self._queue)
        self.abandon(lambda _: error())

    def abandon(self, error: Callable[[Call], AipodError]) -> None:
        """Nobody waits any longer: answer all calls. Those that run go on until the model is through with them."""
        with self._lock:
            self._closed = True
            calls = [*self._queue, *self._running]
            self._bytes -= sum(call.size_bytes for call in self._queue)
            self._queue.clear()
        for call in calls:
            call.fail(error(call))

    def statistics(self) -> LaneStatistics:
        with self._lock:
            counts = LaneStatistics(**vars(self._counts))
            counts.queued, counts.running, counts.held_bytes = len(self._queue), len(self._running), self._bytes
        return counts

    def _next(self) -> tuple[Call | None, list[Call]]:
        expired: list[Call] = []
        now = time.monotonic()
        while self._queue and len(self._running) < self._limit:
            call = self._queue.popleft()
            if call.answered or (call.deadline is not None and call.deadline <= now):
                expired.append(call)
                self._bytes -= call.size_bytes
                self._counts.cancelled += call.answered
                self._counts.expired += not call.answered
                continue
            call.started = now
            self._running.add(call)
            if self._queue and not self._announced and len(self._running) < self._limit:
                self._announce()
            return call, expired
        return None, expired

    def _announce(self) -> None:
        self._announced = True
        self._runner.wake(self)

    def _bury(self, expired: list[Call]) -> None:
        """Answer calls whose time was over before their turn came; the last one may leave the lane idle."""
        for call in expired:
            call.fail(DeadlineExceeded("the deadline passed while the call waited for its turn; allow it more time"))
        if expired:
            with self._lock:
                notify = self._must_tell()
            if notify:
                self._on_idle(self)

    def _must_tell(self) -> bool:
        return (self._closed or self.watched) and not self._queue and not self._running

    def _full(self, call: Call) -> Overloaded:
        if len(self._queue) >= self._max_queue:
            what = f"{len(self._queue)} calls wait for version {self.version!r} already (AIPOD_MAX_QUEUE)"
        else:
            what = (
                f"the calls of version {self.version!r} hold {self._bytes} bytes, this one brings {call.size_bytes},"
                f" and {self._max_bytes} are allowed (AIPOD_MAX_QUEUE_BYTES)"
            )
        return Overloaded(f"{what}; try again later")

"""A lane: the queue of one instance, and what is counted of it. How its calls are run is for the two kinds of lanes,
:class:`~aipod.engine.single_lane.SingleLane` and :class:`~aipod.engine.batch_lane.BatchLane`.

Rules of this file, and of those two:

- ``_lock`` guards the bookkeeping and nothing else: no user code, no reply and no disk under it. Order of locks: a
  lane's, then the clock's.
- A lane is *open* between :meth:`open` (its instance is ready) and :meth:`close`. Before, calls wait and none runs;
  after, none comes in and those inside run to their end.
- ``_announced`` is True while a runner has been told of the lane and has not come yet. So a lane stands in the runners'
  queue at most once, which makes their turns fair.
- The lane is idle when nothing waits and nothing runs; only an idle lane's instance may be disposed.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sized
from typing import Any, Protocol

from aipod.burst import Bursts
from aipod.clock import Clock
from aipod.engine.call import Call
from aipod.engine.statistics import BatchStatistics, LaneStatistics
from aipod.errors import AipodError, DeadlineExceeded, Overloaded

__all__ = ["ANSWERING", "TURN", "Lane", "Runner", "Spawn"]

# How long a worker goes on with a lane of short calls while others wait for one, in seconds.
TURN = 0.001

# What sends answers puts it off in such a burst, to send those of several calls together.
ANSWERING = Bursts()

# Starts a coroutine on the loop, and calls back, there, with what it returned, or False if it was cancelled. What it
# gives cancels it, from any thread.
Spawn = Callable[[Coroutine[Any, Any, bool], Callable[[bool], object]], Callable[[], object]]


class Runner(Protocol):
    """What comes to lanes to run their calls: threads, or an event loop."""

    # Neither ever blocks; both are called under the lane's lock.

    def wake(self, lane: Lane) -> None:
        """Come soon."""

    def wake_idle(self, lane: Lane) -> bool:
        """Come at once, if somebody has nothing else to do; says whether somebody has."""


class Lane:
    """The calls of one instance.

    Args:
        version: For the sentences of errors.
        runner: What runs the calls.
        clock: For what must not wait for ever.
        max_queue: How many calls may wait.
        max_bytes: How many bytes of requests may wait and run.
        on_idle: Called, without a lock held, when the lane becomes idle and somebody asked (:attr:`watched`) or it is
            closed.
    """

    def __init__(
        self,
        version: str,
        runner: Runner,
        clock: Clock,
        max_queue: int,
        max_bytes: int,
        on_idle: Callable[[Lane], None],
    ) -> None:
        self.version = version
        self.last_used = time.monotonic()
        self.watched = False
        self.methods: dict[str, Callable[..., Any]] = {}
        self._runner = runner
        self._clock = clock
        self._max_queue = max_queue
        self._max_bytes = max_bytes
        self._on_idle = on_idle
        self._lock = threading.Lock()
        # In the order in which they are served: as they came, and by rank as soon as one has a priority.
        self._queue: deque[Call] = deque()
        self._ranked = False
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

    @property
    def busy(self) -> int:
        """How many times user code runs for it now, on threads or as coroutines."""
        return len(self._running)

    def serve(self, others: Sized) -> None:
        """Run what there is to run, on this thread, for one turn.

        Args:
            others: Lanes that wait for a worker; while there are none, a turn may go on.
        """
        raise NotImplementedError

    def start(self, spawn: Spawn) -> None:
        """The same on an event loop: start what there is to run."""
        raise NotImplementedError

    def put(self, call: Call) -> bool:
        """Let a call in; False if the lane is closed.

        Raises:
            Overloaded: The lane is full; the call was not taken.
        """
        with self._lock:
            if self._closed:
                return False
            queue = self._queue
            if len(queue) >= self._max_queue or not self._has_room(call.size_bytes):
                self._counts.refused += 1
                raise self._full(call)
            call.queue = self
            if call.cancelled:
                # It was cancelled on its way here, before it could know which lane to leave.
                return True
            if call.priority or self._ranked:
                self._ranked = bool(queue) or call.priority != 0
                queue.insert(bisect_right(queue, call.rank, key=_rank), call)
            else:
                queue.append(call)
            self._bytes += call.size_bytes
            self.last_used = call.arrived
            if not self._announced and self._limit:
                self._has_more()
        return True

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
        """Change how many may run at a time, 0 for none at present; those that run stay."""
        with self._lock:
            if self.methods and limit != self._limit:
                self._limit = limit
                if self._queue and limit and not self._announced:
                    self._has_more()

    def close(self, only_if_idle: bool = False) -> bool:
        """Let no more calls in; says whether it is closed now. The caller looks at :attr:`idle` afterwards itself."""
        with self._lock:
            if only_if_idle and (self._queue or self._running):
                return False
            self._closed = True
            if self._queue and self._limit and not self._announced:
                self._has_more()
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

    def batch_statistics(self) -> BatchStatistics | None:
        """What is counted of batches; None where calls run alone."""
        return None

    def _has_room(self, size_bytes: int) -> bool:
        room = self._max_bytes - self._bytes
        # Who has an answer may send as much again at once, before the call that it is of has left.
        return size_bytes <= room or size_bytes <= room + sum(one.size_bytes for one in self._running if one.through)

    def _has_more(self) -> None:
        """Something waits, or more may run, and nobody is on the way here: announce the lane, if it is worth it.

        Called under the lock, with a limit above 0.
        """
        raise NotImplementedError

    def _announce(self) -> None:
        self._announced = True
        self._runner.wake(self)

    def _drop(self, call: Call, expired: list[Call]) -> None:
        """Count a call out that left the queue, since nobody waits for it any more; under the lock."""
        self._bytes -= call.size_bytes
        if call.answered:
            self._counts.cancelled += 1
        else:
            self._counts.expired += 1
            expired.append(call)

    def _bury(self, expired: list[Call]) -> None:
        """Answer calls whose time was over before their turn came; the last one may leave the lane idle."""
        for call in expired:
            call.fail(DeadlineExceeded("the deadline passed while the call waited for its turn; allow it more time"))
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


def _rank(call: Call) -> float:
    return call.rank

"""A lane whose calls run in batches.

A batch is closed as late as possible, when the model is free, so that it is as full as it can be; and all that can be
done before or after that is done on another worker meanwhile. So there are two parts that workers play:

- One *runs*: takes the next batch, calls the model, and takes the one after that. It keeps the slot that it has (there
  are as many as batches may run side by side), so that nobody squeezes in between two batches.
- One *attends*: answers the calls of the batch that is over, and decodes those of the batch to come. It is called when
  there is something to answer, or when a whole batch waits undecoded; it goes away when nothing is left. Where no
  worker is free for it, the one that runs does that, too, in between.

More rules than :mod:`aipod.engine.lane` has:

- ``_forming`` is held while calls are decoded and chosen, which may call ``batch_key`` of the model; it comes before
  ``_lock``. Decoded calls stay in the queue, where they can be cancelled and expire like any other.
- While calls wait and a slot is free, the lane is announced, or somebody is forming a batch, or an alarm is set for the
  instant at which the first of them has waited for ``timeout``.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence, Sized
from functools import partial
from itertools import islice
from typing import NamedTuple, cast

from aipod.burst import Burst
from aipod.clock import Clock, Timer
from aipod.engine.batch import Batch
from aipod.engine.batch_size import BatchSize
from aipod.engine.call import Call
from aipod.engine.invoke import error_of, invoke, invoke_async
from aipod.engine.lane import ANSWERING, TURN, Lane, Runner, Spawn
from aipod.engine.statistics import BatchStatistics
from aipod.errors import AipodError
from aipod.model.batching import UNREAD, BatchPredict, Entry

__all__ = ["BatchLane", "BatchPolicy"]

_NEVER = float("inf")
# Among how many batches' worth of waiting calls those of one key are looked for. All of them are decoded.
_LOOKAHEAD = 4


class BatchPolicy(NamedTuple):
    """When a batch is closed.

    Attributes:
        max_size: How many calls it has at most.
        timeout: Seconds after the arrival of its first call at which it does not wait for more.
        target: Seconds that the model may take for one; 0.0 is no target.
        keyed: Whether there are calls that must not share one.
    """

    max_size: int
    timeout: float
    target: float
    keyed: bool


class BatchLane(Lane):
    """Calls that run together.

    Args:
        policy: When a batch is closed.
    """

    def __init__(
        self,
        version: str,
        runner: Runner,
        clock: Clock,
        max_queue: int,
        max_bytes: int,
        on_idle: Callable[[Lane], None],
        policy: BatchPolicy,
    ) -> None:
        super().__init__(version, runner, clock, max_queue, max_bytes, on_idle)
        self._policy = policy
        self._size = BatchSize(policy.max_size, policy.target)
        self._forming = threading.Lock()
        self._slots = 0
        # What the model is through with, and nobody has answered yet.
        self._over: deque[Batch] = deque()
        # How many of the first in the queue are decoded; exact after each batch.
        self._decoded = 0
        # Whether something has come since a batch began to be formed.
        self._changed = False
        self._alarm: Timer | None = None
        self._alarm_at = _NEVER
        self._batches = BatchStatistics()

    @property
    def busy(self) -> int:
        return self._slots

    @property
    def _predict(self) -> BatchPredict:
        return cast("BatchPredict", self.methods["predict"])

    def serve(self, others: Sized) -> None:
        turn_ends = time.monotonic() + TURN
        batch = self._claim(arriving=True)
        while True:
            if batch is not None:
                if not self._run(batch, others, turn_ends):
                    return
            elif self._over:
                self._answer_one()
            elif not self._prepare():
                return
            batch = self._claim()

    def start(self, spawn: Spawn) -> None:
        batch = self._claim(arriving=True)
        while batch is not None:
            self._spawn(batch, spawn)
            batch = self._claim()
        self._prepare()

    def batch_statistics(self) -> BatchStatistics:
        with self._lock:
            return BatchStatistics(**{**vars(self._batches), "size_limit": self._size.limit})

    def _run(self, batch: Batch, others: Sized, turn_ends: float) -> bool:
        """Run this batch and those that follow it; False if the turn was over before they were."""
        while True:
            if batch.method == "predict":
                batch.run(self._predict)
            else:
                batch.failed = not invoke(self.methods, batch.calls[0])
            over = bool(others) and time.monotonic() >= turn_ends
            following = self._follow(batch, over)
            if following is None:
                self._deliver(batch)
                return not over
            self._leave_to_others(batch)
            batch = following

    def _spawn(self, batch: Batch, spawn: Spawn) -> None:
        if batch.method == "predict":
            running = batch.run_async(self._predict)
        else:
            running = invoke_async(self.methods, batch.calls[0])
        spawn(running, partial(self._ended, batch, spawn))

    def _ended(self, batch: Batch, spawn: Spawn, ok: bool) -> None:
        following = self._follow(batch, turn_is_over=False)
        if following is not None:
            self._spawn(following, spawn)
        # Behind the next batch's first step, which hands its work to something else than this loop, if it is wise.
        asyncio.get_running_loop().call_soon(self._deliver, batch)

    def _claim(self, arriving: bool = False) -> Batch | None:
        """A batch whose time has come, with a slot for it; None if there is none, or no slot is free."""
        with self._lock:
            if arriving:
                # In one step with the slot, lest somebody else is announced for the same calls.
                self._announced = False
            if not self._queue or self._slots >= self._limit:
                return None
            self._slots += 1
        return self._form()

    def _follow(self, batch: Batch, turn_is_over: bool) -> Batch | None:
        """The model is through with a batch: its slot is for the next; None if it was given back."""
        with self._lock:
            self._count(batch)
            if turn_is_over or self._slots > self._limit:
                self._slots -= 1
                if self._queue and not self._announced:
                    self._has_more()
                return None
        return self._form()

    def _form(self) -> Batch | None:
        """A batch for a slot that the caller holds; where none is due, the slot is given back."""
        while True:
            with self._forming:
                batch, due = self._choose(self._window())
            if batch is not None:
                return batch
            with self._lock:
                # What came meanwhile was left to this thread. Where nothing is due ever, those looked at have gone.
                if not self._changed and (not self._queue or due < _NEVER):
                    self._slots -= 1
                    if self._queue:
                        self._set_alarm(due)
                    return None

    def _window(self) -> list[Call]:
        """The calls that may be in the next batch, decoded; ``_forming`` is held."""
        window: list[Call] = []
        over: list[Call] = []
        expired: list[Call] = []
        now = time.monotonic()
        with self._lock:
            self._changed = False
            length = self._lookahead()
            for call in self._queue:
                is_over = call.answered or (call.deadline is not None and call.deadline <= now)
                (over if is_over else window).append(call)
                if len(window) == length:
                    break
            for call in over:
                self._queue.remove(call)
                self._drop(call, expired)
            self._decoded = len(window)
        if over:
            self._bury(expired)
        return [call for call in window if call.entry is not UNREAD or self._decode(call)]

    def _decode(self, call: Call) -> bool:
        """Read a call's arguments; False if that failed, and it with that."""
        try:
            # What is no prediction runs alone.
            is_alone = call.method != "predict"
            call.entry = Entry(call, {}) if is_alone else self._predict.enter(call.arguments())
        except BaseException as error:
            self._reject(call, error_of(error))
            return False
        return True

    def _reject(self, call: Call, error: AipodError) -> None:
        with self._lock:
            try:
                self._queue.remove(call)
            except ValueError:
                # It was cancelled meanwhile.
                return
            self._bytes -= call.size_bytes
            self._counts.done += 1
            self._counts.failed += 1
        call.fail(error)
        self._bury([])

    def _choose(self, window: Sequence[Call]) -> tuple[Batch | None, float]:
        """The batch whose time has come, or the instant at which the first one's will have; ``_forming`` is held."""
        groups: dict[Hashable, list[Call]] = {}
        for call in window:
            groups.setdefault(call.entry.key, []).append(call)
        size, now, first = self._size.limit, time.monotonic(), _NEVER
        for group in groups.values():
            due = self._due(group, size)
            if due <= now:
                return self._begin(group[:size], now), _NEVER
            first = min(first, due)
        return None, first

    def _due(self, group: Sequence[Call], size: int) -> float:
        timeout = self._policy.timeout
        if not timeout or len(group) >= size or self._closed or group[0].method != "predict":
            return 0.0
        return min(call.arrived for call in group) + timeout

    def _begin(self, calls: Sequence[Call], now: float) -> Batch | None:
        begun: list[Call] = []
        with self._lock:
            for call in calls:
                try:
                    self._queue.remove(call)
                except ValueError:
                    # It was cancelled meanwhile.
                    continue
                call.started = now
                begun.append(call)
            self._running.update(begun)
            self._decoded = sum(call.entry is not UNREAD for call in islice(self._queue, self._lookahead()))
            if self._queue and not self._announced:
                self._has_more()
        return Batch(begun) if begun else None

    def _prepare(self) -> bool:
        """Decode a batch to come, if there is a whole one; says whether there was."""
        with self._lock:
            if self._undecoded() < self._size.limit:
                return False
        with self._forming:
            self._window()
        return True

    def _leave_to_others(self, batch: Batch) -> None:
        """Have a batch answered by another worker, if there is one; this one has the next to run."""
        if self._over:
            # Nobody came for the last one all the while.
            self._answer_one()
        with self._lock:
            self._over.append(batch)
            somebody = self._announced or self._announce_to_idle()
        if not somebody:
            self._answer_one()

    def _answer_one(self) -> None:
        try:
            batch = self._over.popleft()
        except IndexError:
            # Another worker was faster.
            return
        self._deliver(batch)

    def _deliver(self, batch: Batch) -> None:
        with Burst(ANSWERING):
            batch.deliver()
        with self._lock:
            self._running.difference_update(batch.calls)
            self._bytes -= sum(call.size_bytes for call in batch.calls)
            self._counts.done += len(batch.calls)
            self._counts.failed += batch.failed
            self._counts.queue_seconds += sum(call.started - call.arrived for call in batch.calls)
            self._counts.run_seconds += batch.seconds * len(batch.calls)
            notify = self._must_tell()
        if notify:
            self._on_idle(self)

    def _count(self, batch: Batch) -> None:
        if batch.method != "predict":
            return
        if batch.seconds:
            self._size.ran(len(batch.calls), batch.seconds)
        self._batches.batches += 1
        self._batches.calls += len(batch.calls)
        self._batches.runs += batch.runs
        self._batches.last_size = len(batch.calls)

    def _has_more(self) -> None:
        self._changed = True
        if self._slots >= self._limit:
            if self._undecoded() >= self._size.limit:
                self._announce_to_idle()
        elif not self._policy.timeout or self._closed or len(self._queue) >= self._size.limit or self._has_loner():
            self._announce()
        else:
            self._set_alarm(self._queue[0].arrived + self._policy.timeout)

    def _has_loner(self) -> bool:
        # What is no prediction shares nothing, and so waits for nobody.
        return any(call.method != "predict" for call in self._queue)

    def _announce_to_idle(self) -> bool:
        self._announced = self._runner.wake_idle(self)
        return self._announced

    def _lookahead(self) -> int:
        return self._size.limit * (_LOOKAHEAD if self._policy.keyed else 1)

    def _undecoded(self) -> int:
        """How many calls an attendant could decode."""
        return min(len(self._queue), self._lookahead()) - self._decoded

    def _set_alarm(self, instant: float) -> None:
        if self._alarm is not None:
            if self._alarm_at <= instant:
                return
            self._alarm.cancel()
        self._alarm_at = instant
        self._alarm = self._clock.at(instant, self._ring)

    def _ring(self) -> None:
        """On the clock's thread: a call has waited long enough."""
        with self._lock:
            self._alarm = None
            if self._queue and self._slots < self._limit and not self._announced:
                self._announce()

"""A lane whose calls run one by one, on as many workers as are worth waking."""

from __future__ import annotations

import time
from collections.abc import Callable, Sized
from functools import partial

from aipod.burst import Burst
from aipod.clock import Clock, Timer
from aipod.engine.call import Call
from aipod.engine.invoke import invoke, invoke_async
from aipod.engine.lane import ANSWERING, TURN, Lane, Runner, Spawn
from aipod.errors import Cancelled

__all__ = ["SingleLane"]

# To wake one more worker, and to have it there, costs some ten microseconds; it is worth it where it saves more than
# this. Seconds, all of them.
_WORTH_WAKING = 0.001
# What a call is taken to last before one was seen, and at most: what is longer counts as long, and that is enough.
_LONG = 0.002
_WEIGHT_OF_LAST = 0.125
# How long an answer waits for those of the calls that are run next, to leave with them.
_COMPANY = 0.0002


class SingleLane(Lane):
    """Calls that each have a run of their own.

    One more worker is woken where calls are long, or where more wait than those that are here could do in about a
    millisecond. Whether calls are long is a running mean; before the first has ended they are. So that nothing waits
    behind one that is longer than the others, a timer looks after a lane in which calls, or answers, wait: a worker
    that has been with the same call for :data:`_LONG` is no longer counted on.

    Args:
        eager: Every call begins at once, since it costs no thread (for event loops).
    """

    def __init__(
        self,
        version: str,
        runner: Runner,
        clock: Clock,
        max_queue: int,
        max_bytes: int,
        on_idle: Callable[[Lane], None],
        eager: bool = False,
    ) -> None:
        super().__init__(version, runner, clock, max_queue, max_bytes, on_idle)
        self._eager = eager
        self._mean = _LONG
        self._stuck: set[Call] = set()
        self._answering: set[Burst] = set()
        self._lookout: Timer | None = None

    def serve(self, others: Sized) -> None:
        answers = Burst(ANSWERING)
        self._answering.add(answers)
        try:
            with answers:
                self._serve(others, answers)
        finally:
            self._answering.discard(answers)

    def start(self, spawn: Spawn) -> None:
        while (call := self._take()) is not None:
            call.on_cancel = spawn(invoke_async(self.methods, call), partial(self._ended, call))
            if call.cancelled:
                call.on_cancel()

    def _serve(self, others: Sized, answers: Burst) -> None:
        call = self._take()
        if call is None:
            return
        turn_ends, sent = call.started + TURN, call.started
        while True:
            ok = invoke(self.methods, call)
            call = self._done(call, ok, others, turn_ends)
            if call is None:
                return
            if call.started + self._mean - sent > _COMPANY:
                answers.settle()
                sent = call.started
            elif answers.waits and self._lookout is None:
                # The next one may take longer than those before.
                with self._lock:
                    self._look_out()

    def _take(self) -> Call | None:
        """The next call that is worth running, or None; :meth:`_done` or :meth:`_ended` is owed for it."""
        expired: list[Call] = []
        with self._lock:
            self._announced = False
            call = self._next(time.monotonic(), expired)
        if expired:
            self._bury(expired)
        return call

    def _done(self, call: Call, ok: bool, others: Sized, turn_ends: float) -> Call | None:
        """A call has run on this worker; gives it the next, unless the turn is over."""
        following: Call | None = None
        expired: list[Call] = []
        now = time.monotonic()
        with self._lock:
            self._leave(call, ok, now)
            self._mean += (min(now - call.started, _LONG) - self._mean) * _WEIGHT_OF_LAST
            if self._queue and (not others or now < turn_ends):
                following = self._next(now, expired)
            elif self._queue and not self._announced:
                self._has_more()
            notify = self._must_tell()
        if expired:
            self._bury(expired)
        elif notify:
            self._on_idle(self)
        return following

    def _ended(self, call: Call, ok: bool) -> None:
        """A coroutine is over."""
        call.on_cancel = None
        # One that was cancelled before its first step has answered nobody.
        call.fail(Cancelled())
        with self._lock:
            self._leave(call, ok, time.monotonic())
            if self._queue and not self._announced:
                self._has_more()
            notify = self._must_tell()
        if notify:
            self._on_idle(self)

    def _leave(self, call: Call, ok: bool, now: float) -> None:
        self._running.discard(call)
        if self._stuck:
            self._stuck.discard(call)
        self._bytes -= call.size_bytes
        counts = self._counts
        counts.done += 1
        counts.failed += not ok
        counts.queue_seconds += call.started - call.arrived
        counts.run_seconds += now - call.started

    def _next(self, now: float, expired: list[Call]) -> Call | None:
        queue, running = self._queue, self._running
        while queue and len(running) < self._limit:
            call = queue.popleft()
            if call.answered or (call.deadline is not None and call.deadline <= now):
                self._drop(call, expired)
                continue
            call.started = now
            running.add(call)
            # While somebody looks after the lane, it is judged anew only when more comes in.
            if queue and not self._announced and self._lookout is None:
                self._has_more()
            return call
        return None

    def _has_more(self) -> None:
        busy = len(self._running)
        if busy >= self._limit:
            return
        moving = busy - len(self._stuck)
        is_long = self._mean >= _WORTH_WAKING or len(self._queue) * self._mean > _WORTH_WAKING * moving
        if self._eager or is_long:
            self._announce()
        else:
            self._look_out()

    def _look_out(self) -> None:
        if self._lookout is None:
            self._lookout = self._clock.at(time.monotonic() + _LONG, self._look)

    def _look(self) -> None:
        """On the clock's thread: calls, or answers, may have waited for a while, if those that run are stuck."""
        waited = [answers.settle() for answers in list(self._answering)]
        with self._lock:
            self._lookout = None
            if self._queue:
                long_ago = time.monotonic() - _LONG
                self._stuck = {call for call in self._running if call.started <= long_ago}
                if self._stuck:
                    self._mean = _LONG
                if not self._announced:
                    self._has_more()
            if any(waited):
                self._look_out()

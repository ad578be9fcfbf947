"""The two runners: threads for ``def predict``, one event loop for ``async def predict``.

Worker threads take lanes, not calls, from one backlog: a lane stands in it once however many calls it holds, so lanes
take turns. A worker goes on with the same lane while no other waits for one, or for a moment if its calls are short;
that costs neither a wake-up nor a hand-over.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from aipod.burst import Bursts
from aipod.engine.lane import Lane

__all__ = ["ARRIVING", "EventLoop", "Workers"]

_log = logging.getLogger("aipod.engine")

# Whoever submits several calls does it in such a burst, and wakes a worker when they are all in their lanes.
ARRIVING = Bursts()


class Workers:
    """Threads that run the calls of all lanes.

    A thread starts when a lane finds all others at work, up to ``count``. The one that went idle last is woken first,
    since its memory is still warm. Who announces a lane puts it into the backlog before looking for an idle worker, who
    goes idle says so before looking at the backlog again: one of them sees the other.

    Args:
        count: How many at most; each is a daemon, since a model that never returns must not keep the process.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._backlog: deque[Lane] = deque()
        self._idle: list[threading.Lock] = []
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def wake(self, lane: Lane) -> None:
        self._backlog.append(lane)
        ARRIVING.after(self._call_one)

    def wake_idle(self, lane: Lane) -> bool:
        try:
            gate = self._idle.pop()
        except IndexError:
            if len(self._threads) == self.count:
                return False
            self._backlog.append(lane)
            self._start()
        else:
            self._backlog.append(lane)
            gate.release()
        return True

    def close(self, timeout: float) -> bool:
        """End the threads; False if some of them still run a model after ``timeout`` seconds."""
        with self._lock:
            self._closed = True
        with suppress(IndexError):
            while True:
                self._idle.pop().release()
        return _join(self._threads, timeout)

    def _call_one(self) -> None:
        try:
            self._idle.pop().release()
        except IndexError:
            if len(self._threads) < self.count:
                self._start()

    def _start(self) -> None:
        # Started under the lock: who closes joins all that there are, and nobody can join one that is not started yet.
        with self._lock:
            if self._closed or len(self._threads) >= self.count:
                return
            thread = threading.Thread(target=self._work, name=f"aipod-worker-{len(self._threads)}", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                # No more threads to be had: those that there are come for the lane when they are through.
                return
            self._threads.append(thread)

    def _work(self) -> None:
        gate = threading.Lock()
        gate.acquire()
        while (lane := self._next(gate)) is not None:
            try:
                lane.serve(self._backlog)
            except Exception:
                # A bug of ours; the thread is needed for other lanes.
                _log.exception("a turn of %r failed", lane)
            # An idle worker must not keep the last instance alive.
            del lane

    def _next(self, gate: threading.Lock) -> Lane | None:
        """A lane from the backlog, waited for at the gate; None once there is no more to do."""
        while True:
            try:
                return self._backlog.popleft()
            except IndexError:
                if self._closed:
                    return None
            self._idle.append(gate)
            if self._backlog or self._closed:
                try:
                    self._idle.remove(gate)
                    continue
                except ValueError:
                    # Somebody has taken it to open it.
                    pass
            gate.acquire()


class EventLoop:
    """One event loop on a thread of its own, started with the first lane that needs it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._tasks: set[asyncio.Task[bool]] = set()

    def wake(self, lane: Lane) -> None:
        with self._lock:
            if self._closed:
                return
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="aipod-async", daemon=True)
                self._thread.start()
            self._loop.call_soon_threadsafe(lane.start, self._spawn)

    def close(self, timeout: float) -> bool:
        """Cancel what runs and end the thread; False if something blocks the loop."""
        with self._lock:
            self._closed = True
            loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return True
        asyncio.run_coroutine_threadsafe(self._end(), loop)
        if not _join([thread], timeout):
            return False
        loop.close()
        return True

    def wake_idle(self, lane: Lane) -> bool:
        self.wake(lane)
        return True

    def _spawn(self, work: Coroutine[Any, Any, bool], on_end: Callable[[bool], object]) -> Callable[[], object]:
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)
        self._tasks.add(task)
        # Not the coroutine's own duty: one that is cancelled before its first step never gets to it.
        task.add_done_callback(partial(self._ended, on_end))
        return partial(loop.call_soon_threadsafe, task.cancel)

    def _ended(self, on_end: Callable[[bool], object], task: asyncio.Task[bool]) -> None:
        self._tasks.discard(task)
        on_end(not task.cancelled() and task.result())

    async def _end(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        loop = asyncio.get_running_loop()
        await loop.shutdown_default_executor()
        loop.stop()


def _join(threads: list[threading.Thread], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)

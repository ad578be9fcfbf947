"""The two runners: threads for ``def predict``, one event loop for ``async def predict``.

A worker thread waits in one queue for lanes, not for calls: a lane stands in it once however many calls it holds, so
lanes take turns. A worker goes on with the same lane while no other waits for one; that costs neither a wake-up nor a
hand-over.
"""

from __future__ import annotations

import asyncio
import threading
import time
from queue import SimpleQueue

from aipod.engine.call import Call
from aipod.engine.invoke import invoke, invoke_async
from aipod.engine.lane import Lane

__all__ = ["EventLoop", "Workers"]


class Workers:
    """Threads that run the calls of all lanes.

    Args:
        count: How many; each is a daemon, since a model that never returns must not keep the process.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._ready: SimpleQueue[Lane | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"aipod-worker-{n}", daemon=True) for n in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def wake(self, lane: Lane) -> None:
        self._ready.put(lane)

    def close(self, timeout: float) -> bool:
        """End the threads; False if some of them still run a model after ``timeout`` seconds."""
        for _ in self._threads:
            self._ready.put(None)
        return _join(self._threads, timeout)

    def _work(self) -> None:
        ready = self._ready
        while (lane := ready.get()) is not None:
            call = lane.take()
            while call is not None:
                ok = invoke(lane.methods[call.method], call)
                call = lane.done(call, failed=not ok, another=ready.empty())
            # An idle worker must not keep the last instance alive.
            del lane, call


class EventLoop:
    """One event loop on a thread of its own, started with the first lane that needs it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def wake(self, lane: Lane) -> None:
        self._running_loop().call_soon_threadsafe(self._start, lane)

    def close(self, timeout: float) -> bool:
        """Cancel what runs and end the thread; False if something blocks the loop."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return True
        asyncio.run_coroutine_threadsafe(self._end(), loop)
        if not _join([thread], timeout):
            return False
        loop.close()
        return True

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="aipod-async", daemon=True)
                self._thread.start()
            return self._loop

    def _start(self, lane: Lane) -> None:
        call = lane.take()
        if call is not None:
            loop = asyncio.get_running_loop()
            task = loop.create_task(self._run(lane, call))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            call.on_cancel = lambda: loop.call_soon_threadsafe(task.cancel)
            if call.cancelled:
                task.cancel()

    async def _run(self, lane: Lane, call: Call) -> None:
        ok = False
        try:
            ok = await invoke_async(lane.methods[call.method], call)
        finally:
            lane.done(call, failed=not ok)

    async def _end(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        asyncio.get_running_loop().stop()


def _join(threads: list[threading.Thread], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)

"""A thread of a sink's own: what blocks runs there, one thing after the other.

It is a daemon, since a database or a pipe that never answers must not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from aipod.errors import Unavailable

__all__ = ["SinkThread"]

T = TypeVar("T")
_Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...]]
# How long to wait for what still runs when the sink is closed.
_PATIENCE = 5.0


class SinkThread:
    """Belongs to one event loop; the thread starts with the first thing to run and stays until :meth:`end`."""

    def __init__(self, name: str) -> None:
        self._name = f"aipod-{name}"
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._ended = False

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Run it after what was asked for before; what it raises is raised here.

        To be cancelled while it runs does not end it, and what comes next still runs after it.

        Raises:
            Unavailable: The thread has been ended.
        """
        if self._ended:
            raise Unavailable("this sink is closed")
        if self._thread is None:
            self._thread = threading.Thread(target=_work, args=(self._jobs,), name=self._name, daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._jobs.put((loop, done, function, args))
        return await done

    def leave(self, last: Callable[[], None]) -> None:
        """End the thread as soon as what was asked for has run, and then ``last``, which raises nothing; on the loop,
        and without waiting for any of it."""
        self._ended = True
        if self._thread is None:
            last()
            return
        loop = asyncio.get_running_loop()
        self._jobs.put((loop, loop.create_future(), last, ()))
        self._jobs.put(None)

    async def end(self, last: Callable[[], None] = lambda: None) -> None:
        """Let what was asked for run, then ``last``, and end the thread; a stuck one is left to the process's end.

        Never raises; what ``last`` raises is nobody's any more.
        """
        done = asyncio.ensure_future(self.run(last))
        await asyncio.sleep(0)  # so that it is in the queue
        self._ended = True
        self._jobs.put(None)
        with contextlib.suppress(Exception):
            await asyncio.wait_for(done, _PATIENCE)


def _work(jobs: queue.SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        loop, done, function, args = job
        value: Any = None
        failure: Exception | None = None
        try:
            value = function(*args)
        except StopIteration as error:  # a future does not take it
            failure = RuntimeError(f"StopIteration: {error}")
        except Exception as error:
            failure = error
        except BaseException as error:  # sys.exit() in a user's function ends that call, not the process
            failure = RuntimeError(f"{type(error).__name__}: {error}")
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, done, value, failure)
        del job, done, function, args, value, failure


def _settle(done: asyncio.Future[Any], value: Any, failure: Exception | None) -> None:
    if done.done():
        return
    if failure is None:
        done.set_result(value)
    else:
        done.set_exception(failure)

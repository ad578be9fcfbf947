"""Those who wait for answers: a thread, a coroutine, or a future of ``concurrent.futures``."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress

from aipod.errors import AipodError, DeadlineExceeded
from aipod.rpc.deadlines import Deadlines
from aipod.rpc.trunk.relay import Gate
from aipod.rpc.trunk.request import Reply, Request
from aipod.rpc.trunk.sharing import Lender
from aipod.rpc.trunk.trunk import Trunk

__all__ = ["LoopSide", "wait_for"]


# How many calls of one turn of a loop leave at once, for the server to begin while the others are written.
_COMPANY = 16
# How long a thread that is interrupted waits for its turn to wake others, in seconds; it is there at once.
_MOMENT = 1.0


class _Thread(Gate):
    """A thread that waits: one wake-up."""

    __slots__ = ("error", "reply")

    def __init__(self) -> None:
        super().__init__()
        self.reply: Reply | None = None
        self.error: AipodError | None = None

    def settle(self, reply: Reply | None, error: AipodError | None) -> None:
        self.reply, self.error = reply, error
        self.open()


def wait_for(
    trunk: Trunk, method: str, message: bytes | memoryview, timeout: float | None, lender: Lender | None = None
) -> Reply:
    """Send a call on a trunk and wait for its reply.

    Raises:
        AipodError: Its failure; ``NeverSent`` if the trunk ended before it left.
    """
    waiter = _Thread()
    deadline = None if timeout is None else time.monotonic() + timeout
    request = Request(method, message, deadline, waiter, lender)
    try:
        trunk.put(request)
        trunk.wake()
        if not waiter.wait(timeout):
            if trunk.cancel(request):
                raise DeadlineExceeded()
            # It came in this very moment.
            waiter.wait(None)
    except BaseException:
        # Ctrl-C, for one, ends the wait; nobody takes the answer then.
        if not trunk.cancel(request):
            # It has come, and others may be behind us.
            waiter.wait(_MOMENT)
            waiter.pass_on()
        raise
    if waiter.error is not None:
        try:
            raise waiter.error
        finally:
            # Its traceback holds this frame: without this the request would wait for the cycle collector.
            del waiter
    assert waiter.reply is not None
    return waiter.reply


class LoopSide:
    """An event loop's side of a trunk: what is put in one turn of the loop leaves together, and what is settled by one
    frame comes back with one wake-up.

    Args:
        trunk: The trunk.
        loop: The loop on which :meth:`call` is going to be awaited.
    """

    def __init__(self, trunk: Trunk, loop: asyncio.AbstractEventLoop) -> None:
        self.trunk = trunk
        self.loop = loop
        self._settled: deque[tuple[asyncio.Future[Reply], Reply | None, AipodError | None]] = deque()
        self._coming = False
        self._waking = False
        # How many calls have been put since the trunk was woken.
        self._put = 0
        self._deadlines = Deadlines(self._at, trunk.expire)

    async def call(
        self, method: str, message: bytes | memoryview, timeout: float | None, lender: Lender | None = None
    ) -> Reply:
        """As :func:`wait_for`."""
        future: asyncio.Future[Reply] = self.loop.create_future()
        deadline = None if timeout is None else time.monotonic() + timeout
        request = Request(method, message, deadline, _Coroutine(self, future), lender)
        self.trunk.put(request)
        if deadline is not None:
            self._deadlines.watch(deadline)
        self._put += 1
        if self._put == _COMPANY:
            self._wake()
        elif not self._waking:
            self._waking = True
            self.loop.call_soon(self._wake_late)
        try:
            return await future
        finally:
            if request.waiter is not None:
                self.trunk.cancel(request)
            # As in wait_for.
            del future

    def settle(self, future: asyncio.Future[Reply], reply: Reply | None, error: AipodError | None) -> None:
        # Appended before the flag is read, and the flag is cleared before the queue is emptied: nothing stays behind.
        self._settled.append((future, reply, error))
        if not self._coming:
            self._coming = True
            with suppress(RuntimeError):
                # The loop is closed: nobody waits there any more.
                self.loop.call_soon_threadsafe(self._hand_over)

    def _wake(self) -> None:
        self._put = 0
        self.trunk.wake()

    def _wake_late(self) -> None:
        self._waking = False
        if self._put:
            self._wake()

    def _hand_over(self) -> None:
        self._coming = False
        settled = self._settled
        while settled:
            future, reply, error = settled.popleft()
            if future.done():
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(reply)  # type: ignore[arg-type]

    def _at(self, instant: float, action: object) -> object:
        return self.loop.call_later(max(0.0, instant - time.monotonic()), action)  # type: ignore[arg-type]


class _Coroutine:
    __slots__ = ("_future", "_side")

    def __init__(self, side: LoopSide, future: asyncio.Future[Reply]) -> None:
        self._side = side
        self._future = future

    def settle(self, reply: Reply | None, error: AipodError | None) -> None:
        self._side.settle(self._future, reply, error)

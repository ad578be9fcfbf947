"""Windows become results: predict, write to every sink, acknowledge.

The order of things, for each window:

1. It waits for a place: ``concurrency`` windows are in flight at once. Whoever submits waits with it, and so on back to
   the broker: that is all the back-pressure there is.
2. The model is asked. While it is away the window keeps its place and is tried again, without end.
3. What the model does not take is isolated and buried, and the rest is asked again.
4. The windows of one key are recorded in the order in which they were submitted, however soon the model answers.
5. The first sink is the record, and is written first; then the others.
6. What the window releases is acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from aipod.stream.burial import Burial
from aipod.stream.ending import end
from aipod.stream.errors import Unwritable
from aipod.stream.inference import Inference
from aipod.stream.message import Message
from aipod.stream.recording import Recording
from aipod.stream.result import Recorded, Result, ranges_of
from aipod.stream.statistics import Statistics
from aipod.stream.windows import Window

__all__ = ["Flight", "Operator"]


class Flight:
    """A window on its way.

    Attributes:
        landed: Set when nothing more will happen to it.
        recorded: What the sinks have of it; None if they have nothing.
        others: Positions of messages to be acknowledged with it: that they are done rests on it.
    """

    __slots__ = ("landed", "others", "recorded", "window")

    def __init__(self, window: Window) -> None:
        self.window = window
        self.landed = asyncio.Event()
        self.recorded: Recorded | None = None
        self.others: list[int] = []


class Operator:
    """Makes results of windows. Belongs to one event loop, and one caller submits.

    Args:
        task: The task's name.
        done: Called with positions that are to be acknowledged, and with the window that was the last to need them; it
            is in every sink, or its messages are in the dead letters.
        concurrency: Windows in flight.
        source: The stream that the windows are cut from, for the record.
    """

    def __init__(
        self,
        task: str,
        inference: Inference,
        recording: Recording,
        burial: Burial,
        done: Callable[[Sequence[int], Window], None],
        statistics: Statistics,
        concurrency: int,
        source: str = "",
    ) -> None:
        self._task = task
        self._source = source
        self._inference = inference
        self._recording = recording
        self._burial = burial
        self._done = done
        self._statistics = statistics
        self._concurrency = concurrency
        self._tasks: set[asyncio.Task[None]] = set()
        # The last flight of each key that has any: the next one of that key lands after it.
        self._last: dict[str, Flight] = {}
        self._error: Exception | None = None
        self._closed = False
        self._moved = asyncio.Event()
        self._failed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Operator {self._task!r}, {self.in_flight} in flight>"

    @property
    def in_flight(self) -> int:
        return len(self._tasks)

    @property
    def stuck(self) -> bool:
        """Whether what is in flight waits for the model or a sink to come back."""
        return self._inference.away or self._recording.away

    async def submit(self, window: Window) -> Flight:
        """Take a window on, as soon as there is a place.

        Raises:
            Exception: What an earlier window failed with.
        """
        while len(self._tasks) >= self._concurrency:
            await self.movement()
        self._check()
        flight = Flight(window)
        task = asyncio.create_task(self._fly(flight, self._last.get(window.key)))
        self._last[window.key] = flight
        self._tasks.add(task)
        task.add_done_callback(self._landed)
        return flight

    def after(self, key: str, seq: int) -> bool:
        """Have a message acknowledged when all is recorded that was submitted of its key; False if it is already."""
        flight = self._last.get(key)
        if flight is None:
            return False
        flight.others.append(seq)
        return True

    async def landed(self, key: str) -> None:
        """Wait until all that was submitted of a key is done.

        Raises:
            Exception: What a window failed with.
        """
        flight = self._last.get(key)
        if flight is not None:
            await self.settled(flight)

    async def settled(self, flight: Flight) -> None:
        """Wait until a window is done: recorded, or its messages are in the dead letters.

        Raises:
            Exception: What it, or another one, failed with.
        """
        await flight.landed.wait()
        self._check()

    async def movement(self, timeout: float | None = None) -> None:
        """Wait until something that was submitted has landed, be that since the last time; or for so many seconds.

        Raises:
            Exception: What a window failed with.
        """
        self._check()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._moved.wait(), timeout)
        self._moved.clear()
        self._check()

    async def drain(self) -> None:
        """Wait until all that was submitted is done.

        Raises:
            Exception: What a window failed with.
        """
        while self._tasks:
            await self.movement()
        self._check()

    async def failure(self) -> None:
        """Wait until a window fails, and raise what it failed with."""
        await self._failed.wait()
        self._check()

    async def close(self) -> None:
        """Give up what is in flight; nothing of that is acknowledged. Nothing more is taken on."""
        # Where a cancellation is lost, what goes on must not be recorded behind what has been given up.
        self._closed = True
        await end(self._tasks)

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._moved.set()

    def _check(self) -> None:
        if self._closed:
            raise asyncio.CancelledError("the operator is closed")
        if self._error is not None:
            raise self._error

    async def _fly(self, flight: Flight, before: Flight | None) -> None:
        window = flight.window
        try:
            members, value = await self._inference.answer(window)
            if before is not None:
                await before.landed.wait()
            self._check()
            if members:
                flight.recorded = await self._record(window, members, value)
            self._done([*window.releases, *flight.others], window)
            self._inference.forget(window.releases)
        except Exception as error:
            self._error = self._error or error
            self._failed.set()
        finally:
            flight.landed.set()
            if self._last.get(window.key) is flight:
                del self._last[window.key]

    async def _record(self, window: Window, members: Sequence[Message], value: Any) -> Recorded | None:
        recorded = window.recorded(self._source)
        first = window.messages[0]
        result = Result(self._task, recorded, value, _missing(window, members), first.headers, first.subject)
        try:
            await self._recording.write(result)
        except Unwritable as error:
            await self._bury(window, members, error)
            return None
        return recorded

    async def _bury(self, window: Window, members: Sequence[Message], error: Unwritable) -> None:
        self._statistics.too_large += 1
        # The members of an early one are in a later one too, which may fit.
        if window.final:
            reason = f"the result of window {window.id} of {len(window.messages)} messages cannot be written: {error}"
            await self._burial.bury(window.unsettled(members), reason, error.__cause__)


def _missing(window: Window, members: Sequence[Message]) -> tuple[tuple[int, int], ...]:
    if len(members) == len(window.messages):
        return ()
    there = {message.seq for message in members}
    return ranges_of(message.seq for message in window.messages if message.seq not in there)

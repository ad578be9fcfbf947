"""A result into every sink: the record first, then the others."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial

from aipod.errors import AipodError, ModelError
from aipod.stream.errors import TooLarge, Unwritable
from aipod.stream.result import Identity, Recorded, Result
from aipod.stream.retry import Retry, is_inputs
from aipod.stream.sinks.interface import Record, Sink
from aipod.stream.statistics import Statistics

__all__ = ["Recording"]


class Recording:
    """The sinks of a task.

    Args:
        sinks: At least one. The first that is a :class:`Record` is the task's record.
        retry_of: Makes what tries again while a sink (by its name) is away.
        lead: Raises if another process has taken over; asked before every try.

    Attributes:
        record: The task's record; None if no sink can be read.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        retry_of: Callable[[str], Retry],
        statistics: Statistics,
        lead: Callable[[], None] = lambda: None,
    ) -> None:
        self.record: Record | None = next((sink for sink in sinks if isinstance(sink, Record)), None)
        self._sinks = [(sink, retry_of(sink.name)) for sink in sorted(sinks, key=lambda sink: sink is not self.record)]
        self._statistics = statistics
        self._lead = lead
        # What the others had of the past when they were asked, by the sink's place.
        self._theirs: dict[int, set[Identity]] = {}

    @property
    def away(self) -> bool:
        """Whether it waits for a sink to come back."""
        return any(retry.away for _, retry in self._sinks)

    async def open(self) -> None:
        """Open every sink, however long that takes.

        Raises:
            ConfigError: One cannot work like this; those that are open stay so.
        """
        for sink, retry in self._sinks:
            await retry(sink.open)

    async def recall(
        self, since: float, floor: int, admit: Callable[[list[Recorded]], Awaitable[None]]
    ) -> list[Recorded]:
        """Ask the record, if there is one; see :meth:`Record.recall`. Others that can be read are asked too, so that
        :meth:`supply` knows what they lack.

        Args:
            admit: Raises if what one of them has is not to be gone on with.
        """
        recalled: list[Recorded] = []
        self._theirs = {}
        for place, (sink, retry) in enumerate(self._sinks):
            if isinstance(sink, Record):
                found = await retry(partial(sink.recall, since, floor))
                await admit(found)
                if sink is self.record:
                    recalled = found
                else:
                    self._theirs[place] = {one.identity for one in found}
        return recalled

    async def write(self, result: Result) -> None:
        """Return when every sink has it.

        Raises:
            Unwritable: One of them never will; those before it have it.
            Fenced: Another process writes for this task.
            Diverged: The record has this window with other members.
        """
        for sink, retry in self._sinks:
            await self._insist(sink, retry, result)
        self._statistics.results += 1

    async def supply(self, recorded: Recorded) -> None:
        """Write what the record has to those other sinks that a crash may have kept from it.

        Raises:
            Unwritable: One of them will never take it.
        """
        lacking = [place for place in range(1, len(self._sinks)) if self._lacks(place, recorded)]
        if self.record is None or not lacking:
            return
        result = await self._sinks[0][1](partial(self.record.stored, recorded))
        if result is not None:
            for place in lacking:
                await self._insist(*self._sinks[place], result)

    def _lacks(self, place: int, recorded: Recorded) -> bool:
        return recorded.identity not in self._theirs.get(place, ())

    async def close(self) -> None:
        """Close every sink, also where closing one of them fails."""
        async with AsyncExitStack() as stack:
            for sink, _ in self._sinks:
                stack.push_async_callback(sink.close)

    async def _insist(self, sink: Sink, retry: Retry, result: Result) -> None:
        for last in (False, True):
            try:
                return await retry(partial(self._write, sink, result))
            except AipodError as error:
                refused = isinstance(error, TooLarge) or is_inputs(error)
                # What a user's code raises counts when it comes again.
                if refused and (last or not isinstance(error, ModelError)):
                    raise Unwritable(sink.name, str(error)) from error
                if not refused:
                    raise

    async def _write(self, sink: Sink, result: Result) -> None:
        self._lead()
        began = time.monotonic()
        await sink.write(result)
        self._statistics.write_seconds.add(time.monotonic() - began)

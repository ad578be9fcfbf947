"""A batch: calls that run together, and what comes of each.

Rules of this file:

- :meth:`Batch.run` answers nobody: the thread that has the model shall have the next batch before the answers go out.
  :meth:`Batch.deliver` answers all, on whatever thread.
- No call suffers for another. Where a batch raises what an input may be to blame for, its halves are tried, and theirs,
  until it is found; the others get their answers. What no input can be to blame for, all of them get.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Iterable, Sequence
from types import CoroutineType
from typing import NamedTuple

from aipod.engine.call import Call
from aipod.engine.invoke import error_of, returned_error
from aipod.errors import AipodError, Cancelled, InvalidArgument, ModelCrashed, ModelError, again
from aipod.model.batching import UNREAD, BatchPredict
from aipod.model.call import running

__all__ = ["Batch"]

# The machine's, the network's or the clock's fault; asyncio has a class of its own for the last before Python 3.11.
_NOT_THE_INPUTS = (MemoryError, ConnectionError, TimeoutError, asyncio.TimeoutError)
_NOT_THE_INPUTS_NAMES = frozenset(
    one.__qualname__ for base in _NOT_THE_INPUTS for one in (base, *base.__subclasses__())
)


class Batch:
    """Some calls of one instance. To the model that asks, it is the current call: cancelled when all of them are.

    Args:
        calls: Decoded, each with its entry.

    Attributes:
        seconds: What the model took for all of them at once; 0.0 where they had to be tried in parts.
        runs: How often the model was called for them.
        failed: How many did not get a value.
    """

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = calls
        self.seconds = 0.0
        self.runs = 0
        self.failed = 0
        self._began = 0.0
        self._untried = [calls]
        self._outcomes: list[tuple[Call, object]] = []

    @property
    def version(self) -> str:
        return self.calls[0].version

    @property
    def method(self) -> str:
        return self.calls[0].method

    @property
    def deadline(self) -> float | None:
        """The last one: until then somebody waits."""
        deadlines = [call.deadline for call in self.calls if call.deadline is not None]
        return max(deadlines) if len(deadlines) == len(self.calls) else None

    @property
    def cancelled(self) -> bool:
        return all(call.cancelled for call in self.calls)

    def watch(self, action: Callable[[], object]) -> None:
        """Have an action run when nobody waits for any of its calls; at once, if that is so by now."""

        def look() -> None:
            if self.cancelled:
                action()

        for call in self.calls:
            call.watch(look)

    def run(self, predict: BatchPredict) -> None:
        """Have the model work, on this thread; never raises."""
        while part := self._next():
            try:
                with running(self):
                    value = predict.method(predict.inputs([call.entry for call in part]))
                    outputs = asyncio.run(value) if type(value) is CoroutineType else value
            except BaseException as error:
                self._raised(part, error)
            else:
                self._returned(part, outputs, predict)

    async def run_async(self, predict: BatchPredict) -> bool:
        """The same on an event loop; whether it was not cancelled."""
        while part := self._next():
            try:
                with running(self):
                    value = predict.method(predict.inputs([call.entry for call in part]))
                    outputs = await value if inspect.isawaitable(value) else value
            except asyncio.CancelledError:
                return False
            except BaseException as error:
                self._raised(part, error)
            else:
                self._returned(part, outputs, predict)
        return True

    def deliver(self) -> None:
        """Answer every call; never raises."""
        outcomes, self._outcomes = self._outcomes, []
        for call in self.calls:
            call.through = True
        for call, outcome in outcomes:
            if isinstance(outcome, _Failure):
                call.fail(outcome.error)
            else:
                call.finish(outcome)
        if len(outcomes) < len(self.calls):
            # Most of them left while it ran; of a coroutine that was cancelled it is all.
            for call in self.calls:
                call.fail(Cancelled())

    def _next(self) -> Sequence[Call]:
        """Who is to be tried together now; nobody when all have been."""
        while self._untried:
            part = [call for call in self._untried.pop() if not call.answered]
            if part:
                self.runs += 1
                self._began = time.monotonic()
                return part
        return ()

    def _returned(self, part: Sequence[Call], outputs: object, predict: BatchPredict) -> None:
        if self.runs == 1:
            self.seconds = time.monotonic() - self._began
        try:
            values = predict.split(outputs, len(part))
        except ModelError as error:
            # All of the outputs are in doubt, and of the same batch they would be again.
            self._fail(part, error)
            return
        for call, value in zip(part, values, strict=True):
            # The arguments are free from here on, whenever the answer goes out.
            call.entry = UNREAD
            if isinstance(value, BaseException):
                self._fail((call,), returned_error(value))
            else:
                self._outcomes.append((call, value))

    def _raised(self, part: Sequence[Call], error: BaseException) -> None:
        if len(part) > 1 and _may_be_an_inputs(error):
            middle = len(part) // 2
            # The first half is to be the next.
            self._untried += [part[middle:], part[:middle]]
        else:
            self._fail(part, error_of(error))

    def _fail(self, part: Iterable[Call], error: AipodError) -> None:
        for call in part:
            call.entry = UNREAD
            self.failed += 1
            # One of its own for each: it gets an id on its way out.
            self._outcomes.append((call, _Failure(again(error))))


class _Failure(NamedTuple):
    """Told from a value, since a model may return anything."""

    error: AipodError


def _may_be_an_inputs(error: BaseException) -> bool:
    if isinstance(error, ModelError) and error.type in _NOT_THE_INPUTS_NAMES:
        # It was raised in another process, and told from there.
        return False
    if isinstance(error, AipodError):
        return isinstance(error, (InvalidArgument, ModelError)) and not isinstance(error, ModelCrashed)
    return isinstance(error, Exception) and not isinstance(error, _NOT_THE_INPUTS)

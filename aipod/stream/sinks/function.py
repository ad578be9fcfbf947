"""Results handed to a function of the user's. No record, unless the function makes one of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from aipod.errors import AipodError, ConfigError, ModelError, Unavailable
from aipod.stream.result import Result
from aipod.stream.sinks.thread import SinkThread

__all__ = ["FunctionSink"]


class FunctionSink:
    """Calls ``function(result)`` for each :class:`~aipod.stream.result.Result`.

    A plain function runs in a thread of the sink's own, one call after the other; an ``async def`` on the loop, and so
    does whatever awaitable a function returns. The same result may come again after a crash: ``result.identity`` is its
    name. To be asked again, a function raises :class:`~aipod.errors.Unavailable`, or lets an ``OSError`` through, as
    those of connections are.
    """

    def __init__(self, function: Callable[[Result], Any], name: str) -> None:
        self.name = name
        self._function = function
        self._thread = SinkThread("function")

    def __repr__(self) -> str:
        return f"FunctionSink({self.name!r})"

    async def open(self) -> None:
        """Nothing to check: the function was found when the task was read."""

    async def write(self, result: Result) -> None:
        try:
            if inspect.iscoroutinefunction(self._function):
                answer = self._function(result)
            else:
                answer = await self._thread.run(self._function, result)
            if inspect.isawaitable(answer):  # of a function in a decorator, say, whose nature nobody sees before
                await answer
            elif inspect.isgenerator(answer) or inspect.isasyncgen(answer):
                raise ConfigError([f"{self.name} yields, so nothing of it has run; write it without yield"])
        except AipodError:
            raise
        except OSError as error:
            raise Unavailable(f"{self.name}: {type(error).__name__}: {error}", may_have_run=True) from error
        except Exception as error:
            raise ModelError(f"{self.name}: {error}", type(error).__qualname__) from error

    async def close(self) -> None:
        await self._thread.end()

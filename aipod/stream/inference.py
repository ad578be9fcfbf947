"""The model's answer to a window, without the messages that it does not take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from aipod.errors import AipodError, ConfigError, ModelError
from aipod.rpc.client import AsyncAIClient
from aipod.stream.burial import Burial
from aipod.stream.message import Message
from aipod.stream.pauses import Pauses
from aipod.stream.poison import isolate
from aipod.stream.retry import FIRST_PAUSE, LONGEST_PAUSE, Retry, is_inputs, is_of_the_whole
from aipod.stream.statistics import Statistics
from aipod.stream.tasks.model import ModelSpec
from aipod.stream.windows import Window

__all__ = ["Inference", "Predict", "Prepare", "model_of"]

# Both raise errors of our tree: see aipod.stream.retry for what which of them means.
Predict = Callable[[dict[str, Any]], Awaitable[Any]]
Prepare = Callable[[Window], dict[str, Any]]


@asynccontextmanager
async def model_of(spec: ModelSpec) -> AsyncIterator[Predict]:
    """Give the way to a task's model."""
    client = AsyncAIClient(spec.address, spec.version, spec.timeout)
    # Trying again is ours: without end, and with longer pauses.
    calling = client.options(retry=0)

    async def predict(arguments: dict[str, Any]) -> Any:
        return await calling.predict(**arguments)

    try:
        yield predict
    finally:
        await client.close()


class Inference:
    """Asks a model.

    Args:
        predict: Calls it; raises as the client does.
        prepare: A window to the model's arguments.
        retry: Tries again while the model is away.
        burial: For what it does not take.
    """

    def __init__(
        self, predict: Predict, prepare: Prepare, retry: Retry, burial: Burial, statistics: Statistics
    ) -> None:
        self._predict = predict
        self._prepare = prepare
        self._retry = retry
        self._burial = burial
        self._statistics = statistics
        # A message can be in several windows, and is isolated in one of them: kept until all of them are done.
        self._poison: set[int] = set()

    @property
    def away(self) -> bool:
        """Whether the model is."""
        return self._retry.away

    async def answer(self, window: Window) -> tuple[Sequence[Message], Any]:
        """Ask until there is an answer; the members that it is for, none if the model takes none, and the answer.

        What the model does not take has been buried when this returns.

        Raises:
            TaskStopped: It takes too few.
            AipodError: Neither is the input to blame nor will it pass; see :mod:`aipod.stream.retry`.
        """
        members: Sequence[Message] = window.messages
        refused: set[int] = set()
        pauses = Pauses(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            if self._poison or refused:
                members = [one for one in members if one.seq not in self._poison and one.seq not in refused]
            if not members:
                return (), None
            error, value = await self._ask(window, members)
            if error is None:
                return members, value
            guilty = await self._guilty(window, members, error)
            if guilty:
                refused.update(message.seq for message, _ in guilty)
                await self._bury(window, guilty)
            else:
                await asyncio.sleep(pauses.next())  # it was the model's trouble, and is over

    def forget(self, released: Iterable[int]) -> None:
        """Take note that these positions are in no window any more."""
        self._poison.difference_update(released)

    async def _guilty(
        self, window: Window, members: Sequence[Message], error: AipodError
    ) -> list[tuple[Message, AipodError]]:
        """List who is to blame for an error, and what was said of each; nobody if they all pass now."""
        found = 0

        async def probe(subset: Sequence[Message]) -> AipodError | None:
            nonlocal found
            why, _ = await self._ask(window, subset)
            if why is not None and len(subset) == 1:
                found += 1
                self._burial.afford(found)  # if these are too many already, the others need not be found
            return why

        singly = is_of_the_whole(error)
        guilty = await isolate(members, error, probe, singly=singly)
        if not guilty and singly:
            # Nobody's fault but the task's: to bury them would lose what smaller windows can use.
            raise ConfigError(
                [
                    f"a window of {len(members)} messages is too much for one request ({error}); "
                    "make the windows smaller (size, max_messages), or give the model columns"
                ]
            )
        return [(members[position], why) for position, why in guilty.items()]

    async def _bury(self, window: Window, guilty: Sequence[tuple[Message, AipodError]]) -> None:
        shared = {message.seq for message in window.unsettled([message for message, _ in guilty])}
        for message, why in guilty:
            if message.seq not in self._poison:  # another window that holds it may have been quicker
                if message.seq in shared:
                    self._poison.add(message.seq)
                await self._burial.bury([message], f"the model does not take it: {why}", why)
                self._statistics.poison += 1

    async def _ask(self, window: Window, members: Sequence[Message]) -> tuple[AipodError | None, Any]:
        """Ask about some of a window. An error is theirs, and came twice where the model's own code raised it."""
        asked = window if members is window.messages else window._replace(messages=tuple(members))
        for last in (False, True):
            try:
                return None, await self._retry(partial(self._call, self._prepare(asked)))
            except AipodError as error:
                if not is_inputs(error):
                    raise
                if last or not isinstance(error, ModelError):
                    return error, None
        raise AssertionError("unreachable")

    async def _call(self, arguments: dict[str, Any]) -> Any:
        began = time.monotonic()
        value = await self._predict(arguments)
        self._statistics.predict_seconds.add(time.monotonic() - began)
        return value

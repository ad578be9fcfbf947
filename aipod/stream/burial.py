"""Dead letters, and the point at which there are too many of them.

A message that cannot be used must not stop its stream. But where most messages cannot be used it is the task that is
wrong, or the model, and then the stream is better left where it is than emptied into the dead letters.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from aipod.stream.errors import TaskStopped
from aipod.stream.message import Message
from aipod.stream.retry import Retry
from aipod.stream.statistics import Statistics

__all__ = ["Burial", "Letters", "Limits"]

# Published at once, where a whole window goes.
_TOGETHER = 64
# A line of the log at most every so many seconds: a bad hour has thousands of letters.
_LOG_SECONDS = 10.0

_log = logging.getLogger("aipod.stream")


class Letters(Protocol):
    """Where dead letters go."""

    async def bury(self, message: Message, reason: str, error: BaseException | None = None) -> None:
        """Return when the letter is durable; buried twice, it is there once.

        Raises:
            Unavailable: To be tried again.
        """


class Limits(Protocol):
    """More than ``max_ratio`` of the last ``over`` messages are too many, once there were ``min_count`` messages."""

    @property
    def max_ratio(self) -> float: ...
    @property
    def min_count(self) -> int: ...
    @property
    def over(self) -> int: ...


class Burial:
    """Buries messages, and counts.

    Args:
        task: The task's name.
        letters: Where they go.
        limits: How many are too many.
        retry: Tries again while the other side is away.
        statistics: Counts them.
        lead: Raises if another process has taken over.
    """

    def __init__(
        self,
        task: str,
        letters: Letters,
        limits: Limits,
        retry: Retry,
        statistics: Statistics,
        lead: Callable[[], None] = lambda: None,
        log: logging.Logger = _log,
    ) -> None:
        self._task = task
        self._letters = letters
        self._limits = limits
        self._retry = retry
        self._statistics = statistics
        self._lead = lead
        self._log = log
        self._silent_until = 0.0
        self._unsaid = 0
        self._seen = 0
        self._dead: deque[int] = deque()  # for each of the last dead letters, how many messages had been seen

    def passed(self, count: int) -> None:
        """Count messages that were taken from the source."""
        self._seen += count

    def afford(self, count: int) -> None:
        """Make sure that so many more dead letters would not be too many.

        Raises:
            TaskStopped: They would; the sentence has the numbers.
        """
        limits = self._limits
        while self._dead and self._dead[0] <= self._seen - limits.over:
            self._dead.popleft()
        dead, seen = len(self._dead) + count, min(self._seen, limits.over)
        if seen >= limits.min_count and dead > limits.max_ratio * seen:
            raise TaskStopped(
                self._task,
                f"{dead} of the last {seen} messages would be dead letters, more than {limits.max_ratio:.0%}; "
                "the task or its model is wrong rather than they: mend it and start the task again",
            )

    async def bury(self, messages: Sequence[Message], reason: str, error: BaseException | None = None) -> None:
        """Put messages into the dead letters; they may be acknowledged afterwards.

        Raises:
            TaskStopped: There are too many dead letters; none of these has been buried.
        """
        self.afford(len(messages))
        self._dead.extend([self._seen] * len(messages))
        for first in range(0, len(messages), _TOGETHER):
            await _all([self._bury(message, reason, error) for message in messages[first : first + _TOGETHER]])
        self._statistics.dead += len(messages)
        if messages:
            self._say(len(messages), messages[0], reason)

    def _say(self, count: int, first: Message, reason: str) -> None:
        self._unsaid += count
        now = time.monotonic()
        if now >= self._silent_until:
            self._log.warning("%d dead letters; of message %d: %s", self._unsaid, first.seq, reason)
            self._unsaid, self._silent_until = 0, now + _LOG_SECONDS

    async def _bury(self, message: Message, reason: str, error: BaseException | None) -> None:
        async def attempt() -> None:
            self._lead()
            await self._letters.bury(message, reason, error)

        await self._retry(attempt)


async def _all(burials: Sequence[Coroutine[Any, Any, None]]) -> None:
    tasks = [asyncio.ensure_future(burial) for burial in burials]
    try:
        await asyncio.gather(*tasks)
    finally:
        # One failed, so none of the others may go on by itself.
        for task in tasks:
            task.cancel()

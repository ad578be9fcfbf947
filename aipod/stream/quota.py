"""How many partitions of a task one process may hold, so that all processes of the task share them."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aipod.errors import AipodError
from aipod.stream.broker.lease import Membership
from aipod.stream.retry import LONGEST_PAUSE, Retry

__all__ = ["Quota"]

_log = logging.getLogger("aipod.stream")

T = TypeVar("T")


class Quota:
    """Belongs to one event loop. Whoever takes a place gives it back, or loses it.

    Attributes:
        limit: How many places there are; may fall below what is taken. None while nobody knows: then there is none.
    """

    def __init__(self, limit: float | None = math.inf) -> None:
        self.limit = limit
        self._taken = 0
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Quota {self._taken} of {self.limit}>"

    @property
    def full(self) -> bool:
        """Whether there is no place."""
        return self.limit is None or self._taken >= self.limit

    async def known(self) -> None:
        """Wait until it is known how many places there are."""
        while self.limit is None:
            self._changed.clear()
            await self._changed.wait()

    async def room(self) -> None:
        """Wait until there is a place; by the time one comes to take it, it can be gone."""
        while self.full:
            self._changed.clear()
            await self._changed.wait()

    def take(self) -> bool:
        """Take a place, if there is one."""
        if self.full:
            return False
        self._taken += 1
        return True

    def give(self) -> None:
        self._taken -= 1
        self._changed.set()

    async def surplus(self) -> None:
        """Wait, with a place, until more are taken than there may be; and lose it."""
        while self.limit is None or self._taken <= self.limit:
            self._changed.clear()
            await self._changed.wait()
        self._taken -= 1

    async def follow(self, membership: Membership, total: int, every: float) -> None:
        """Keep the limit at the fair share of ``total``, for ever; nothing is allowed before that is known."""
        self.limit = None
        retry = Retry(f"the processes of the task ({membership.key})", _log)
        try:
            await _answered(retry, membership.join)
            while True:
                self.limit = await _answered(retry, lambda: membership.share(total))
                self._changed.set()
                await asyncio.sleep(every)
        finally:
            await membership.leave()


async def _answered(retry: Retry, question: Callable[[], Awaitable[T]]) -> T:
    """Ask until there is an answer, also where somebody must mend something first; that is said once."""
    said = ""
    while True:
        try:
            return await retry(question)
        except AipodError as error:
            if said != (said := str(error)):
                _log.error("%s; trying again until it works", error)
            await asyncio.sleep(LONGEST_PAUSE)

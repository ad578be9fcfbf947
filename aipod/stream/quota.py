"""How many partitions of a task one process may hold, so that all processes of the task share them."""

from __future__ import annotations

import asyncio
import logging
import math

from aipod.errors import AipodError
from aipod.stream.broker.lease import Membership

__all__ = ["Quota"]

_log = logging.getLogger("aipod.stream")


class Quota:
    """Belongs to one event loop. Whoever takes a place gives it back, or loses it.

    Attributes:
        limit: How many places there are; may fall below what is taken.
    """

    def __init__(self, limit: float = math.inf) -> None:
        self.limit = limit
        self._taken = 0
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Quota {self._taken} of {self.limit}>"

    async def room(self) -> None:
        """Wait until there is a place; by the time one comes to take it, it can be gone."""
        while self._taken >= self.limit:
            self._changed.clear()
            await self._changed.wait()

    def take(self) -> bool:
        """Take a place, if there is one."""
        if self._taken >= self.limit:
            return False
        self._taken += 1
        return True

    def give(self) -> None:
        self._taken -= 1
        self._changed.set()

    async def surplus(self) -> None:
        """Wait, with a place, until more are taken than there may be; and lose it."""
        while self._taken <= self.limit:
            self._changed.clear()
            await self._changed.wait()
        self._taken -= 1

    async def follow(self, membership: Membership, total: int, every: float) -> None:
        """Keep the limit at the fair share of ``total``, for ever; nothing is allowed before that is known."""
        self.limit = 0
        try:
            while True:
                try:
                    await membership.join()
                    break
                except AipodError as error:
                    _log.debug("%s: %s", membership.key, error)
                    await asyncio.sleep(every)
            while True:
                try:
                    self.limit = await membership.share(total)
                    self._changed.set()
                except AipodError as error:  # as it was, until somebody answers
                    _log.debug("%s: %s", membership.key, error)
                await asyncio.sleep(every)
        finally:
            await membership.leave()

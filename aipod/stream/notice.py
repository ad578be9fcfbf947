"""Why a partition of a task does not run, for those who ask the broker: an entry beside its lease that outlives it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from aipod.errors import AipodError
from aipod.stream.broker.bucket import Bucket, peek, token
from aipod.stream.broker.connection import Connection
from aipod.stream.ending import end

__all__ = ["Notice", "notice_key"]

_log = logging.getLogger("aipod.stream")

# Seconds that the broker has for it: whoever reads it can wait, and whoever writes it has other work.
_PATIENCE = 2.0
_LONGEST = 2000


def notice_key(task: str, partition: int) -> str:
    return f"state.{token(task)}.{partition}"


class Notice:
    """Of one partition, whoever runs it. Nothing here raises: where the broker does not take it, the log has it.

    Belongs to the loop, and is used by one task at a time; :meth:`settle` is its end.
    """

    def __init__(self, conn: Connection, bucket: str, task: str, partition: int, holder: str) -> None:
        self._conn = conn
        self._bucket = Bucket(conn, bucket)
        self._key = notice_key(task, partition)
        self._holder = holder
        self._removing: asyncio.Task[None] | None = None

    async def put_up(self, state: str, problem: str) -> None:
        """Say that it does not run, and why."""
        await self.settle()
        value = {"holder": self._holder, "state": state, "problem": problem[:_LONGEST]}
        if self._conn.connected:
            await self._try(self._bucket.put(self._key, value))

    def take_down(self) -> None:
        """It runs: see to it that nobody says otherwise."""
        if self._removing is None:
            self._removing = asyncio.ensure_future(self._try(self._remove()))

    async def settle(self) -> None:
        """Wait, for a while, until what is under way is done."""
        removing, self._removing = self._removing, None
        if removing is not None:
            try:
                await asyncio.wait({removing}, timeout=_PATIENCE)
            finally:
                await end({removing})

    async def _remove(self) -> None:
        found, _ = await peek(self._conn, self._bucket.name, self._key)
        if found:
            await self._bucket.remove(self._key)

    async def _try(self, work: Coroutine[Any, Any, object]) -> None:
        try:
            await asyncio.wait_for(work, _PATIENCE)
        except (AipodError, asyncio.TimeoutError) as error:
            _log.debug("%s: %s", self._key, error)

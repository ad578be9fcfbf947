"""One partition of one task, for as long as it is wanted: tenure after tenure.

A tenure is the time in which this process has the lease. In it, things go on side by side: the feed, the operator, and
the watch over the lease. When it ends because another process has taken over, or because the record knows better,
another one begins, or waits to.

To cancel :meth:`Pipeline.run` is to ask it to leave: what is in flight is finished within the grace, what is open is
given back for a successor, and the lease last. To cancel it once more is to leave at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal

from aipod.errors import ConfigError
from aipod.stream.broker.connection import Connection
from aipod.stream.broker.lease import Lease
from aipod.stream.ending import end, first_of
from aipod.stream.errors import Diverged, Fenced
from aipod.stream.pauses import Pauses
from aipod.stream.quota import Quota
from aipod.stream.result import Identity
from aipod.stream.retry import FIRST_PAUSE, LONGEST_PAUSE
from aipod.stream.statistics import Statistics
from aipod.stream.tasks import StreamTask
from aipod.stream.tasks.digest import differences, digest
from aipod.stream.tenure import Tenure, consumer_of

__all__ = ["BUCKET", "Pipeline", "State", "consumer_of", "logger_of"]

State = Literal["starting", "standby", "running"]

# Where processes settle who runs what.
BUCKET = "aipod"

_PUBLISH_SECONDS = 2.0


def logger_of(task: StreamTask, partition: int) -> logging.Logger:
    """Give the logger of a partition, named after its task."""
    name = task.name if task.partitions == 1 else f"{task.name}/{partition}"
    return logging.getLogger(f"aipod.stream.{name}")


class Pipeline:
    """Runs a partition of a task.

    Args:
        connection: To the task's broker; open, and its owner's.
        holder: Names this process to others that contend for the lease.
        grace: Seconds for what is in flight when it is asked to leave.
        quota: Says how many partitions of the task this process may hold; None for all.
        statistics: Counts on, over several pipelines of the same partition.
        on_state: Called when it comes so far.
    """

    def __init__(
        self,
        task: StreamTask,
        partition: int,
        connection: Connection,
        *,
        holder: str,
        grace: float = 10.0,
        quota: Quota | None = None,
        statistics: Statistics | None = None,
        on_state: Callable[[State], None] = lambda state: None,
    ) -> None:
        self.statistics = statistics or Statistics()
        self._task = task
        self._partition = partition
        self._connection = connection
        self._holder = holder
        self._grace = grace
        self._once = False
        self._quota = quota or Quota()
        self._placed = False
        self._leave = asyncio.Event()
        # Whether it leaves by itself when told to; before that there is nothing to be finished.
        self._at_work = False
        self._on_state = on_state
        self._log = logger_of(task, partition)

    async def run(self, *, once: bool = False) -> None:
        """Run until cancelled; or, with ``once``, until everything that is there has become results.

        Raises:
            TaskStopped: For good.
            AipodError: Somebody has to mend something, or the broker lost what we stood on; it may be run again.
        """
        self._once = once
        running = asyncio.ensure_future(self._run())
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError:
            self._leave.set()
            if self._at_work:
                await asyncio.wait({running})  # it leaves by itself
            raise
        finally:
            await end({running})
        running.result()

    async def _run(self) -> None:
        pauses = Pauses(FIRST_PAUSE, LONGEST_PAUSE)
        before: Identity | None = None
        while not self._leave.is_set():
            self._at_work = False
            self._on_state("starting")
            try:
                async with self._leading() as lease:
                    return await self._tenure(lease)
            except _Left:
                return
            except _Surplus:
                self._log.info("another process has come to share the task; this partition is left to it")
                continue
            except Fenced:
                self._log.warning("another process has taken over; standing by")
            except Diverged as error:
                # The record knows what we did not when we asked it. Asked again, it is obeyed.
                if before == (before := error.recorded.identity):
                    raise ConfigError([_conflicting(self._task, error)]) from error
                self._log.warning("%s; starting afresh from the record", error)
            self.statistics.restarts += 1
            if not self._leave.is_set():
                self._at_work = False
                await asyncio.sleep(pauses.next())

    @asynccontextmanager
    async def _leading(self) -> AsyncIterator[Lease | None]:
        if not self._task.lease:
            yield None
            return
        lease = Lease(
            self._connection,
            BUCKET,
            self._task.name,
            self._partition,
            self._holder,
            ttl=self._task.lease_ttl,
            about={"task": digest(self._task)},
            log=self._log,
        )
        try:
            while not self._placed:
                await self._quota.known()
                if self._quota.full:
                    self._on_state("standby")
                await self._quota.room()
                await lease.acquire(self._meet)
                self._placed = self._quota.take()
                if not self._placed:
                    await lease.release()
            self.statistics.takeovers += 1
            yield lease
        finally:
            await lease.release()
            if self._placed:
                self._placed = False
                self._quota.give()

    def _meet(self, entry: Mapping[str, Any]) -> None:
        holder = entry.get("holder", "another process")
        self._on_state("standby")
        self._log.info("standing by: %s runs it", holder)
        if differing := differences(digest(self._task), entry.get("task")):
            what = ", ".join(differing)
            self._log.warning("%s runs another task of this name, which differs in: %s; rename one", holder, what)

    async def _tenure(self, lease: Lease | None) -> None:
        async with Tenure(self._task, self._partition, self._connection, lease, self.statistics, self._log) as tenure:
            self._on_state("running")
            await self._work(tenure, lease)

    async def _work(self, tenure: Tenure, lease: Lease | None) -> None:
        self._at_work = True
        feed, operator = tenure.feed, tenure.feed.operator
        try:
            await first_of(
                feed.run(once=self._once), operator.failure(), self._watch(lease), self._surplus(), self._left()
            )
        except (_Left, _Surplus):
            # Whatever these fail with now, their messages come again.
            if not operator.stuck:
                with suppress(Exception):
                    await asyncio.wait_for(operator.drain(), self._grace)
            raise

    async def _watch(self, lease: Lease | None) -> None:
        if lease is None:
            await asyncio.Event().wait()
            return
        while not lease.lost.is_set():
            lease.publish(self.statistics.as_dict())
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(lease.lost.wait(), _PUBLISH_SECONDS)
        raise Fenced(self._task.name)

    async def _surplus(self) -> None:
        await self._quota.surplus()
        self._placed = False
        raise _Surplus

    async def _left(self) -> None:
        await self._leave.wait()
        raise _Left


class _Left(Exception):
    """It was asked to leave."""


class _Surplus(Exception):
    """This process holds more partitions than its share."""


def _conflicting(task: StreamTask, error: Diverged) -> str:
    return (
        f"{error}, and does not say so when it is asked: it is of another stream, of one that was made anew, or of "
        f"windows of another size; give task {task.name!r} another name, or another sink"
    )

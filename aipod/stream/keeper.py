"""Keeps one partition of one task running: begun anew when it fails, with growing pauses.

What failed may have been mended meanwhile (a password, a table, a missing stream), so every error is tried again, a
minute apart at most. Only :class:`~aipod.stream.errors.TaskStopped` and :class:`~aipod.stream.errors.LostEnd` are
final: the task stays stopped until it is changed, or the process is started again, since to go on would lose messages,
into the dead letters or for good.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from aipod.errors import AipodError
from aipod.stream import pipeline
from aipod.stream.broker.connection import Connect, Connection
from aipod.stream.errors import LostEnd, TaskStopped
from aipod.stream.notice import Notice
from aipod.stream.pauses import Pauses
from aipod.stream.pipeline import BUCKET, Pipeline, logger_of
from aipod.stream.quota import Quota
from aipod.stream.statistics import Statistics
from aipod.stream.tasks import StreamTask

__all__ = ["Keeper", "State"]

State = Literal["starting", "standby", "running", "failed", "stopped", "done"]


class Keeper:
    """Belongs to one event loop.

    Args:
        connected: Gives the connection to a broker, however long that takes.
        quota: As for :class:`~aipod.stream.pipeline.Pipeline`.
        once: Whether to end when everything that is there has become results; then an error ends it, too.
        changed: Called whenever ``state`` changes.

    Attributes:
        state: ``failed`` waits before it begins anew; ``stopped`` is final, and ``done`` the end of ``once``.
        problem: Why it failed or stopped.
    """

    def __init__(
        self,
        task: StreamTask,
        partition: int,
        connected: Callable[[Connect], Awaitable[Connection]],
        *,
        holder: str,
        grace: float,
        once: bool = False,
        quota: Quota | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.task = task
        self.partition = partition
        self.state: State = "starting"
        self.problem = ""
        self.statistics = Statistics()
        self._connected = connected
        self._holder = holder
        self._grace = grace
        self._once = once
        self._quota = quota
        self._changed = changed
        self._notice: Notice | None = None
        self._pauses = Pauses(0.5, 60.0, 60.0)

    def __repr__(self) -> str:
        return f"<Keeper {self.task.name}/{self.partition} {self.state}>"

    async def run(self) -> None:
        """Run until cancelled, which leaves in order; or, with ``once``, until all is done.

        Raises:
            AipodError: With ``once``, what ended it.
        """
        while True:
            began = time.monotonic()
            try:
                await self._run()
                self._enter("done")
                return
            except (TaskStopped, LostEnd) as error:
                await self._fail("stopped", error)
                if self._once:
                    raise
                await asyncio.Event().wait()
            except Exception as error:
                if self._once:
                    await self._fail("failed", error)
                    raise
                pause = self._pauses.next(time.monotonic() - began)
                await self._fail("failed", error, f"; trying again in {pause:.1f} s")
            self.statistics.restarts += 1
            await asyncio.sleep(pause)

    def as_dict(self) -> dict[str, Any]:
        return {"state": self.state, "problem": self.problem, **self.statistics.as_dict()}

    async def _run(self) -> None:
        self._enter("starting")
        connection = await self._connected(self.task.source.connect)
        self._notice = Notice(connection, BUCKET, self.task.name, self.partition, self._holder)
        pipeline = Pipeline(
            self.task,
            self.partition,
            connection,
            holder=self._holder,
            grace=self._grace,
            quota=self._quota,
            statistics=self.statistics,
            on_state=self._enter,
        )
        try:
            await pipeline.run(once=self._once)
        finally:
            await self._notice.settle()

    async def _fail(self, state: State, error: Exception, more: str = "") -> None:
        # What is not of our tree is a bug, of ours or of a user's function, and its traceback is wanted.
        trace = None if isinstance(error, AipodError) else error
        logger_of(self.task, self.partition).error("%s: %s%s", state, error, more, exc_info=trace)
        problem = str(error) or type(error).__name__
        if self._notice is not None:  # first, since a process whose last task has stopped ends with that
            await self._notice.put_up(state, problem)
        self._enter(state, problem)

    def _enter(self, state: State | pipeline.State, problem: str = "") -> None:
        if state == "running" or problem:
            self.problem = problem
        self.state = state
        if state == "running" and self._notice is not None:
            self._notice.take_down()
        self._changed()

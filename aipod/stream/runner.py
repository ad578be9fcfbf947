"""Many tasks in one process: each by itself, so that none takes another down.

Tasks are a list that stays, or come from a provider that is asked again every so often: what is new is started, what
has changed is drained and started as it is now, what has vanished is drained; the others notice nothing of it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Callable, Collection, Sequence
from typing import Any

from aipod.errors import AipodError, ConfigError, Unavailable
from aipod.stream.broker.connection import Connect, Connection, connect
from aipod.stream.broker.lease import Membership
from aipod.stream.ending import end, first_of
from aipod.stream.keeper import Keeper
from aipod.stream.pipeline import BUCKET
from aipod.stream.quota import Quota
from aipod.stream.statistics import merged
from aipod.stream.supervisor import Share
from aipod.stream.tasks import Provider, StreamTask

__all__ = ["Runner"]

_log = logging.getLogger("aipod.stream")

_INTERVAL = 30.0
# Seconds after which a broker that does not answer is worth a line of the log.
_PATIENCE = 1.0


class Runner:
    """Runs tasks. Belongs to the event loop that :meth:`run` is awaited on.

    Args:
        tasks: Those that always run.
        provider: Says which others there are; asked every ``interval`` seconds.
        grace: Seconds for what is in flight when it is told to stop.
        once: Whether to end when everything that is there has become results; a provider is then asked once.
        share: Which of several workers this process is; None runs everything.
        on_serving: Called with whether all is well, whenever that changes: every task runs or stands by, and its broker
            is there.
    """

    def __init__(
        self,
        tasks: Sequence[StreamTask] = (),
        *,
        provider: Provider | None = None,
        interval: float = _INTERVAL,
        grace: float = 10.0,
        once: bool = False,
        share: Share | None = None,
        on_serving: Callable[[bool], None] = lambda serving: None,
    ) -> None:
        self.holder = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._fixed = [task for place, task in enumerate(tasks) if _is_ours(share, task, place)]
        self._provider = provider
        self._interval = interval
        self._grace = grace
        self._once = once
        self._share = share
        self._on_serving = on_serving
        self._serving: bool | None = None
        self._begun = False
        self._last: dict[str, Any] = {}
        self._stop = asyncio.Event()
        self._over = asyncio.Event()
        self._crews: dict[str, _Crew] = {}
        self._brokers: dict[Connect, asyncio.Task[Connection]] = {}

    def __repr__(self) -> str:
        return f"<Runner of {', '.join(self._crews) or 'nothing'}>"

    @property
    def serving(self) -> bool:
        """Whether every task runs or stands by, and every broker is there."""
        crews = self._crews.values()
        return self._begun and all(crew.serving for crew in crews) and all(map(_is_there, self._brokers.values()))

    def stop(self) -> None:
        """Have :meth:`run` end in order; on its loop."""
        self._stop.set()

    def statistics(self) -> dict[str, Any]:
        """Say what each task has done; when all has ended, the last that there was to say.

        By name: the sum of what :meth:`~aipod.stream.statistics.Statistics.as_dict` says of its partitions, and under
        ``partitions`` each of them, with its ``state`` and ``problem``.
        """
        return {name: crew.as_dict() for name, crew in self._crews.items()} or self._last

    async def run(self) -> None:
        """Run until :meth:`stop`, or with ``once`` until all is done.

        Raises:
            ConfigError: The provider's first answer makes no sense.
            Unavailable: Every task has stopped for good, and nobody can bring another.
            AipodError: With ``once``, what a task ended with; the others have come to their end.
        """
        try:
            if self._provider is not None:
                await self._ask(self._provider)
            else:
                await self._change(self._fixed)
            if self._once:
                await first_of(self._stop.wait(), self._finish())
            elif self._provider is not None:
                await first_of(self._stop.wait(), self._poll(self._provider))
            else:
                await first_of(self._stop.wait(), self._until_over())
        finally:
            crews = dict(self._crews)
            await self._change([])
            self._last = {name: crew.as_dict() for name, crew in crews.items()}

    async def _finish(self) -> None:
        await asyncio.gather(*(crew.finish() for crew in self._crews.values()), return_exceptions=True)
        for crew in self._crews.values():
            await crew.finish()

    async def _until_over(self) -> None:
        # A worker stays: its supervisor would start it again, and what has stopped must not go on by itself.
        if self._share is not None:
            await asyncio.Event().wait()
        await self._over.wait()
        raise Unavailable("every task has stopped for good; the log says why")

    async def _poll(self, provider: Provider) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self._ask(provider)
            except AipodError as error:
                _log.error("the tasks stay as they are: %s", error)

    async def _ask(self, provider: Provider) -> None:
        given = [task for task in await provider.tasks() if _is_ours(self._share, task, None)]
        names = {task.name for task in self._fixed}
        if both := sorted(names & {task.name for task in given}):
            raise ConfigError([f"task {both[0]!r} comes from the provider and from elsewhere; give one another name"])
        await self._change([*self._fixed, *given])

    async def _change(self, wanted: Sequence[StreamTask]) -> None:
        """Make the tasks that run the ones that are wanted."""
        names = {task.name: task for task in wanted}
        gone = [name for name, crew in self._crews.items() if names.get(name) != crew.task]
        # At once: the grace is the same for all.
        await asyncio.gather(*(self._crews[name].leave() for name in gone))
        for name in gone:
            del self._crews[name]
        for name, task in names.items():
            if name not in self._crews:
                self._crews[name] = crew = _Crew(task, self)
                crew.start()
        await self._disconnect({task.source.connect for task in names.values()})
        self._begun = True
        self._look()

    def _look(self) -> None:
        if self._crews and all(crew.stopped for crew in self._crews.values()):
            self._over.set()
        serving = self.serving
        if serving is not self._serving:
            self._serving = serving
            self._on_serving(serving)

    def keeper(self, task: StreamTask, partition: int, quota: Quota) -> Keeper:
        """Make who keeps a partition."""
        return Keeper(
            task,
            partition,
            self.connected,
            holder=self.holder,
            grace=self._grace,
            once=self._once,
            quota=quota,
            changed=self._look,
        )

    async def connected(self, spec: Connect) -> Connection:
        """Give the connection to a broker; all tasks of one broker share it."""
        dialing = self._brokers.get(spec)
        if dialing is None or (dialing.done() and dialing.exception() is not None):
            dialing = self._brokers[spec] = asyncio.ensure_future(self._dial(spec))
        return await asyncio.shield(dialing)

    async def _dial(self, spec: Connect) -> Connection:
        def changed(connected: bool) -> None:
            self._look()

        try:
            return await connect(spec, wait=_PATIENCE, on_change=changed)
        except Unavailable:
            _log.warning("the broker at %s is away; trying again until it is there", spec.where)
        return await connect(spec, on_change=changed)

    async def _disconnect(self, wanted: Collection[Connect]) -> None:
        """Close the connections to all brokers but these."""
        for spec in self._brokers.keys() - wanted:
            dialing = self._brokers.pop(spec)
            await end({dialing})
            if not dialing.cancelled() and dialing.exception() is None:
                await dialing.result().close()


class _Crew:
    """Those who keep the partitions of one task."""

    def __init__(self, task: StreamTask, runner: Runner) -> None:
        self.task = task
        self._runner = runner
        shared = task.lease and task.partitions > 1
        self._quota = Quota(None if shared else task.partitions)
        self._keepers = [runner.keeper(task, partition, self._quota) for partition in range(task.partitions)]
        self._running: list[asyncio.Task[None]] = []
        self._sharing = asyncio.ensure_future(self._share()) if shared else None

    @property
    def serving(self) -> bool:
        return all(keeper.state in ("standby", "running", "done") for keeper in self._keepers)

    @property
    def stopped(self) -> bool:
        return all(keeper.state == "stopped" for keeper in self._keepers)

    def start(self) -> None:
        self._running = [asyncio.ensure_future(keeper.run()) for keeper in self._keepers]

    async def finish(self) -> None:
        await asyncio.gather(*self._running)

    async def leave(self) -> None:
        # Once: twice would be "at once".
        for running in self._running:
            running.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        if self._sharing is not None:
            await end({self._sharing})

    async def _share(self) -> None:
        task = self.task
        while True:
            try:
                connection = await self._runner.connected(task.source.connect)
                break
            except AipodError as error:  # the keepers say so
                _log.debug("%s: %s", task.name, error)
                await asyncio.sleep(task.lease_ttl)
        membership = Membership(connection, BUCKET, task.name, self._runner.holder, task.lease_ttl)
        await self._quota.follow(membership, task.partitions, task.lease_ttl / 3)

    def as_dict(self) -> dict[str, Any]:
        parts = [keeper.as_dict() for keeper in self._keepers]
        return {**merged(parts), "partitions": parts}


def _is_ours(share: Share | None, task: StreamTask, place: int | None) -> bool:
    return share is None or share.has(task.name, task.partitions, place)


def _is_there(dialing: asyncio.Task[Connection]) -> bool:
    return dialing.done() and not dialing.cancelled() and dialing.exception() is None and dialing.result().connected

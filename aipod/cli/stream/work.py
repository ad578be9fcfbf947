"""Tasks at work: in this process, in several, or only in words."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from aipod.cli.stream.check import show
from aipod.cli.stream.running import PATIENCE, follow_supervisor, run_until_told
from aipod.errors import Unavailable
from aipod.memory import collect_seldom, settle_heap
from aipod.rpc.health import HealthServer
from aipod.stream.broker.connection import connect
from aipod.stream.plan import outline, plan
from aipod.stream.runner import Runner
from aipod.stream.supervisor import NOT_SERVING, SERVING, Share, Supervisor
from aipod.stream.tasks import Provider, StreamTask, open_provider

__all__ = ["Way", "foretell", "supervise", "tell", "work"]

_log = logging.getLogger("aipod.stream")

# Of the grace, what the work may take; the rest is for the end of the process.
_WORK = 0.9


@dataclass(frozen=True)
class Way:
    """How tasks are run.

    Attributes:
        grace: Seconds from the signal to the end of the process.
        once: Whether to end when everything that is there has become results.
        health: Where to answer health checks, as ``host:port``; None does not.
        provider: Whom to ask for tasks, every ``interval`` seconds.
        only: Of the provider's tasks those of these names alone; none means all.
        share: Which of several workers this is.
    """

    grace: float
    once: bool = False
    health: str | None = None
    provider: str | None = None
    only: tuple[str, ...] = ()
    interval: float = 30.0
    share: Share | None = None


def work(tasks: Sequence[StreamTask], way: Way) -> None:
    """Run tasks in this process until a signal comes.

    Raises:
        AipodError: What cannot begin; with ``once``, also what a task ended with.
    """

    settle_heap()
    collect_seldom()

    async def main(stop: asyncio.Event) -> None:
        lifeline = follow_supervisor() if way.share is not None else None
        async with _health(way) as say, _asked(way) as provider:

            def on_serving(serving: bool) -> None:
                say(serving)
                if lifeline is not None:
                    lifeline.tell(SERVING if serving else NOT_SERVING)

            runner = Runner(
                tasks,
                provider=provider,
                interval=way.interval,
                grace=way.grace * _WORK,
                once=way.once,
                share=way.share,
                on_serving=on_serving,
            )
            try:
                await _run(runner, stop)
            finally:
                if way.once:
                    for name, statistics in runner.statistics().items():
                        tell(name, statistics)

    run_until_told(main, way.grace)


def tell(name: str, statistics: Mapping[str, Any]) -> None:
    """Log what a task has done."""
    done = statistics["counters"]
    # Each partition reads all of them.
    messages = max(part["counters"]["messages"] for part in statistics.get("partitions") or [statistics])
    _log.info(
        "%s: %d messages became %d results; %d were late, and there are %d dead letters",
        *(name, messages, done["results"], done["late"], done["dead"]),
    )


def supervise(workers: int, way: Way) -> None:
    """Have several processes run this process's command line, each with a share, until a signal comes."""

    async def main(stop: asyncio.Event) -> None:
        async with _health(way) as say:
            supervisor = Supervisor(
                lambda number: _worker(Share(number, workers)), workers, grace=way.grace, once=way.once, on_health=say
            )
            await _run(supervisor, stop)

    # The workers have the grace; whoever waits for them needs a moment more.
    run_until_told(main, way.grace + 1.0)


async def foretell(tasks: Sequence[StreamTask]) -> None:
    """Print what tasks do, and how everything is that they need.

    Raises:
        Unavailable: A broker is away, or some task could not run.
    """
    lacking = 0
    for task in tasks:
        connection = await connect(task.source.connect, wait=PATIENCE)
        try:
            findings = [*outline(task), *await plan(connection, task)]
        finally:
            await connection.close()
        show(task.name, findings)
        lacking += not all(finding.good for finding in findings)
    if lacking:
        raise Unavailable(f"{lacking} of {len(tasks)} tasks cannot run like this; see PROBLEM above")


def _worker(share: Share) -> list[str]:
    argv = list(sys.orig_argv)
    argv[0] = sys.executable
    # Not at the end, where it could stand behind "--".
    argv.insert(argv.index("run", argv.index("stream")) + 1, f"--share={share}")
    return argv


async def _run(what: Runner | Supervisor, stop: asyncio.Event) -> None:
    def on_stop(waited: asyncio.Future[Any]) -> None:
        if not waited.cancelled():
            what.stop()

    stopping = asyncio.ensure_future(stop.wait())
    stopping.add_done_callback(on_stop)
    try:
        await what.run()
    finally:
        stopping.cancel()


@contextlib.asynccontextmanager
async def _health(way: Way) -> AsyncIterator[Callable[[bool], None]]:
    # Workers cannot all have one port: the supervisor answers for them.
    if way.health is None or way.share is not None:
        yield lambda serving: None
        return
    async with HealthServer(way.health) as server:
        click.echo(f"aipod: health on port {server.port}", err=True)
        yield lambda serving: server.set("", serving)


@contextlib.asynccontextmanager
async def _asked(way: Way) -> AsyncIterator[Provider | None]:
    provider = None if way.provider is None else open_provider(way.provider, way.only)
    try:
        yield provider
    finally:
        if provider is not None:
            await provider.close()

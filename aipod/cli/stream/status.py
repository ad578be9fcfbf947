"""``aipod stream status``: a table of tasks, or JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import click

from aipod.cli.stream.flags import broker_flags, only, provider, tasks_of
from aipod.cli.stream.running import PATIENCE, run_until_told
from aipod.errors import Unavailable
from aipod.stream.broker.connection import Connect, Connection, connect
from aipod.stream.ending import first_of
from aipod.stream.status import Standing, look, rate
from aipod.stream.tasks import StreamTask

__all__ = ["status"]

# What a task must have, and how far it is has nothing to do with.
_FILLERS = {"window": "count:1", "sinks": "stdout"}
_COLUMNS = (
    "TASK",
    "STATE",
    "LAG",
    "UNACKED",
    "OLDEST",
    "WINDOWS",
    "LATE",
    "EXPIRED",
    "DEAD",
    "LETTERS",
    "MSG/S",
    "HOLDER",
)
_CLEAR = "\x1b[H\x1b[2J"

# What an earlier look has found, by task and partition.
Before = Mapping[tuple[str, object], Standing]


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@only
@provider
@broker_flags
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each look, in one line.")
@click.option("--watch/--no-watch", default=None, help="Look again and again, until SIGINT; or once.")
@click.option(
    "--every", type=click.FloatRange(min=0.2), default=2.0, show_default=True, help="Seconds between two looks."
)
def status(
    file: Path | None,
    only: tuple[str, ...],
    provider: str | None,
    as_json: bool,
    watch: bool | None,
    every: float,
    **flags: Any,
) -> None:
    """Show how far tasks are: what waits, what is held, and for how long.

    \b
      aipod stream status tasks.toml
      aipod stream status tasks.toml --watch --every 10
      aipod stream status --name vibration --subject 'sensors.>' --json | jq '.tasks[].lag'

    On a terminal the table is shown anew until SIGINT (Ctrl-C), anywhere else once; and so is --json. A provider is
    asked for its tasks once.

    LAG counts messages that wait for their first delivery, UNACKED those that are delivered and not acknowledged, and
    OLDEST is the age of the oldest of both; LETTERS are the dead letters that nobody has put back yet. The other
    numbers are what whoever runs the task last said of itself; MSG/S is since the last look, and in the first one since
    the task began.
    """
    tasks = tasks_of(file, flags, only, _FILLERS, provider)
    watching = sys.stdout.isatty() and not as_json if watch is None else watch

    async def main(stop: asyncio.Event) -> None:
        await first_of(stop.wait(), _look_on(tasks, as_json, every if watching else None))

    run_until_told(main, grace=1.0)


async def _look_on(tasks: Sequence[StreamTask], as_json: bool, every: float | None) -> None:
    """Look every so many seconds, whether the broker is there or not; once if that is None."""
    connections: dict[Connect, Connection] = {}
    before: Before = {}
    async with AsyncExitStack() as stack:

        async def connected(spec: Connect) -> Connection:
            if spec not in connections:
                connections[spec] = await connect(spec, wait=PATIENCE)
                stack.push_async_callback(connections[spec].close)
            return connections[spec]

        while True:
            try:
                standings = [each for task in tasks for each in await look(await connected(task.source.connect), task)]
            except Unavailable as error:
                if every is None:
                    raise
                click.echo(str(error), err=True)
            else:
                _show(standings, before, as_json, every is not None)
                before = {(each.task, each.partition): each for each in standings}
            if every is None:
                return
            await asyncio.sleep(every)


def _show(standings: Sequence[Standing], before: Before, as_json: bool, watch: bool) -> None:
    if as_json:
        click.echo(json.dumps({"tasks": [each.document(_earlier(each, before)) for each in standings]}))
        return
    rows = [_COLUMNS, *(_row(each, _earlier(each, before)) for each in standings)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [_problem(each) for each in standings if each.problem]
    # Only a terminal can take back what it shows.
    click.echo((_CLEAR if watch and sys.stdout.isatty() else "") + "\n".join(lines))


def _earlier(standing: Standing, before: Before) -> Standing | None:
    return before.get((standing.task, standing.partition))


def _problem(standing: Standing) -> str:
    told = f" (said {standing.told:.0f} s ago)" if standing.told else ""
    return f"{standing.task}: {standing.problem}{told}"


def _row(standing: Standing, before: Standing | None) -> tuple[str, ...]:
    return (
        standing.task if standing.partition is None else f"{standing.task}/{standing.partition}",
        standing.state,
        str(standing.lag),
        str(standing.ack_pending),
        f"{standing.oldest:.1f} s",
        f"{standing.gauge('open_windows'):.0f}",
        str(standing.count("late")),
        str(standing.count("expired")),
        str(standing.count("dead")),
        str(standing.dead_letters),
        f"{rate(standing, 'messages', before):.1f}",
        standing.holder or "-",
    )

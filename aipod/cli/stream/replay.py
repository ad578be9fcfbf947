"""``aipod stream replay``: dead letters back to where they came from."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import click

from aipod.cli.stream.flags import broker_flags, only, provider, tasks_of
from aipod.cli.stream.running import PATIENCE
from aipod.stream.broker.connection import connect
from aipod.stream.dead import DeadLetters
from aipod.stream.tasks import StreamTask

__all__ = ["replay"]

# What a task must have, and its dead letters have nothing to do with.
_FILLERS = {"subjects": "none", "window": "count:1", "sinks": "stdout"}


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@only
@provider
@broker_flags
@click.option("--dead-letters", is_flag=True, help="Said for the reader: there is nothing else to put back.")
@click.option("--from", "subject", default=">", metavar="SUBJECT", help="Only messages that came from there.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many of each task.")
@click.option("--dry-run", is_flag=True, help="List them, with their reasons; put nothing back.")
def replay(
    file: Path | None,
    only: tuple[str, ...],
    provider: str | None,
    dead_letters: bool,
    subject: str,
    limit: int | None,
    dry_run: bool,
    **flags: Any,
) -> None:
    """Put the dead letters of tasks back where they came from, once what was wrong is mended.

    \b
      aipod stream replay --dead-letters tasks.toml --only vibration --dry-run
      aipod stream replay --dead-letters tasks.toml --only vibration

    Each is published to its own subject again, and then taken out of the dead letters. It may be interrupted, and
    begun anew, at any point.
    """
    for task in tasks_of(file, flags, only, _FILLERS, provider):
        asyncio.run(_replay(task, subject, limit, dry_run))


async def _replay(task: StreamTask, subject: str, limit: int | None, dry_run: bool) -> None:
    connection = await connect(task.source.connect, wait=PATIENCE)
    try:
        dead = task.dead_letters
        letters = DeadLetters(connection, task.name, task.dead_subject, create=False, stream=dead.stream)
        if not dry_run:
            click.echo(f"{task.name}: {await letters.replay(limit, subject)} put back")
            return
        async with aclosing(letters.list(limit, subject)) as listed:
            async for letter in listed:
                # In one line, whatever was in the message that the reason quotes.
                click.echo(f"{task.name}: {letter.subject} {letter.sequence}: {' '.join(letter.reason.split())}")
    finally:
        await connection.close()

"""``aipod stream check``: what a file of tasks says, or what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from aipod.cli.stream.flags import only, tasks_of
from aipod.stream.plan import Finding, outline

__all__ = ["check", "show"]


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@only
def check(file: Path, only: tuple[str, ...]) -> None:
    """Say what is wrong with a file of tasks, all of it at once; or else what its tasks would do.

    \b
      aipod stream check tasks.toml

    It asks no broker and no model. `aipod stream run --dry-run` looks at what is on the broker, too.
    """
    for task in tasks_of(file, {}, only):
        show(task.name, outline(task))


def show(name: str, findings: Sequence[Finding]) -> None:
    """Print what was found out about a task."""
    click.echo(name)
    for finding in findings:
        click.echo(f"  {'' if finding.good else 'PROBLEM: '}{finding.what}: {finding.how}")

"""``aipod stream check``: what a file of tasks says, or what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from aipod.cli.stream.flags import only, provider, tasks_of
from aipod.stream.plan import Finding, outline

__all__ = ["check", "show"]


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@only
@provider
def check(file: Path | None, only: tuple[str, ...], provider: str | None) -> None:
    """Say what is wrong with the tasks of a file or a provider, all of it at once; or else what they would do.

    \b
      aipod stream check tasks.toml

    It asks no broker, no model and no database. `aipod stream run --dry-run` looks at those, too.
    """
    for task in tasks_of(file, {}, only, provider=provider):
        show(task.name, outline(task))


def show(name: str, findings: Sequence[Finding]) -> None:
    """Print what was found out about a task."""
    click.echo(name)
    for finding in findings:
        click.echo(f"  {'' if finding.good else 'PROBLEM: '}{finding.what}: {finding.how}")

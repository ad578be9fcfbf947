"""``aipod stream run``: what its flags mean."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from aipod.cli.stream.flags import check_alone, only, provider, split, task_flags, tasks_of
from aipod.cli.stream.running import log_to_stderr
from aipod.cli.stream.work import Way, foretell, supervise, tell, work
from aipod.config import Flagged, Settings
from aipod.stream.local import run_file
from aipod.stream.supervisor import Share
from aipod.stream.tasks import SinkSpec, StreamTask, open_provider

__all__ = ["run"]


def _setting(ctx: click.Context, parameter: click.Parameter, value: str | None) -> Flagged | None:
    return None if value is None else Flagged(parameter.opts[0], value)


def _share(ctx: click.Context, parameter: click.Parameter, value: str | None) -> Share | None:
    return None if value is None else Share.parse(value)


_OPTIONS = (
    provider,
    click.option(
        "--interval", type=click.FloatRange(min=0.1), default=30.0, help="Seconds between two questions (30)."
    ),
    click.option("--dry-run", is_flag=True, help="Look at everything that is needed, say how it is, and run nothing."),
    click.option("--from-file", metavar="EVENTS", help="Messages from a file of JSON lines; - reads stdin."),
    click.option("--stdout", is_flag=True, help="Results to standard output, and to no other sink."),
    click.option("--once", is_flag=True, help="End when everything that is there has become results."),
    click.option("--workers", type=click.IntRange(1, 256), default=1, help="Spread the tasks over so many processes."),
    click.option("--share", callback=_share, hidden=True),
    click.option("--grace", metavar="SECONDS", callback=_setting, help="To end in (AIPOD_DRAIN_SECONDS, 30.0)."),
    click.option("--health-port", type=click.IntRange(0, 65535), help="For gRPC health checks; 0 picks a free one."),
    click.option("--log-level", metavar="LEVEL", callback=_setting, help="What to log (AIPOD_LOG_LEVEL, INFO)."),
)


# What says how tasks run, and so nothing where none does, or no broker is there.
_HOW = ("once", "workers", "health_port", "grace", "interval")
_IDLE = {"from_file": ("dry_run", *_HOW), "dry_run": _HOW}

# Options that are settings of every server, too.
_SETTINGS = {"grace": "drain_seconds", "log_level": "log_level"}


def _options(command: Any) -> Any:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@only
@task_flags
@_options
def run(file: Path | None, only: tuple[str, ...], **options: Any) -> None:
    """Run tasks until SIGTERM or SIGINT: those of a file, those of a provider, or the one that flags describe.

    \b
      aipod stream run tasks.toml
      aipod stream run tasks.toml --only vibration --dry-run
      aipod stream run --subject 'sensors.>' --window count:32 --key device \\
          --model localhost:50051 --version v1 --sink 'nats:results.{key}'
      aipod stream run tasks.toml --only vibration --from-file events.jsonl --stdout

    The first signal ends the pull and lets what is in flight become results; windows that are still open are left to
    whoever comes next, and the exit code is 0. A second one ends it at once.

    With --from-file there is no broker: it is for trying a task out, breakpoints and all.
    """
    flags, own = split(options)
    _check(flags, own)
    settings = Settings.load(**{name: own[flag] for flag, name in _SETTINGS.items() if own[flag] is not None})
    log_to_stderr(settings.log_level)
    tasks = _tasks(file, only, flags, own)
    if own["from_file"] is not None:
        return _try(tasks, own["from_file"])
    if own["dry_run"]:
        return asyncio.run(foretell(tasks))
    port = own["health_port"]
    way = Way(
        grace=settings.drain_seconds,
        once=own["once"],
        health=None if port is None else f"{settings.listen_host}:{port}",
        provider=own["provider"],
        only=only,
        interval=own["interval"],
        share=own["share"],
    )
    if own["workers"] > 1 and way.share is None:
        supervise(own["workers"], way)
    else:
        work(tasks, way)


def _check(flags: dict[str, Any], own: dict[str, Any]) -> None:
    """Refuse options that mean nothing beside others."""
    given = [name for name in own if _is_given(name)]
    for idle, senseless in _IDLE.items():
        if idle in given and (both := [name for name in given if name in senseless]):
            raise click.UsageError(f"{_option(both[0])} means nothing with {_option(idle)}; leave out one of them.")
    if "interval" in given and "provider" not in given:
        raise click.UsageError("--interval is how often to ask a --provider, and there is none.")
    if own["stdout"] and flags["sinks"]:
        raise click.UsageError("--stdout is in place of every other sink; leave out it or --sink.")


def _is_given(name: str) -> bool:
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _tasks(file: Path | None, only: tuple[str, ...], flags: dict[str, Any], own: dict[str, Any]) -> list[StreamTask]:
    local, stdout, provider = own["from_file"] is not None, own["stdout"], own["provider"]
    if provider is not None and not (local or own["dry_run"]):  # asked while they run
        check_alone(file, flags)
        if stdout:
            raise click.UsageError("--stdout is for trying tasks; with --provider, --dry-run and --from-file do, too.")
        open_provider(provider)
        return []
    fillers = {"sinks": "stdout"} if stdout or local else {}
    tasks = tasks_of(file, flags, only, {**fillers, "subjects": "local"} if local else fillers, provider)
    if stdout:
        tasks = [dataclasses.replace(task, sinks=(SinkSpec.parse("stdout"),)) for task in tasks]
    return tasks


def _try(tasks: list[StreamTask], events: str) -> None:
    if len(tasks) > 1:
        raise click.UsageError(f"One task is tried at a time; --only picks one of {', '.join(t.name for t in tasks)}.")
    tell(tasks[0].name, run_file(tasks[0], Path(events)))

"""The flags that say what a task is, and from flags, or a file, to tasks."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from aipod.config import Settings
from aipod.errors import ConfigError
from aipod.stream.tasks import StreamTask, open_provider, toml

__all__ = ["broker_flags", "check_alone", "only", "provider", "split", "task_flags", "tasks_of"]


class _Flag(NamedTuple):
    """A field of a task's table as a flag; a group in front of the field is a table in the table."""

    name: str
    field: str
    metavar: str
    help: str
    multiple: bool = False

    @property
    def parameter(self) -> str:
        return self.field.replace(".", "__")


_BROKER = (
    _Flag("--nats", "nats.servers", "URL", "The broker (nats://localhost:4222); several with commas."),
    _Flag("--user", "nats.user", "NAME", "Who one is to the broker; file:PATH reads it from a file."),
    _Flag("--password", "nats.password", "TEXT", "The password; better file:PATH, since others see command lines."),
    _Flag("--token", "nats.token", "TEXT", "A token, or file:PATH."),
    _Flag("--creds", "nats.creds", "FILE", "A file with a JWT and its seed."),
    _Flag("--nkey", "nats.nkey_seed", "FILE", "A file with an nkey's seed."),
    _Flag("--tls-ca", "nats.tls_ca", "FILE", "The authorities to trust."),
    _Flag("--tls-cert", "nats.tls_cert", "FILE", "The certificate to show."),
    _Flag("--tls-key", "nats.tls_key", "FILE", "Its key."),
    _Flag("--domain", "nats.domain", "NAME", "The JetStream domain."),
)
_SOURCE = (
    _Flag("--name", "name", "NAME", "The task's name (from the subject: sensors.> is sensors)."),
    _Flag("--stream", "stream", "NAME", "The stream; without it, the one that has the subjects."),
    _Flag("--subject", "subjects", "SUBJECT", "What to take from it; repeatable.", multiple=True),
    _Flag("--durable", "durable", "NAME", "The consumer (aipod-NAME)."),
    _Flag("--partitions", "partitions", "N", "Among how many processes the task can be divided, by key."),
)
_TASK = (
    *_SOURCE,
    _Flag("--start", "start", "WHERE", "Where a new consumer begins: all, new, seq:N or time:ISO-8601."),
    _Flag("--decode", "decode", "FORM", "json, msgpack, raw, npy or module:function."),
    _Flag("--key", "key", "KEY", "What to group by: a field, header:NAME, subject:N or module:function."),
    _Flag("--time", "time", "TIME", "A message's time: stored (by the server), a field, or header:NAME."),
    _Flag("--window", "window", "WINDOW", "count:32, sliding:32:8, tumbling:60s, hopping:60s:10s or session:30s."),
    _Flag("--lateness", "lateness", "SECONDS", "How much out of order messages may come."),
    _Flag("--max-wait", "max_wait", "SECONDS", "After how long a window is closed, full or not."),
    _Flag("--prepare", "prepare", "FUNCTION", "module:function that makes predict's arguments of a window."),
    _Flag("--model", "model", "HOST:PORT", "The model server (AIPOD_ADDRESS, localhost:50051)."),
    _Flag("--version", "version", "NAME", "The model's version, or an alias (default)."),
    _Flag("--timeout", "timeout", "SECONDS", "For one predict (60)."),
    _Flag("--concurrency", "concurrency", "N", "How many windows are predicted at a time (4)."),
    _Flag(
        "--sink", "sinks", "SINK", "nats:SUBJECT, sql:URL#TABLE, file:DIRECTORY, stdout …; repeatable.", multiple=True
    ),
    _Flag("--dead-letters", "dead_letters", "SUBJECT", "Where messages go that cannot be used (dead.NAME)."),
)


Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def _options(flags: Sequence[_Flag]) -> Decorator:
    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for flag in reversed(flags):
            # No type: what a field takes the task knows, and says in its error.
            command = click.option(
                flag.name,
                flag.field.replace(".", "__"),
                metavar=flag.metavar,
                help=flag.help,
                multiple=flag.multiple,
                default=None,
            )(command)
        return command

    return decorate


broker_flags = _options((*_BROKER, *_SOURCE))
task_flags = _options((*_TASK, *_BROKER))
only = click.option("--only", multiple=True, metavar="NAME", help="Of all tasks these alone; repeatable.")
provider = click.option("--provider", metavar="WHERE", help="Ask for tasks: module:function, or sql:URL#SELECT …")


def split(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take the options of a command apart: those that say what a task is, and its own."""
    fields = {flag.parameter for flag in (*_TASK, *_BROKER)}
    flags = {name: value for name, value in options.items() if name in fields}
    return flags, {name: value for name, value in options.items() if name not in fields}


def table_of(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Give the table that a file would have; only what was given is in it."""
    table: dict[str, Any] = {}
    for parameter, value in flags.items():
        if value is None or value == ():
            continue
        group, _, name = parameter.rpartition("__")
        (table.setdefault(group, {}) if group else table)[name] = list(value) if isinstance(value, tuple) else value
    return table


def tasks_of(
    file: Path | None,
    flags: Mapping[str, Any],
    names: Sequence[str] = (),
    fillers: Mapping[str, Any] | None = None,
    provider: str | None = None,
) -> list[StreamTask]:
    """Read the tasks of a file, ask a provider for them, or else make the one that flags describe.

    Args:
        flags: What the flags of this module gave to the command.
        names: Those of the tasks that are wanted; none means all.
        fillers: Fields of the table for those that no flag gave.

    Raises:
        ConfigError: With one sentence for each problem.
        click.UsageError: There is more than one of these, or none.
    """
    given = table_of(flags)
    if provider is not None:
        check_alone(file, flags)
        return _picked(asyncio.run(_asked(provider)), names, "what the provider gives")
    if file is None:
        if not given:
            raise click.UsageError("Name a file of tasks or a provider, or say with flags what the task is.")
        if names:
            raise click.UsageError("--only picks tasks of a file or a provider, and there is neither.")
        fallback = {"name": _name_of(given), "model": Settings.load().address, **(fillers or {})}
        return [StreamTask.from_dict({**fallback, **given})]
    if given:
        raise click.UsageError(f"{_flag_of(given)} says what a task is, and so does the file; keep one.")
    return _picked(toml.load(file), names, file.name)


def check_alone(file: Path | None, flags: Mapping[str, Any]) -> None:
    """Refuse, beside a provider, what else says which tasks there are."""
    if file is not None or table_of(flags):
        raise click.UsageError("--provider says which tasks there are; leave out the file and what is for one.")


async def _asked(text: str) -> list[StreamTask]:
    provider = open_provider(text)
    try:
        return await provider.tasks()
    finally:
        await provider.close()


def _picked(tasks: list[StreamTask], names: Sequence[str], place: str) -> list[StreamTask]:
    known = [task.name for task in tasks]
    if strangers := [name for name in names if name not in known]:
        raise ConfigError([f"there is no task {strangers[0]!r} in {place}; there are {', '.join(known) or 'none'}"])
    return [task for task in tasks if not names or task.name in names]


def _name_of(table: Mapping[str, Any]) -> str:
    """Name a task after its first subject: two people who share a broker seldom read the same."""
    tokens = str(next(iter(table.get("subjects", ())), "")).split(".")
    plain = (re.sub(r"[^A-Za-z0-9_-]+", "", token) for token in tokens)
    return "-".join(filter(None, plain)).lstrip("-")[:100] or "stream"


def _flag_of(table: Mapping[str, Any]) -> str:
    field = next(iter(table))
    inner = table[field]
    field = f"{field}.{next(iter(inner))}" if isinstance(inner, dict) else field
    return next(flag.name for flag in (*_TASK, *_BROKER) if flag.field == field)

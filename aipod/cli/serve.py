"""``aipod serve``: a class becomes a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from aipod.cli.target import load_class
from aipod.config import Flagged, Settings, variable
from aipod.rpc import server

__all__ = ["serve"]

# The settings that most servers need have a flag of their own; --set gives the others.
_FLAGS = {
    "--port": "listen_port",
    "--host": "listen_host",
    "--data-path": "data_path",
    "--pool-size": "model_pool_size",
    "--pool-bytes": "model_pool_bytes",
    "--workers": "rpc_max_workers",
    "--max-concurrency": "max_concurrency",
    "--preload": "preload",
    "--drain-seconds": "drain_seconds",
    "--log-level": "log_level",
}


def _flags(command: Callable[..., None]) -> Callable[..., None]:
    rows = {row.name: row for row in Settings().describe()}
    for flag, name in reversed(_FLAGS.items()):
        row = rows[name]
        # No type: what a setting takes is known to the setting, which says so in its error.
        meaning = f"{row.meaning[0].upper()}{row.meaning[1:]} ({variable(name)}, {row.default or 'none'})."
        command = click.option(flag, name, metavar="VALUE", help=meaning)(command)
    return command


def _pairs(ctx: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.BadParameter(f"{text!r} has no '='; write NAME=VALUE, for example max_queue=64.")
        pairs[name.strip()] = value
    if pairs.keys() - {row.name for row in Settings().describe()}:
        # Said here: further on they are keywords among others.
        Settings.load({}, None, **pairs)
    return pairs


@click.command()
@click.argument("target", metavar="MODULE:CLASS")
@_flags
@click.option(
    "--set", "others", multiple=True, metavar="NAME=VALUE", callback=_pairs, help="Any other setting; may be repeated."
)
def serve(target: str, others: dict[str, Any], **flags: str | None) -> None:
    """Serve a model until SIGTERM or SIGINT.

    MODULE:CLASS is a subclass of AIModelBase: in a module that Python finds from here, or in a file.

    \b
      aipod serve model:Digits
      aipod serve examples/digits/model.py:Digits --port 8080 --pool-size 4
      aipod serve model:Digits --port 0 --set max_queue=64

    When it is ready it prints one line with its address. The first signal drains: new calls are refused, running ones
    are finished, and the exit code is 0. A second one ends it at once.

    A flag is stronger than the environment variable that is named with it; after that stands the default.
    """
    settings: dict[str, Any] = {
        name: Flagged(flag, flags[name]) for flag, name in _FLAGS.items() if flags[name] is not None
    }
    if twice := sorted(settings.keys() & others.keys()):
        raise click.UsageError(f"{twice[0]} is given twice, by its flag and by --set; drop one.")
    server.serve(load_class(target), **others, **settings)

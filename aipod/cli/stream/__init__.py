"""``aipod stream``: what its commands are called, and when they are imported.

A command is imported when it is asked for: what streams need is an extra of the package, and the other commands work,
and start as quickly, without it.
"""

from __future__ import annotations

import importlib
from typing import Any

import click

from aipod.cli.debug import debug
from aipod.errors import ConfigError

__all__ = ["stream"]

# A command is the function of that name in the module of that name in here.
_COMMANDS = {
    "run": "Run tasks: from subjects through windows and models to sinks.",
    "check": "Say what is wrong with a file of tasks, or what it would do.",
    "status": "Show how far tasks are, what they hold, and how fast they go.",
    "replay": "Put dead letters back, once their cause is mended.",
    "dev": "Run a JetStream of one's own on this machine.",
}
_EXTRA = ("nats", "grpc_health", "sqlalchemy", "tomli")


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands and cmd_name in _COMMANDS:
            self.add_command(debug(_load(cmd_name)))
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


def _load(name: str) -> Any:
    try:
        return getattr(importlib.import_module(f"aipod.cli.stream.{name}"), name)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        raise ConfigError([f"streams need {package}, which is not here; pip install 'aipod[stream]'"]) from error


@click.group(cls=_Lazy, invoke_without_command=True, short_help="Predict what NATS JetStream brings, window by window.")
@click.pass_context
def stream(ctx: click.Context) -> None:
    """Let a model predict what NATS JetStream brings, window by window, and lose nothing.

    \b
      aipod stream dev --stream 'SENSORS:sensors.>' --stream 'RESULTS:results.>'
      aipod stream run tasks.toml
      aipod stream run --subject 'sensors.>' --window count:32 --key device \\
          --model localhost:50051 --version v1 --sink 'nats:results.{key}'
      aipod stream status tasks.toml --watch

    It comes with pip install 'aipod[stream]'.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())

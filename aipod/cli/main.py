"""The ``aipod`` command: which commands there are, and how it ends when one fails.

A command is a file, or a package, with a ``click.Command`` in it, and a place in ``COMMANDS``. It raises our errors;
here they become one line, or a list of what is wrong with a file, and an exit code.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

import aipod
from aipod.cli.bench import bench
from aipod.cli.cancel import cancel
from aipod.cli.debug import debug, wanted
from aipod.cli.diff import diff
from aipod.cli.jobs import jobs
from aipod.cli.log import log
from aipod.cli.predict import predict
from aipod.cli.revisions import revisions
from aipod.cli.rollback import rollback
from aipod.cli.serve import serve
from aipod.cli.stop import stop
from aipod.cli.stream import stream
from aipod.cli.train import train
from aipod.errors import AipodError, ConfigError

__all__ = ["main"]

COMMANDS: Sequence[click.Command] = (
    serve,
    predict,
    train,
    jobs,
    log,
    cancel,
    stop,
    revisions,
    rollback,
    diff,
    bench,
    stream,
)

FAILED, USAGE, INTERRUPTED = 1, 2, 130


class _Program(click.Group):
    """Answers for our errors here, where it is still known whether the traceback is wanted."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AipodError as error:
            if wanted(ctx):
                traceback.print_exc()
            _complain(*(error.problems if isinstance(error, ConfigError) else [str(error)]))
            raise click.exceptions.Exit(USAGE if isinstance(error, ConfigError) else FAILED) from None
        except SystemExit as end:
            # The server has said its line itself.
            if wanted(ctx) and end.__context__ is not None:
                traceback.print_exception(end.__context__)
            raise


@click.group(cls=_Program, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(aipod.__version__, message="%(prog)s %(version)s")
@debug
@click.pass_context
def program(ctx: click.Context) -> None:
    """Serve a Python class as a model, call it, and let it predict what streams bring.

    \b
      aipod serve model:Digits
      aipod predict --version v1 --array images=images.npy
      aipod train --version v1 --json '{"epochs": 20}'
      aipod jobs
      aipod bench localhost:50051 --json '{"text": "hello"}'
      aipod stream run tasks.toml

    `aipod COMMAND --help` has more on each command. Settings come from flags, else from AIPOD_* in the environment,
    else they have defaults.

    \b
    Exit codes:
      0   it went well; a server was told to end, and did
      1   a call or a training failed, or a server cannot start: its port is taken, say
      2   the command line or a setting makes no sense
      130 Ctrl-C
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for _command in COMMANDS:
    program.add_command(debug(_command))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line, this process's if None, and end the process.

    Raises:
        SystemExit: Always; the code is one of those that ``aipod --help`` lists.
    """
    try:
        code = program.main(arguments, prog_name="aipod", standalone_mode=False)
    except click.ClickException as error:
        _complain(error.format_message() + _advice(error))
        code = error.exit_code
    except click.Abort:
        code = INTERRUPTED
    sys.exit(code)


def _complain(*problems: str) -> None:
    # Each in one line, whatever was quoted in it.
    lines = [" ".join(problem.split()) for problem in problems]
    text = "; ".join(lines)
    place = "".join(text.partition(": ")[:2])
    if len(lines) > 1 and all(line.startswith(place) for line in lines):  # a file's
        text = "\n  ".join([f"{place}{len(lines)} problems", *(line.removeprefix(place) for line in lines)])
    print(f"aipod: {text}", file=sys.stderr)


def _advice(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f" See {context.command_path} --help." if context is not None else ""

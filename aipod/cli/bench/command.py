"""The command line of ``aipod bench``."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from aipod.cli.arguments import call_arguments
from aipod.cli.bench import report
from aipod.cli.bench.load import Run, by_coroutines, by_threads
from aipod.config import Settings
from aipod.errors import ConfigError
from aipod.rpc.client import AIClient, AsyncAIClient

__all__ = ["bench"]

_MOST_CALLERS = 10_000


def _finite(ctx: click.Context, parameter: click.Parameter, seconds: float) -> float:
    if not math.isfinite(seconds):
        raise click.BadParameter(f"{seconds} is no number of seconds.")
    return seconds


def _writable(ctx: click.Context, parameter: click.Parameter, file: Path | None) -> Path | None:
    """Before anything is measured: afterwards the minutes that it took would be lost."""
    if file is not None and not file.parent.is_dir():
        raise click.BadParameter(f"{str(file)!r} cannot be written: there is no directory {str(file.parent)!r}.")
    return file


@click.command()
@click.argument("address")
@click.option("-v", "--version", default="default", show_default=True, help="The version, or an alias.")
@call_arguments
@click.option(
    "--callers", type=click.IntRange(1, _MOST_CALLERS), default=32, show_default=True, help="How many call at a time."
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    callback=_finite,
    help="How long; with --sweep each step.",
)
@click.option("--threads", is_flag=True, help="Callers are threads, not coroutines.")
@click.option("--unary", is_flag=True, help="Each call by itself, as clients in other languages make them.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=60.0, show_default=True)
@click.option(
    "--sweep",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.png",
    callback=_writable,
    help="Measure with 1, 2, 4, ... callers, and draw latency against load.",
)
@click.option("--as-json", is_flag=True, help="Print the figures as JSON.")
def bench(
    address: str,
    callers: int,
    seconds: float,
    threads: bool,
    unary: bool,
    sweep: Path | None,
    as_json: bool,
    **call: Any,
) -> None:
    """Call a model's predict as often as it answers, and print rate, latency and errors.

    \b
      aipod bench localhost:50051 --json '{"text": "hello"}' --callers 32
      aipod bench localhost:50051 --array images=images.npy --sweep load.png

    Each caller makes its next call when the last one is answered. Server and callers share the machine if they run on
    the same one: what is measured then is both.
    """
    plot = _plotting() if sweep is not None else None
    logging.basicConfig(format="aipod: %(message)s", stream=sys.stderr)
    work = _Work(address, {"max_message_bytes": Settings.load().max_message_bytes, "trunk": not unary}, **call)
    measure = work.by_threads if threads else work.by_coroutines
    runs = [measure(step, seconds) for step in ([callers] if sweep is None else _steps(callers))]
    if as_json:
        click.echo(json.dumps([_figures(run) for run in runs]))
    else:
        click.echo(report.text(runs[0]) if sweep is None else report.table(runs))
    if plot is not None and sweep is not None:
        plot(runs, f"{address}, version {work.version!r}", sweep)
        click.echo(f"drawn in {sweep}", err=True)
    if not any(run.latencies for run in runs):
        raise click.exceptions.Exit(1)


@dataclass
class _Work:
    """What is called, again and again."""

    address: str
    options: dict[str, Any]
    version: str
    timeout: float
    kwargs: dict[str, Any]

    def by_threads(self, callers: int, seconds: float) -> Run:
        with AIClient(self.address, self.version, self.timeout, **self.options) as client:
            # The first call may load the model: no part of the measurement, and what is wrong shows at once.
            client.predict(**self.kwargs)
            client.connect()
            return by_threads(client.options(retry=False), self.kwargs, callers, seconds)

    def by_coroutines(self, callers: int, seconds: float) -> Run:
        return asyncio.run(self._by_coroutines(callers, seconds))

    async def _by_coroutines(self, callers: int, seconds: float) -> Run:
        async with AsyncAIClient(self.address, self.version, self.timeout, **self.options) as client:
            await client.predict(**self.kwargs)
            await client.connect()
            return await by_coroutines(client.options(retry=False), self.kwargs, callers, seconds)


def _plotting() -> Callable[[Sequence[Run], str, Path], None]:
    try:
        plot: Callable[[Sequence[Run], str, Path], None] = importlib.import_module("aipod.cli.bench.plot").plot
    except ModuleNotFoundError as error:
        raise ConfigError(
            [f"--sweep draws with {error.name}, which is not here; pip install 'aipod[bench]'"]
        ) from error
    return plot


def _steps(most: int) -> list[int]:
    steps = [1]
    while steps[-1] * 2 < most:
        steps.append(steps[-1] * 2)
    return sorted({*steps, most})


def _figures(run: Run) -> dict[str, Any]:
    return {
        "callers": run.callers,
        "seconds": run.elapsed,
        "calls": len(run.latencies),
        "calls_per_second": run.rate,
        "cpu_seconds": run.cpu,
        "percentiles": {f"p{percent:g}": value for percent, value in run.percentiles().items()},
        "errors": dict(run.errors),
    }

"""What was measured, as a picture: latency against load. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from aipod.cli.bench.load import Run
from aipod.errors import ConfigError

__all__ = ["plot"]


def plot(runs: Sequence[Run], title: str, file: Path) -> None:
    """Draw the runs into a PNG, each a point with its number of callers.

    Raises:
        ConfigError: The file cannot be written.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    runs = [run for run in runs if run.latencies]
    for percent in (50.0, 99.0):
        times = [1e3 * run.percentiles()[percent] for run in runs]
        axes.plot([run.rate for run in runs], times, marker="o", label=f"p{percent:g}")
    for run in runs:
        where = (run.rate, 1e3 * run.percentiles()[99.0])
        axes.annotate(str(run.callers), where, textcoords="offset points", xytext=(4, 4), fontsize=8)
    axes.set(xlabel="calls/s", ylabel="milliseconds", title=title, yscale="log")
    axes.legend()
    axes.grid(True, which="both", alpha=0.3)
    try:
        figure.savefig(file, format="png", dpi=120)
    except OSError as error:
        raise ConfigError([f"{str(file)!r} cannot be written: {error.strerror or error}"]) from None

"""Comparisons as pictures: where several sides did the same, a bar for each."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.harness import Comparison

__all__ = ["draw"]

# Fewer are said in a line of the table.
_FEWEST = 3
_OURS, _THEIRS = "#c44e52", "#8c9fb5"


def draw(comparisons: Sequence[Comparison], directory: Path) -> list[str]:
    """Draw a picture of each question that several sides answered; gives the names of the files."""
    directory.mkdir(exist_ok=True)
    for old in directory.glob("*.png"):
        old.unlink()
    names = []
    for what, group in groupby(comparisons, key=lambda one: one.what):
        sides = list(group)
        if len(sides) >= _FEWEST:
            names.append(f"{re.sub('[^a-z0-9]+', '-', what.lower()).strip('-')}.png")
            _bars(what, sides, directory / names[-1])
    return names


def _bars(what: str, comparisons: Sequence[Comparison], file: Path) -> None:
    """Medians, with the smallest and the largest; the best on top."""
    first = comparisons[0]
    sides = [("AIPOD", first.ours), *((one.against, one.theirs) for one in comparisons)]
    sides.sort(key=lambda side: statistics.median(side[1]), reverse=first.at_most)
    names, middles = [name for name, _ in sides], [statistics.median(values) for _, values in sides]
    spread = [
        [middle - min(values) for middle, (_, values) in zip(middles, sides, strict=True)],
        [max(values) - middle for middle, (_, values) in zip(middles, sides, strict=True)],
    ]
    figure = Figure(figsize=(8, 1.2 + 0.34 * len(sides)), layout="constrained")
    axes = figure.subplots()
    colors = [_OURS if name == "AIPOD" else _THEIRS for name in names]
    axes.barh(names, middles, xerr=spread, color=colors, ecolor="#444444", capsize=2)
    axes.set(title=what, xlabel=f"{first.unit}, {'less' if first.at_most else 'more'} is better; logarithmic")
    axes.set_xscale("log")
    figure.savefig(file, format="png", dpi=110)

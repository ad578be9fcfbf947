"""What was measured, as text."""

from __future__ import annotations

from collections.abc import Sequence

from aipod.cli.bench.load import Run

__all__ = ["table", "text"]

_ROWS, _BAR = 12, 40


def text(run: Run) -> str:
    """One run in full."""
    failed = sum(run.errors.values())
    lines = [
        f"{len(run.latencies):,} calls in {run.elapsed:.1f} s by {run.callers} callers: {run.rate:,.0f} calls/s",
        f"processor time of the callers: {1e6 * run.cpu / max(1, len(run.latencies)):.0f} us a call",
    ]
    lines += [f"  p{percent:<5g} {_time(value)}" for percent, value in run.percentiles().items()]
    if run.latencies:
        counts, bounds = run.histogram(_ROWS)
        most = max(int(count) for count in counts)
        lines.append("")
        for count, low, high in zip(counts, bounds, bounds[1:], strict=False):
            bar = "#" * round(_BAR * int(count) / most)
            lines.append(f"  {_time(float(low)):>9} - {_time(float(high)):<9} {int(count):>9,}  {bar}".rstrip())
    if failed:
        lines += ["", f"{failed:,} calls failed:"]
        lines += [f"  {count:,} {name}: {run.examples[name]}" for name, count in run.errors.most_common()]
    return "\n".join(lines)


def table(runs: Sequence[Run]) -> str:
    """Several runs, a line each."""
    lines = [f"{'callers':>7} {'calls/s':>10} {'p50':>9} {'p99':>9} {'errors':>7}"]
    for run in runs:
        found = run.percentiles()
        middle, late = (_time(found[percent]) if found else "-" for percent in (50.0, 99.0))
        lines.append(f"{run.callers:>7} {run.rate:>10,.0f} {middle:>9} {late:>9} {sum(run.errors.values()):>7,}")
    return "\n".join(lines)


def _time(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"

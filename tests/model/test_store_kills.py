"""SIGKILL at every step of everything that changes the disk: the old revision or the new one, whole, every time."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from store_kills import OPERATIONS
from store_world import ENVIRONMENT

_PROGRAM = Path(__file__).with_name("store_kills.py")
_TIMEOUT = 600


def kill(directory: Path, *arguments: str) -> int:
    """Returns how many kills there were."""
    command = [sys.executable, str(_PROGRAM), str(directory), *arguments]
    run = subprocess.run(
        command,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    *found, count = run.stdout.splitlines() or ["nothing was printed"]
    assert (run.returncode, found) == (0, []), run.stderr
    return int(count)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_kill_at_any_step_leaves_the_old_or_the_new_revision_whole(tmp_path: Path, operation: str) -> None:
    assert kill(tmp_path, operation, "exchange") >= 3


@pytest.mark.parametrize("operation", ["adopt", "adopt-next"])
def test_so_does_a_kill_where_names_cannot_be_exchanged(tmp_path: Path, operation: str) -> None:
    assert kill(tmp_path, operation, "journal") >= 15


def test_so_does_a_kill_at_a_random_moment(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    assert kill(tmp_path, "random", "100", str(seed)) == 100


@pytest.mark.chaos
def test_so_do_a_thousand_kills_at_random_moments(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    assert kill(tmp_path, "random", "1000", str(seed)) == 1000

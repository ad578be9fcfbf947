"""Trainings, their servers, or both are killed at random moments; what the next server finds is whole, and says what
happened."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from trainer import VALUES, Steps
from waiting import BOUND, eventually

from aipod.engine import Engine
from aipod.model import manifest
from aipod.model.store import Store

pytestmark = pytest.mark.chaos

KILLS = 50
_PROGRAM = Path(__file__).with_name("trainer.py")
# One that was queued goes on with the next server.
_FOUND = ("queued", "succeeded", "failed", "interrupted")


def wounds(data: Path, value: int, job_id: str) -> list[str]:
    """What is wrong with a data path after a kill, once a store has been opened on it."""
    store = Store(data)
    store.open()
    job = store.jobs.get(job_id)
    found = [] if job.state in _FOUND else [f"the job is {job.state}"]
    found += [f"staging holds {name}" for name in os.listdir(data / "staging")]
    found += [
        f"jobs holds {name}"
        for name in os.listdir(data / "jobs")
        if name.endswith(".tmp" if job.state == "queued" else (".tmp", ".call"))
    ]
    with store.lease("v") as live:
        found += manifest.damage(live.directory)
        said = {path.read_text() for path in live.directory.glob("part-*")}
        made = (manifest.read(live.directory) or {}).get("job") == job_id
    if len(said) != 1:
        found.append(f"a mixture of {said}")
    if made != (job.state == "succeeded") or made != (said == {str(value)}):
        found.append(f"the job {job.state}, and the live revision says {said}")
    if job.state == "succeeded" and store.jobs.result(job_id) is None:
        found.append("it succeeded without a result")
    return found


def train_and_kill(data: Path, value: int, victims: str, delay: float) -> tuple[str, list[int]]:
    """Train in a server of its own, and kill after a while; gives the job's id, and the processes that there were."""
    command = [sys.executable, str(_PROGRAM), str(data), str(value)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        job_id = server.stdout.readline().strip()
        assert job_id
        # The kill may come before there is a training's process, too.
        select.select([], [], [], delay)
        children = [int(pid) for path in Path(f"/proc/{server.pid}/task").glob("*/children") for pid in _read(path)]
        for pid in (children if "training" in victims else []) + ([server.pid] if "server" in victims else []):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        assert server.wait(BOUND) in (0, -signal.SIGKILL)
    return job_id, [server.pid, *children]


def _read(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


@pytest.mark.parametrize("victims", ["training", "server", "training and server"])
def test_whatever_is_killed_a_whole_revision_answers_and_the_job_says_what_happened(
    victims: str, dice: random.Random, say: Callable[[object], None], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    with Engine(Steps, data_path=data) as engine:
        engine.train("v", value=VALUES)
    states: Counter[str] = Counter()
    longest, problems, served = 2.0, [], VALUES
    for value in range(VALUES + 1, VALUES + 1 + KILLS):
        delay = dice.uniform(0.0, longest)
        began = time.monotonic()
        job_id, processes = train_and_kill(data, value, victims, delay)
        problems += [f"{value}, after {delay:.3f} s: {wound}" for wound in wounds(data, value, job_id)]
        eventually(lambda processes=processes: not any(Path(f"/proc/{pid}").exists() for pid in processes))
        with Engine(Steps, data_path=data) as engine:
            found = engine.trainings.get(job_id).state
            job = engine.trainings.wait(job_id, BOUND)
            served = value if job.state == "succeeded" else served
            assert engine.predict("v") == served
        states[found] += 1
        # Most are to be killed on the way: how long one takes here is learned.
        longest = max(0.2, longest * (0.8 if found == "succeeded" else 1.1))
        assert time.monotonic() - began < 10 * BOUND
    say(f"{victims}: {dict(states)}")
    assert not problems, "\n".join(problems)
    assert states["succeeded"] < KILLS * 3 // 4

"""Kill a server at every step that a training takes on the disk, and look at what is left. Run as a program: it forks.

python training_kills.py DIRECTORY CLASS        prints one line per problem, then how many kills there were
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import trained

from aipod.engine import Engine
from aipod.model import AIModelBase, disk, manifest
from aipod.model.job import Job
from aipod.model.store import Store

_SETTINGS = {"train_isolation": "thread", "watch_seconds": 0, "log_level": "CRITICAL", "keep_revisions": 1}


def in_child(action: Callable[[], None]) -> int:
    """Run it in a forked process; returns the signal that ended that, 0 if none did, 255 if it failed."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 255 * (os.WEXITSTATUS(status) != 0)


def prepare(data: Path) -> None:
    with Engine(trained.Trained, data_path=data, **_SETTINGS) as engine:
        engine.train("v", value="old")


def train(model: type[AIModelBase], data: Path, step: int) -> None:
    """Train, and die before one step."""
    engine = Engine(model, data_path=data, **_SETTINGS)
    engine.open()
    left = step

    def count(name: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    disk.failpoint = count
    engine.trainings.result(engine.trainings.wait(engine.trainings.start("v", {}, "mine").id).id)
    engine.close()


def go_on(model: type[AIModelBase], data: Path) -> None:
    """Open what was left, as the next server does, and let whatever goes on come to its end."""
    with Engine(model, data_path=data, **_SETTINGS) as engine:
        for job in engine.trainings.jobs():
            engine.trainings.wait(job.id)


def problems(data: Path, goes_on: bool) -> list[str]:
    """What is wrong with what is left: before the next server has let it go on, or after."""
    store = Store(data)
    store.open()
    found = [f"left over: {path.name}" for path in (data / "jobs").iterdir() if path.name.startswith(".")]
    number = store.current("v")
    with store.lease("v") as live:
        found += manifest.damage(live.directory)
        made = (manifest.read(live.directory) or {}).get("job")
    jobs = [job for job in store.jobs.of("v") if job.request_id == "mine"]
    staged = [path.name for path in (data / "staging").iterdir()]
    found += [f"left over: {name}" for name in staged if not (goes_on and any(job.id == name for job in jobs))]
    for job in jobs:
        found += [f"{job.id} {job.state}: {problem}" for problem in _job_problems(store, job, number, made, goes_on)]
    if not jobs and number != 1:
        found.append(f"revision {number} is nobody's")
    names = {path.stem for path in (data / "jobs").iterdir()}
    found += [f"stray: {name}" for name in names if not any(job.id == name for job in store.jobs.of("v"))]
    return found


def _job_problems(store: Store, job: Job, number: int | None, made: str | None, goes_on: bool) -> list[str]:
    found = []
    if (made == job.id) != (job.state == "succeeded"):
        found.append(f"revision {number} is the work of {made}")
    if job.state == "succeeded" and (job.revision != number or store.jobs.result(job.id) is None):
        found.append(f"its revision is {job.revision}, its result {store.jobs.result(job.id)!r}")
    if job.state not in ("succeeded", "interrupted") and not (goes_on and job.state == "queued"):
        found.append("nothing runs")
    if job.is_over and (store.root / "jobs" / f"{job.id}.call").exists():
        found.append("its call is kept")
    return found


def main(directory: str, name: str) -> None:
    model = getattr(trained, name)
    template = Path(directory) / "template"
    assert in_child(lambda: prepare(template)) == 0
    step = 0
    states: set[str] = set()
    while True:
        data = Path(directory) / str(step)
        shutil.copytree(template, data, symlinks=True)
        ended = in_child(lambda data=data, step=step: train(model, data, step))  # type: ignore[misc]
        found = problems(data, goes_on=True)
        if in_child(lambda data=data: go_on(model, data)):  # type: ignore[misc]
            found.append("the next server failed")
        found += problems(data, goes_on=False)
        states |= {json.loads(path.read_bytes())["state"] for path in (data / "jobs").glob("*.json")}
        for problem in found:
            print(f"step {step}: {problem}")
        shutil.rmtree(data)
        if ended != signal.SIGKILL:
            break
        step += 1
    if ended:
        print(f"it failed by itself at step {step}")
    if "interrupted" not in states and not model.resumable:
        print("no kill ever interrupted it")
    print(step)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Kill a process in the middle of what a store does, and look at what is left. Run as a program, since it forks.

    python store_kills.py DIRECTORY OPERATION WAY          at every step of the operation, one by one
    python store_kills.py DIRECTORY random COUNT SEED      so many times, at random moments of all of them in turn

Prints one line per problem, then how many kills there were.
"""

from __future__ import annotations

import io
import itertools
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from store_world import litter, old_model, publish, said

from aipod.model import disk
from aipod.model.store import Store

# Seconds until a timer rings.
_SHORTEST_DELAY, _FIRST_DELAY = 1e-4, 15e-3


@dataclass(frozen=True)
class Operation:
    """What is killed.

    Attributes:
        prepare: Makes the data path that it starts from.
        run: The operation.
        outcomes: What version ``v1`` may say afterwards; ``None``: it is not there.
    """

    prepare: Callable[[Path], None]
    run: Callable[[Store], None]
    outcomes: frozenset[str | None]


def _nothing(path: Path) -> None:
    _opened(path)


def _two_revisions(path: Path) -> None:
    store = _opened(path)
    publish(store, "v1", "older")
    publish(store, "v1", "old")
    publish(store, "v2", "other")


def _many_revisions(path: Path) -> None:
    store = _opened(path)
    for value in ("a", "b", "c", "d", "old"):
        publish(store, "v1", value, "train" if value != "a" else "initialize")


def _of_1_0(path: Path) -> None:
    old_model(path)


def _copied_over(path: Path) -> None:
    publish(_opened(path), "v1", "replaced")
    (path / "models" / "v1").unlink()
    old_model(path)


def _opened(path: Path) -> Store:
    store = Store(path, keep_revisions=1)
    store.open()
    return store


def _import(store: Store) -> None:
    content = io.BytesIO()
    store.export("v2", None, content)
    store.import_zip("v1", content)


def _publish(store: Store, value: str, origin: str = "initialize") -> None:
    publish(store, "v1", value, origin)


def _rollback(store: Store) -> None:
    store.rollback("v1", 1)


def _collect(store: Store) -> None:
    store.collect("v1")


OPERATIONS = {
    "first": Operation(_nothing, lambda store: _publish(store, "new"), frozenset({None, "new"})),
    "initialize": Operation(_two_revisions, lambda store: _publish(store, "new"), frozenset({"old", "new"})),
    "train": Operation(_two_revisions, lambda store: _publish(store, "new", "train"), frozenset({"old", "new"})),
    "import": Operation(_two_revisions, _import, frozenset({"old", "other"})),
    "rollback": Operation(_two_revisions, _rollback, frozenset({"old", "older"})),
    "alias": Operation(_two_revisions, lambda store: store.set_alias("prod", "v1"), frozenset({"old"})),
    "collect": Operation(_many_revisions, _collect, frozenset({"old"})),
    "delete": Operation(_many_revisions, lambda store: store.delete("v1"), frozenset({"old", None})),
    "adopt": Operation(_of_1_0, lambda store: store.open(), frozenset({"old"})),
    "adopt-next": Operation(_copied_over, lambda store: store.open(), frozenset({"old"})),
}


class KillAt:
    """End this process before one step."""

    def __init__(self, step: int) -> None:
        self.left = step

    def __call__(self, name: str) -> None:
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


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


def killed_run(path: Path, operation: Operation, step: int) -> int:
    def action() -> None:
        store = Store(path, keep_revisions=1)
        disk.failpoint = KillAt(step)
        operation.run(store)

    return in_child(action)


def killed_recovery(path: Path, step: int) -> int:
    def action() -> None:
        disk.failpoint = KillAt(step)
        Store(path).open()

    return in_child(action)


def problems(path: Path, outcomes: frozenset[str | None]) -> list[str]:
    """Open what was left, and say what is wrong with it."""
    try:
        store = Store(path, keep_revisions=1)
        store.open()
        there = store.versions()
        outcome = said(store, "v1") if "v1" in there else None
        found = [] if outcome in outcomes else [f"v1 says {outcome}"]
        if "v2" in there and said(store, "v2") != "other":
            found.append("v2 was hurt")
        if store.aliases() not in ({}, {"prod": "v1"}):
            found.append(f"aliases are {store.aliases()}")
        if store.current("v1") is None and (path / "models" / "v1").is_symlink():
            found.append("a link to nothing")
        if outcome is None and "old" in outcomes and (path / "revisions" / "v1").exists():
            found.append("half a deletion")
        found += [f"left over: {name}" for name in litter(path)]
        found += [f"still running: {job.id}" for job in store.jobs.of("v1") if job.state == "running"]
        number = publish(store, "v1", "next")
        if said(store, "v1") != "next" or store.current("v1") != number:
            found.append("the next publication failed")
        store.collect("v1")
        return found
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]


def enumerate_steps(root: Path, name: str) -> int:
    """Kill at each step; of every other wreck the recovery is killed as well, each time at a later step."""
    operation = OPERATIONS[name]
    template = root / "template"
    operation.prepare(template)
    step = 0
    while True:
        path = root / str(step)
        shutil.copytree(template, path, symlinks=True)
        ended = killed_run(path, operation, step)
        again = 0
        while ended and step % 2 and killed_recovery(path, again) and again < 40:
            again += 1
        for problem in problems(path, operation.outcomes):
            print(f"{name}, killed at step {step}: {problem}")
        if ended == 255:
            print(f"{name}: failed by itself at step {step}")
        if ended != signal.SIGKILL:
            return step
        shutil.rmtree(path)
        step += 1


def kill_at_random(root: Path, count: int, seed: int) -> int:
    """Kill ``count`` times at moments that the clock chooses, by a timer whose signal ends the process.

    An operation that was done before its timer rang is no kill. How long an operation takes here and now is learned
    from that: the timers of one that was done get shorter, those of one that was killed get longer.
    """
    dice = random.Random(seed)
    templates = {name: root / f"template-{name}" for name in OPERATIONS}
    for name, operation in OPERATIONS.items():
        operation.prepare(templates[name])
    longest = dict.fromkeys(OPERATIONS, _FIRST_DELAY)
    killed = 0
    for turn, name in enumerate(itertools.islice(itertools.cycle(OPERATIONS), 20 * count)):
        path = root / str(turn)
        shutil.copytree(templates[name], path, symlinks=True)
        delay = dice.uniform(_SHORTEST_DELAY, longest[name])

        def action(path: Path = path, name: str = name, delay: float = delay) -> None:
            store = Store(path, keep_revisions=1)
            signal.setitimer(signal.ITIMER_REAL, delay)
            OPERATIONS[name].run(store)

        hit = in_child(action) == signal.SIGALRM
        for problem in problems(path, OPERATIONS[name].outcomes):
            print(f"{name}, turn {turn}, killed after {delay * 1e3:.2f} ms: {problem}")
        shutil.rmtree(path)
        longest[name] = max(2 * _SHORTEST_DELAY, longest[name] * (1.1 if hit else 0.8))
        killed += hit
        if killed == count:
            break
    return killed


def main(directory: str, what: str, *rest: str) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    if what == "random":
        print(kill_at_random(Path(directory), int(rest[0]), int(rest[1])))
        return
    if rest == ("journal",):
        disk.exchange = lambda first, second: False
    print(enumerate_steps(Path(directory), what))


if __name__ == "__main__":
    main(*sys.argv[1:])

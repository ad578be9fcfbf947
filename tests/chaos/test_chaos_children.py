"""Instances in processes, started and stopped and killed many times over: nothing of them is left."""

from __future__ import annotations

import gc
import os
import random
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from replica_models import Crashing, Pids
from waiting import BOUND, eventually

from aipod.engine import Engine
from aipod.errors import ModelCrashed

pytestmark = pytest.mark.chaos

_TIMES = 100


def left() -> tuple[int, int, int, int]:
    """What this process has of threads, descriptors, shared memory and children."""
    gc.collect()
    maps = Path("/proc/self/maps").read_text().count("memfd:aipod")
    children = sum(
        len((task / "children").read_text().split())
        for task in Path("/proc/self/task").iterdir()
        if (task / "children").exists()
    )
    return threading.active_count(), len(os.listdir("/proc/self/fd")), maps, children


def test_a_hundred_loads_and_unloads_leave_nothing(tmp_path: Path) -> None:
    with Engine(Pids, isolation="process", data_path=tmp_path) as engine:
        engine.predict("v0")
        engine.admin.unload("v0")
        before = left()
        for number in range(_TIMES):
            engine.predict(f"v{number}")
            engine.admin.unload(f"v{number}")
        eventually(lambda: all(now <= then for now, then in zip(left(), before, strict=True)))


def test_a_hundred_kills_under_load_cost_the_calls_that_were_there_and_nothing_else(
    tmp_path: Path, dice: random.Random, say: Callable[[object], None]
) -> None:
    # Not the errors themselves: each holds the frames that it came through, and with them what they held.
    failed: list[str] = []
    stop = threading.Event()

    def call(engine: Engine, caller: int) -> int:
        answered = 0
        while not stop.is_set():
            try:
                # Each input is another one: none is a suspect.
                value = [caller, answered, len(failed)]
                assert engine.predict("v", value=value) == value
                answered += 1
            except ModelCrashed as error:
                failed.append(str(error))
        return answered

    with Engine(Crashing, replicas=2, max_concurrency=1, data_path=tmp_path, rpc_max_workers=4) as engine:
        engine.predict("v", value=0)
        home = engine._pool.residents()[0].home
        before = left()
        with ThreadPoolExecutor(4) as pool:
            callers = [pool.submit(call, engine, number) for number in range(4)]
            try:
                for _ in range(_TIMES):
                    # One that dies before it has answered anybody is replaced after a pause.
                    eventually(lambda: len(home._copies) == 2 and all(copy.answered for copy in home._copies))
                    victim = dice.choice([copy.child.pid for copy in home._copies])
                    os.kill(victim, signal.SIGKILL)
                    eventually(lambda pid=victim: pid not in [copy.child.pid for copy in home._copies])
                eventually(lambda: home.width == 2)
            finally:
                stop.set()
            answered = sum(caller.result(BOUND) for caller in callers)
        say(f"{answered} calls answered, {len(failed)} failed in {_TIMES} kills")
        assert len(failed) <= _TIMES
        assert answered > _TIMES
        eventually(lambda: all(now <= then for now, then in zip(left()[1:], before[1:], strict=True)))

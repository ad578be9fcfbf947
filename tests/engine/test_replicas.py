"""Instances in processes of their own: a crash is one failed call, and copies share the calls of one lane."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from replica_models import Awaiting, Crashing, Gated, Keyed, Loaded, Pids, Slow, Unloadable, Waiting
from waiting import BOUND, eventually

from aipod.engine import Engine
from aipod.errors import ConfigError, LoadError, ModelCrashed, ModelError
from aipod.model import AIModelBase

Make = Callable[..., Engine]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("model", [Pids, Loaded])
def test_an_instance_lives_in_a_process_that_ends_with_it(engine_of: Make, model: type[AIModelBase]) -> None:
    engine = engine_of(model, isolation="process")
    pid = engine.predict("v1")
    assert pid != os.getpid()
    assert not gone(pid)
    engine.admin.unload("v1")
    assert gone(pid)


def test_eviction_ends_the_process_of_the_one_that_goes(engine_of: Make) -> None:
    engine = engine_of(Pids, isolation="process", model_pool_size=1)
    first = engine.predict("v1")
    second = engine.predict("v2")
    assert first != second
    eventually(lambda: gone(first))


def test_a_crash_is_one_failed_call_and_the_next_is_served(engine_of: Make) -> None:
    engine = engine_of(Crashing, isolation="process")
    assert engine.predict("v1", value=1) == 1
    with pytest.raises(ModelCrashed, match="exit code 3; the call can have run"):
        engine.predict("v1", value="die")
    assert engine.predict("v1", value=2) == 2


def test_an_input_that_kills_twice_in_a_row_is_refused_and_others_are_not(engine_of: Make) -> None:
    engine = engine_of(Crashing, isolation="process")
    for _ in range(2):
        with pytest.raises(ModelCrashed, match="exit code 3"):
            engine.predict("v1", value="die")
    with pytest.raises(ModelCrashed, match=r"2 times in a row .* was not run"):
        engine.predict("v1", value="die")
    assert engine.predict("v1", value=3) == 3


def test_an_input_that_lived_between_two_deaths_is_no_suspect(engine_of: Make, tmp_path: Path) -> None:
    engine = engine_of(Crashing, isolation="process")
    for _ in range(3):
        (tmp_path / "data" / "deadly").touch()
        with pytest.raises(ModelCrashed, match="exit code 3"):
            engine.predict("v1", value="sometimes")
        (tmp_path / "data" / "deadly").unlink()
        assert engine.predict("v1", value="sometimes") == "sometimes"


def test_calls_that_come_while_there_is_no_process_wait_for_the_next_one(engine_of: Make) -> None:
    engine = engine_of(Crashing, isolation="process")
    engine.predict("v1", value=1)
    with ThreadPoolExecutor(12) as pool:
        with pytest.raises(ModelCrashed):
            engine.predict("v1", value="die")
        assert sorted(pool.map(lambda n: engine.predict("v1", value=n), range(12))) == list(range(12))


def test_copies_share_the_calls_of_one_lane(engine_of: Make) -> None:
    engine = engine_of(Gated, replicas=3, rpc_max_workers=8, max_concurrency=1)
    with ThreadPoolExecutor(3) as pool:
        # None of them is answered before all three have come.
        assert len({*pool.map(lambda _: engine.predict("v1", together=3), range(3))}) == 3


def test_copies_take_turns_where_all_are_idle(engine_of: Make) -> None:
    engine = engine_of(Pids, replicas=3)
    assert len({engine.predict("v1") for _ in range(3)}) == 3


def test_one_of_several_that_is_killed_takes_its_calls_along_and_no_others(engine_of: Make) -> None:
    engine = engine_of(Slow, replicas=2, rpc_max_workers=4, max_concurrency=1)
    pids = set()
    while len(pids) < 2:
        pids |= {one.result(BOUND) for one in side_by_side(engine, 2)}
    victim = pids.pop()
    failed: list[BaseException] = []
    answered = threading.Semaphore(0)

    def call(stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                engine.predict("v1", seconds=0.005)
                answered.release()
            except ModelCrashed as error:
                failed.append(error)

    stop = threading.Event()
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(call, stop) for _ in range(4)]
        for _ in range(20):
            assert answered.acquire(timeout=BOUND)
        os.kill(victim, signal.SIGKILL)
        # It is replaced, under load.
        eventually(lambda: len(pids | {engine.predict("v1")}) > 1 and engine._pool.residents()[0].home.width == 2)
        for _ in range(20):
            assert answered.acquire(timeout=BOUND)
        stop.set()
        for one in calls:
            one.result(BOUND)
    # It ran one at a time.
    assert len(failed) <= 1
    assert all("SIGKILL; the call can have run" in str(error) for error in failed)


def side_by_side(engine: Engine, number: int) -> list[Future[int]]:
    with ThreadPoolExecutor(number) as pool:
        return [pool.submit(engine.predict, "v1", seconds=0.02) for _ in range(number)]


def test_devices_are_given_out_one_to_each_copy(engine_of: Make) -> None:
    engine = engine_of(Gated, devices="cuda:0,cuda:1,tpu", rpc_max_workers=8, max_concurrency=1)
    with ThreadPoolExecutor(3) as pool:
        seen = {*pool.map(lambda _: tuple(engine.predict("v1", together=3, what="device")), range(3))}
    assert seen == {("cuda:0", "0"), ("cuda:0", "1"), ("tpu", None)}


@pytest.mark.parametrize("replicas", [1, 2])
def test_batches_go_whole_and_by_their_keys(engine_of: Make, replicas: int) -> None:
    engine = engine_of(Keyed, isolation="process", replicas=replicas, batch_timeout=5.0, max_batch_size=4)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: engine.predict("v1", x=np.full(3, n), kind=n % 2), range(8)))
    assert [answer["sum"] for answer in answers] == [3 * n for n in range(8)]
    assert {tuple(answer["kinds"]) for answer in answers} == {(0,) * 4, (1,) * 4}


def test_one_bad_input_of_a_batch_fails_alone(engine_of: Make) -> None:
    engine = engine_of(Keyed, isolation="process", batch_timeout=5.0, max_batch_size=4)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(engine.predict, "v1", x=np.full(3, n), kind=0) for n in (1, -1, 2, 3)]
        assert [calls[n].result(BOUND)["sum"] for n in (0, 2, 3)] == [3, 6, 9]
        with pytest.raises(ModelError, match="ValueError: negative"):
            calls[1].result(BOUND)


def test_a_load_that_fails_says_so_as_it_would_in_the_server(engine_of: Make) -> None:
    engine = engine_of(Unloadable, isolation="process")
    with pytest.raises(LoadError, match=r"version 'v1' does not load: RuntimeError: no weights; it has no data"):
        engine.predict("v1")


def test_a_process_that_dies_while_it_loads_is_a_failed_load(engine_of: Make) -> None:
    engine = engine_of(Unloadable, isolation="process")
    with pytest.raises(LoadError, match="exit code 9"):
        engine.predict("dies")


def test_what_cannot_be_brought_back_leaves_the_pool_and_says_why(engine_of: Make, tmp_path: Path) -> None:
    engine = engine_of(Crashing, isolation="process", load_pause=0.0)
    engine.predict("v1", value=1)
    (tmp_path / "data" / "unloadable").touch()
    with pytest.raises(ModelCrashed):
        engine.predict("v1", value="die")
    with pytest.raises((LoadError, ModelError), match="it is not to be"):
        engine.predict("v1", value=2)
    eventually(lambda: not engine._pool.residents())
    (tmp_path / "data" / "unloadable").unlink()
    assert engine.predict("v1", value=2) == 2


def test_coroutines_run_in_a_process_too(engine_of: Make) -> None:
    engine = engine_of(Awaiting, isolation="process")
    with ThreadPoolExecutor(16) as pool:
        assert sorted(pool.map(lambda n: engine.predict("v1", value=n, together=16), range(16))) == list(range(16))


def test_a_caller_that_gives_up_is_seen_by_the_model(engine_of: Make, tmp_path: Path) -> None:
    engine = engine_of(Waiting, isolation="process")
    engine.admin.load("v1")
    with pytest.raises(Exception, match="deadline"):
        engine.call("predict", "v1", {}, timeout=0.3)
    eventually((tmp_path / "data" / "gave up").exists)


def test_a_new_revision_is_served_by_a_new_process_while_the_old_one_answers(engine_of: Make) -> None:
    engine = engine_of(Pids, isolation="process")
    engine.initialize("v1")
    first = engine.predict("v1")
    stop = threading.Event()
    seen: list[int] = []

    def call() -> None:
        while not stop.is_set():
            seen.append(engine.predict("v1"))

    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(call) for _ in range(2)]
        engine.initialize("v1")
        eventually(lambda: seen and seen[-1] != first)
        stop.set()
        for one in calls:
            one.result(BOUND)
    eventually(lambda: gone(first))


def test_a_class_that_no_other_process_finds_is_refused_at_the_start(tmp_path: Path) -> None:
    class Local(AIModelBase):
        isolation = "process"

    with pytest.raises(ConfigError, match="defined inside a function"):
        Engine(Local, data_path=tmp_path)


def test_an_engine_that_ends_leaves_no_process(tmp_path: Path) -> None:
    with Engine(Pids, replicas=2, data_path=tmp_path) as engine:
        pids = {engine.predict("v1") for _ in range(10)}
    assert all(map(gone, pids))

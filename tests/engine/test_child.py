"""An instance in a process of its own: what it is asked, what it answers, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import child_models
import numpy as np
import pytest
from waiting import BOUND, eventually

from aipod.engine.child import ChildInstance, MakeOrder, Origin
from aipod.errors import AipodError, InvalidArgument, ModelCrashed, ModelError, TrainingCancelled
from aipod.model import AIModelBase

MIB = 2**20


class Source:
    """A call, as far as a child is told of it."""

    version = "v1"
    method = "predict"

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self.cancelled = False
        self.action: Callable[[], object] = lambda: None

    def watch(self, action: Callable[[], object]) -> None:
        self.action = action

    def cancel(self) -> None:
        self.cancelled = True
        self.action()


@pytest.fixture
def child_of(tmp_path: Path) -> Iterator[Callable[..., ChildInstance]]:
    """Starts children, ended after the test."""
    children = []

    def start(model: type[AIModelBase] = child_models.Echo, job: str = "", **options: Any) -> ChildInstance:
        order = MakeOrder(Origin.of(model).fields(), "v1", str(tmp_path), "staging", str(tmp_path), job_id=job)
        children.append(ChildInstance.start(order, **{"shared_memory_bytes": 64 * MIB, **options}))
        return children[-1]

    yield start
    while children:
        children.pop().end(BOUND)
    # With what they had mapped.
    gc.collect()


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_it_lives_elsewhere_and_says_what_it_takes_when_it_has_loaded(child_of: Callable[..., ChildInstance]) -> None:
    child = child_of()
    assert child.call("about", {}, Source()) == {"version": "v1", "pid": child.pid, "loaded": False}
    assert child.load() == 12345
    assert child.call("about", {}, Source())["loaded"]
    assert child.pid != os.getpid()


@pytest.mark.parametrize("memory", [0, 64 * MIB])
@pytest.mark.parametrize("nbytes", [0, 100, 5_000, 70_000, 3 * MIB])
def test_what_is_sent_comes_back_bit_for_bit(child_of: Callable[..., ChildInstance], memory: int, nbytes: int) -> None:
    child = child_of(shared_memory_bytes=memory)
    array = np.frombuffer(np.random.default_rng(1).bytes(nbytes), np.uint8)
    value = child.call(
        "predict", {"value": {"array": array, "raw": array.tobytes(), "text": "é", "n": [1, None]}}, Source()
    )
    assert np.array_equal(value["array"], array)
    assert (value["raw"], value["text"], value["n"]) == (array.tobytes(), "é", [1, None])


def test_many_threads_ask_at_a_time_and_each_gets_its_own_answer(child_of: Callable[..., ChildInstance]) -> None:
    child = child_of()
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda n: child.call("predict", {"value": n}, Source()), range(400))
    assert list(answers) == list(range(400))


def test_memory_that_both_share_is_free_again_when_the_answers_are_dropped(
    child_of: Callable[..., ChildInstance],
) -> None:
    child = child_of(shared_memory_bytes=8 * MIB)
    for _ in range(20):
        assert child.call("predict", {"value": np.ones(5 * MIB, np.uint8)}, Source()).sum() == 5 * MIB
    gc.collect()
    link = child._talk.link
    assert link is not None
    eventually(lambda: link.arena.statistics()["lent"] == 0)


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("ours", InvalidArgument, "value must be positive"),
        ("any", ModelError, "ValueError: no such luck"),
        ("local", ModelError, "Odd"),
        ("exit", ModelError, "SystemExit: 4"),
        ("set", ModelError, "returned what cannot travel: result: type set is not supported"),
    ],
)
def test_what_a_method_raises_comes_back_as_it_would_from_a_thread(
    child_of: Callable[..., ChildInstance], kind: str, error: type[AipodError], words: str
) -> None:
    child = child_of()
    with pytest.raises(error) as caught:
        child.call("fail", {"kind": kind}, Source())
    assert words in str(caught.value)
    assert getattr(caught.value, "returned", False) == (kind == "set")
    assert caught.value.by_model == (kind == "ours")
    assert child.call("predict", {"value": 1}, Source()) == 1


def test_a_traceback_names_the_models_lines_and_none_of_ours(child_of: Callable[..., ChildInstance]) -> None:
    with pytest.raises(ModelError) as caught:
        child_of().call("fail", {"kind": "any"}, Source())
    assert "in fail" in caught.value.traceback
    assert "aipod/engine" not in caught.value.traceback


def test_arguments_that_do_not_fit_are_the_callers_fault(child_of: Callable[..., ChildInstance]) -> None:
    with pytest.raises(InvalidArgument, match="unexpected keyword argument 'valu'"):
        child_of().call("predict", {"valu": 1}, Source())


@pytest.mark.parametrize(("kind", "how"), [("segfault", "ended by SIGSEGV"), ("exit", "exit code 3")])
def test_a_death_is_told_to_all_who_wait_with_how_it_came(
    child_of: Callable[..., ChildInstance], kind: str, how: str
) -> None:
    child = child_of()
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(child.call, "wait", {}, Source())
        with pytest.raises(ModelCrashed, match=how):
            child.call("die", {"kind": kind}, Source())
        with pytest.raises(ModelCrashed, match=f"{how}; the call can have run"):
            waiting.result(BOUND)
    with pytest.raises(ModelCrashed, match=how):
        child.call("predict", {"value": 1}, Source())


def test_a_child_without_memory_says_so_and_lives(child_of: Callable[..., ChildInstance]) -> None:
    child = child_of()
    with pytest.raises(ModelError, match="MemoryError"):
        child.call("die", {"kind": "memory"}, Source())
    assert child.call("predict", {"value": 1}, Source()) == 1


def test_a_caller_that_gives_up_is_seen_inside(child_of: Callable[..., ChildInstance]) -> None:
    child, source = child_of(), Source()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(child.call, "wait", {}, source)
        eventually(lambda: source.action.__class__.__name__ == "partial")
        source.cancel()
        assert waiting.result(BOUND) == "cancelled"


def test_a_deadline_is_seen_inside(child_of: Callable[..., ChildInstance]) -> None:
    assert 0 < child_of().call("left", {}, Source(time.monotonic() + 600)) <= 600
    assert child_of().call("left", {}, Source()) is None


def test_coroutines_run_side_by_side_and_end_with_their_callers(
    child_of: Callable[..., ChildInstance], tmp_path: Path
) -> None:
    child = child_of(child_models.Awaited)

    async def ask() -> list[Any]:
        given_up = asyncio.ensure_future(child.call_async("predict", {"wait": True}, Source()))
        answers = await asyncio.gather(*(child.call_async("predict", {"value": n}, Source()) for n in range(50)))
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        return answers

    assert asyncio.run(ask()) == list(range(50))
    eventually((tmp_path / "cancelled").exists)


def test_a_batch_goes_whole_and_comes_back_one_by_one(child_of: Callable[..., ChildInstance]) -> None:
    child = child_of(child_models.Halves)
    even, odd, last = child.batch([{"value": 4}, {"value": 5}, {"value": 10}], Source())
    assert (even, last) == (2, 5)
    assert isinstance(odd, ModelError)
    assert "ValueError: odd" in str(odd)
    with pytest.raises(ModelError, match="None among them"):
        child.batch([{"value": 4}, {"value": None}], Source())


def test_a_batch_is_stacked_where_it_runs(child_of: Callable[..., ChildInstance]) -> None:
    answers = child_of(child_models.Stacked).batch([{"x": np.arange(3)}, {"x": np.ones(3)}], Source())
    assert [(int(one["sum"]), int(one["rows"])) for one in answers] == [(3, 2), (3, 2)]


def test_an_init_that_raises_leaves_no_process(child_of: Callable[..., ChildInstance]) -> None:
    before = threading.active_count()
    with pytest.raises(ModelError, match="RuntimeError: no such device"):
        child_of(child_models.Unmade)
    eventually(lambda: threading.active_count() == before)


def test_it_is_disposed_of_at_the_end_and_what_it_started_ends_too(
    child_of: Callable[..., ChildInstance], tmp_path: Path
) -> None:
    child = child_of()
    other = child.call("start_another", {}, Source())
    assert child.end(BOUND).code == 0
    assert (tmp_path / "disposed").exists()
    eventually(lambda: gone(other))


def test_one_that_hangs_is_killed_when_its_time_is_over(child_of: Callable[..., ChildInstance]) -> None:
    child = child_of()
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(child.call, "hang", {}, Source())
        assert child.end(0.0).signal == "SIGKILL"
        with pytest.raises(ModelCrashed, match="SIGKILL"):
            hanging.result(BOUND)


def test_sigterm_ends_it_as_such(child_of: Callable[..., ChildInstance]) -> None:
    child = child_of()
    child.terminate()
    assert child.ended.result(BOUND).signal == "SIGTERM"


def test_it_ends_with_its_parent_even_in_the_middle_of_what_cannot_be_interrupted(tmp_path: Path) -> None:
    program = f"""
import sys, threading
sys.path[:0] = {[str(Path(child_models.__file__).parent)]!r}
import child_models
from aipod.engine.child import ChildInstance, MakeOrder, Origin
order = MakeOrder(Origin.of(child_models.Echo).fields(), "v1", {str(tmp_path)!r}, "staging", {str(tmp_path)!r})
child = ChildInstance.start(order)
class Source:
    deadline = None
    def watch(self, action): pass
other = child.call("start_another", {{}}, Source())
print(child.pid, other, flush=True)
child.call("hang", {{}}, Source())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert not any(map(gone, pids))
        parent.send_signal(signal.SIGKILL)
        parent.wait(BOUND)
        for pid in pids:
            eventually(lambda pid=pid: gone(pid))


def test_what_it_writes_and_logs_comes_back(
    child_of: Callable[..., ChildInstance], caplog: pytest.LogCaptureFixture
) -> None:
    output = bytearray()
    child = child_of(on_output=output.extend)
    with caplog.at_level(logging.WARNING):
        child.call("speak", {}, Source())
        eventually(lambda: b"printed" in output and b"written" in output and b"logged 7" in output)
        eventually(lambda: ("of.the.model", logging.WARNING, "logged 7") in caplog.record_tuples)


def test_a_training_sees_what_it_is_asked_and_beats(child_of: Callable[..., ChildInstance]) -> None:
    beats = threading.Semaphore(0)
    child = child_of(child_models.Trained, job="v1@job", on_beat=beats.release)
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(child.call, "train", {"steps": -1}, Source())
        assert beats.acquire(timeout=BOUND), "its first record was not told"
        assert beats.acquire(timeout=BOUND), "it did not say that it is alive"
        child.ask("stop")
        assert training.result(BOUND) == {"stopping": True, "resumed": False}


def test_a_training_that_is_cancelled_ends_with_its_next_record(child_of: Callable[..., ChildInstance]) -> None:
    child = child_of(child_models.Trained, job="v1@job")
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(child.call, "train", {"steps": -1}, Source())
        child.ask("cancel")
        with pytest.raises(TrainingCancelled):
            training.result(BOUND)


def test_twenty_of_them_leave_nothing(child_of: Callable[..., ChildInstance], tmp_path: Path) -> None:
    fields = Origin.of(child_models.Echo).fields()
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    order = MakeOrder(fields, "v1", str(tmp_path), "staging", str(tmp_path))
    for number in range(20):
        child = ChildInstance.start(order, shared_memory_bytes=MIB, on_output=lambda _: None)
        if number % 2:
            child.kill()
        child.end(BOUND)
        del child  # with what it has mapped
    gc.collect()
    # There may be less: what tests before this one have left is on its way out, too.
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= before[0] and threading.active_count() <= before[1])

"""The promises of the pool, one by one."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
import weakref
from collections.abc import Iterator

import pytest
from waiting import BOUND, eventually

from aipod.engine import Engine
from aipod.engine.resident import State
from aipod.errors import DeadlineExceeded, LoadError, Overloaded, Unavailable, VersionNotFound
from aipod.model import AIModelBase


def states(engine: Engine) -> dict[str, str]:
    return {one.version: one.state for one in engine.admin.versions()}


def test_a_warm_call_never_waits_for_a_load(engine_of, watched, background):
    engine = engine_of(watched, model_pool_size=2)
    engine.predict("warm")
    watched.hold_load["cold"] = threading.Event()
    cold = background(engine.predict, "cold")
    eventually(lambda: "cold" in watched.loads)
    for _ in range(100):
        assert engine.predict("warm")["version"] == "warm"
    assert not cold.done()
    watched.hold_load["cold"].set()
    assert cold.result(BOUND)["version"] == "cold"


def test_fifty_callers_of_a_cold_version_are_one_load(engine_of, watched, background):
    engine = engine_of(watched)
    watched.hold_load["v"] = threading.Event()
    calls = [background(engine.predict, "v", value=n) for n in range(50)]
    eventually(lambda: sum(lane.counts.queued for lane in engine.admin.statistics().lanes) == 50)
    watched.hold_load["v"].set()
    assert sorted(call.result(BOUND)["value"] for call in calls) == list(range(50))
    assert watched.loads == ["v"]


def test_a_waiter_that_gives_up_does_not_cancel_the_load(engine_of, watched, background):
    engine = engine_of(watched)
    watched.hold_load["v"] = threading.Event()
    with pytest.raises(DeadlineExceeded):
        engine.call("predict", "v", {}, timeout=0.05)
    assert states(engine) == {"v": "loading"}
    watched.hold_load["v"].set()
    eventually(lambda: states(engine) == {"v": "ready"})
    engine.predict("v")
    assert watched.loads == ["v"]


@pytest.fixture
def small_heap() -> Iterator[None]:
    """Every disposal collects garbage; what the test runner holds would make thousands of them slow."""
    gc.freeze()
    yield
    gc.unfreeze()


def test_no_call_runs_on_a_disposed_instance(engine_of, watched, background, small_heap):
    engine = engine_of(watched, model_pool_size=1)

    def calls(number: int) -> None:
        for n in range(1250):
            version = f"v{(n // 125 + number) % 2}"
            assert engine.predict(version)["version"] == version

    for caller in [background(calls, number) for number in range(8)]:
        caller.result(120)
    statistics = engine.admin.statistics().pool
    assert statistics.loads == len(watched.loads) > 2
    assert len(watched.loads) - len(watched.disposals) == 1


@pytest.mark.parametrize("name", ["", "default"])
def test_no_name_and_default_are_one_version(engine_of, watched, name):
    engine = engine_of(watched)
    engine.predict()
    engine.predict(name)
    assert watched.loads == ["default"]


class TestFailedLoad:
    def test_it_leaves_the_others_as_they_were(self, engine_of, watched):
        watched.load = lambda self: 1 / 0 if self.version == "bad" else self.loads.append(self.version)
        engine = engine_of(watched, model_pool_size=2)
        engine.predict("good")
        with pytest.raises(LoadError, match="version 'bad' does not load: ZeroDivisionError"):
            engine.predict("bad")
        assert states(engine) == {
            "good": "ready",
        }
        assert engine.predict("good")["version"] == "good"
        assert watched.loads == ["good"]
        assert "good" not in watched.disposals

    def test_whom_it_displaced_comes_back(self, engine_of, watched):
        watched.load = lambda self: 1 / 0 if self.version == "bad" else self.loads.append(self.version)
        engine = engine_of(watched, model_pool_size=1)
        engine.predict("good")
        with pytest.raises(LoadError, match="version 'bad' does not load"):
            engine.predict("bad")
        eventually(lambda: states(engine) == {"good": "ready"})
        assert watched.loads == ["good", "good"]

    def test_it_is_remembered_for_a_pause_and_then_tried_again(self, engine_of, watched):
        tries: list[float] = []

        def load(self: AIModelBase) -> None:
            tries.append(time.monotonic())
            if len(tries) < 3:
                raise OSError("the disk sleeps")

        watched.load = load
        engine = engine_of(watched, load_pause=0.2)
        with pytest.raises(LoadError) as first:
            engine.predict("v")
        with pytest.raises(LoadError) as again:
            engine.predict("v")
        assert str(first.value) == str(again.value)
        assert first.value is not again.value
        assert len(tries) == 1

        def answers() -> bool:
            try:
                return bool(engine.predict("v"))
            except LoadError:
                return False

        eventually(answers)
        # The pause doubles: the third try came at least 0.2 + 0.4 seconds after the first.
        assert len(tries) == 3
        assert tries[2] - tries[0] >= 0.6

    def test_all_who_wait_for_it_get_an_error_of_their_own(self, engine_of, watched, background):
        gate = threading.Event()

        def load(self: AIModelBase) -> None:
            gate.wait(BOUND)
            raise ValueError("broken")

        watched.load = load
        engine = engine_of(watched)
        calls = [background(engine.predict, "v") for _ in range(5)]
        eventually(lambda: sum(lane.counts.queued for lane in engine.admin.statistics().lanes) == 5)
        gate.set()
        errors = [call.exception(BOUND) for call in calls]
        assert {type(error) for error in errors} == {LoadError}
        assert len(set(map(id, errors))) == 5

    def test_one_that_hangs_blocks_nobody_else(self, engine_of, watched, background):
        engine = engine_of(watched, model_pool_size=3)
        watched.hold_load["hangs"] = threading.Event()
        hanging = background(engine.predict, "hangs")
        eventually(lambda: "hangs" in watched.loads)
        assert engine.predict("other")["version"] == "other"
        watched.hold_load["hangs"].set()
        hanging.result(BOUND)

    def test_what_was_half_loaded_is_not_kept_with_the_error(self, engine_of, watched):
        alive: weakref.WeakSet[AIModelBase] = weakref.WeakSet()

        def load(self: AIModelBase) -> None:
            alive.add(self)
            raise ValueError("after two gigabytes")

        watched.load = load
        engine = engine_of(watched)
        for number in range(5):
            with contextlib.suppress(LoadError):
                engine.predict(f"v{number}")
        gc.collect()
        assert len(alive) == 0

    def test_a_place_that_was_taken_for_it_is_free_again(self, engine_of, watched):
        watched.load = lambda self: 1 / 0 if self.version == "bad" else None
        engine = engine_of(watched, model_pool_size=1, load_pause=0)
        for _ in range(3):
            with pytest.raises(LoadError):
                engine.predict("bad")
        assert engine.predict("good")["version"] == "good"


class TestEviction:
    def test_it_takes_the_least_recently_used(self, engine_of, watched):
        engine = engine_of(watched, model_pool_size=2)
        for version in ("a", "b", "a", "c"):
            engine.predict(version)
        eventually(lambda: watched.disposals == ["b"])
        assert states(engine) == {"a": "ready", "c": "ready"}

    def test_it_waits_for_calls_and_refuses_the_newcomer_before_its_deadline(self, engine_of, watched, background):
        engine = engine_of(watched, model_pool_size=1)
        watched.hold_predict["busy"] = threading.Event()
        busy = background(engine.predict, "busy")
        eventually(lambda: watched.running == ["busy"])
        # At its deadline it would be another error, of whoever waits.
        with pytest.raises(Overloaded, match="no place in the pool came free for version 'new' in time"):
            engine.call("predict", "new", {}, timeout=2.4)
        assert watched.disposals == []
        watched.hold_predict["busy"].set()
        assert busy.result(BOUND)["version"] == "busy"

    def test_a_newcomer_gets_its_place_when_the_call_ends(self, engine_of, watched, background):
        engine = engine_of(watched, model_pool_size=1)
        watched.hold_predict["busy"] = threading.Event()
        busy = background(engine.predict, "busy")
        eventually(lambda: watched.running == ["busy"])
        new = background(engine.predict, "new")
        eventually(lambda: engine.admin.statistics().pool.waiting == 1)
        watched.hold_predict["busy"].set()
        busy.result(BOUND)
        assert new.result(BOUND)["version"] == "new"
        assert watched.disposals == ["busy"]

    def test_a_newcomer_whom_all_gave_up_is_forgotten(self, engine_of, watched, background):
        engine = engine_of(watched, model_pool_size=1)
        watched.hold_predict["busy"] = threading.Event()
        busy = background(engine.predict, "busy")
        eventually(lambda: watched.running == ["busy"])
        with pytest.raises((Overloaded, DeadlineExceeded)):
            engine.call("predict", "new", {}, timeout=0.3)
        eventually(lambda: states(engine) == {"busy": "ready"})
        watched.hold_predict["busy"].set()
        busy.result(BOUND)
        assert watched.loads == ["busy"]

    def test_a_steady_stream_of_short_calls_does_not_keep_a_newcomer_out(self, engine_of, watched, background):
        engine = engine_of(watched, model_pool_size=1)
        stop = threading.Event()

        def stream() -> None:
            while not stop.is_set():
                engine.predict("stream")

        streams = [background(stream) for _ in range(3)]
        eventually(lambda: len(watched.running) > 100)
        try:
            assert engine.call("predict", "new", {}, timeout=BOUND)["version"] == "new"
        finally:
            stop.set()
        for one in streams:
            one.result(BOUND)

    def test_a_dispose_that_raises_costs_nothing_but_a_line_in_the_log(self, engine_of, watched, caplog):
        def dispose(self: AIModelBase) -> None:
            raise RuntimeError("no")

        watched.dispose = dispose
        engine = engine_of(watched, model_pool_size=1)
        engine.predict("a")
        assert engine.predict("b")["version"] == "b"
        assert "dispose() of version 'a' failed" in caplog.text

    @pytest.mark.parametrize("timeout", [0.05, 0.1, 0.3])
    def test_a_short_timeout_is_enough_to_take_the_place_of_an_idle_neighbour(self, engine_of, watched, timeout):
        engine = engine_of(watched, model_pool_size=1)
        for n in range(10):
            # The machine may be slow; what must not be is a refusal for want of a place.
            with contextlib.suppress(DeadlineExceeded):
                engine.call("predict", f"v{n % 2}", {}, timeout=timeout)
            # One whose caller gave up still loads, and is no idle neighbour before it has.
            eventually(lambda: all(one.state is State.READY and one.lane.idle for one in engine._pool.residents()))

    def test_two_newcomers_cannot_both_take_the_last_place(self, engine_of, watched, background):
        engine = engine_of(watched, model_pool_size=1)
        watched.hold_load["a"] = watched.hold_load["b"] = gate = threading.Event()
        calls = [background(engine.predict, version) for version in ("a", "b")]
        eventually(lambda: engine.admin.statistics().pool.waiting == 1 and watched.loads)
        assert len(watched.loads) == 1
        gate.set()
        assert {call.result(BOUND)["version"] for call in calls} == {"a", "b"}


class TestBytes:
    @pytest.fixture
    def heavy(self, watched):
        watched.sizes = {}
        watched.memory_bytes = lambda self: self.sizes.get(self.version, 10)
        return watched

    def test_the_least_recently_used_leave_until_the_rest_fits(self, engine_of, heavy):
        engine = engine_of(heavy, model_pool_size=0, model_pool_bytes=30)
        for version in ("a", "b", "c", "d"):
            engine.predict(version)
        eventually(lambda: heavy.disposals == ["a"])
        heavy.sizes["big"] = 25
        engine.predict("big")
        eventually(lambda: sorted(heavy.disposals) == ["a", "b", "c", "d"])
        eventually(lambda: engine.admin.statistics().pool.size_bytes == 25)

    def test_what_is_larger_than_everything_is_refused_and_says_so(self, engine_of, heavy):
        heavy.sizes["huge"] = 31
        engine = engine_of(heavy, model_pool_size=0, model_pool_bytes=30)
        with pytest.raises(LoadError, match=r"takes 31 bytes, and all together may take 30 \(AIPOD_MODEL_POOL_BYTES\)"):
            engine.predict("huge")
        assert heavy.disposals == ["huge"]

    def test_busy_ones_stay_and_leave_afterwards(self, engine_of, heavy, background):
        engine = engine_of(heavy, model_pool_size=0, model_pool_bytes=30)
        heavy.sizes.update(busy=20, big=20)
        heavy.hold_predict["busy"] = threading.Event()
        busy = background(engine.predict, "busy")
        eventually(lambda: heavy.running == ["busy"])
        big = background(engine.predict, "big")
        heavy.hold_predict["busy"].set()
        assert busy.result(BOUND)["version"] == "busy"
        assert big.result(BOUND)["version"] == "big"
        eventually(lambda: heavy.disposals == ["busy"])

    def test_a_model_that_does_not_say_its_size_is_measured(self, engine_of):
        class Large(AIModelBase):
            def load(self) -> None:
                self.weights = bytearray(b"x" * 64 * 2**20)

            def predict(self) -> int:
                return len(self.weights)

        engine = engine_of(Large)
        engine.predict("v")
        (version,) = engine.admin.versions()
        assert 48 * 2**20 < version.memory_bytes < 160 * 2**20


class TestStaying:
    def test_a_pinned_version_is_not_evicted(self, engine_of, watched):
        engine = engine_of(watched, model_pool_size=2, pin=["kept"])
        for version in ("a", "b", "c"):
            engine.predict(version)
        assert watched.loads[0] == "kept"
        assert "kept" not in watched.disposals
        engine.admin.pin("kept", False)
        engine.predict("d")
        eventually(lambda: "kept" in watched.disposals)

    def test_where_all_places_are_pinned_a_newcomer_is_refused_at_once(self, engine_of, watched):
        engine = engine_of(watched, model_pool_size=1, pin="kept")
        with pytest.raises(
            Overloaded, match="pinned versions take all of it; unpin one, or raise AIPOD_MODEL_POOL_SIZE"
        ):
            engine.predict("other")

    def test_preloaded_versions_are_there_before_the_first_call(self, engine_of, watched, caplog):
        watched.load = lambda self: 1 / 0 if self.version == "bad" else self.loads.append(self.version)
        engine = engine_of(watched, model_pool_size=3, preload="a,bad,b")
        assert watched.loads == ["a", "b"]
        assert states(engine) == {"a": "ready", "b": "ready"}
        assert "version 'bad' was to be preloaded" in caplog.text

    def test_an_idle_version_leaves_after_its_time(self, engine_of, watched):
        engine = engine_of(watched, model_pool_size=3, model_idle_ttl=0.05, pin="kept")
        engine.predict("v")
        eventually(lambda: watched.disposals == ["v"])
        eventually(lambda: states(engine) == {"kept": "ready"})
        assert engine.predict("v")["version"] == "v"

    def test_unload_waits_for_calls_and_gives_the_place_back(self, engine_of, watched, background):
        engine = engine_of(watched)
        watched.hold_predict["v"] = threading.Event()
        call = background(engine.predict, "v")
        eventually(lambda: watched.running == ["v"])
        unload = background(engine.admin.unload, "v", BOUND)
        eventually(lambda: states(engine) == {"v": "draining"})
        assert watched.disposals == []
        watched.hold_predict["v"].set()
        assert call.result(BOUND)["version"] == "v"
        unload.result(BOUND)
        assert watched.disposals == ["v"]
        eventually(lambda: states(engine) == {})

    def test_an_operator_who_gives_up_takes_nothing_from_another(self, engine_of, watched, background):
        engine = engine_of(watched, model_pool_size=1)
        watched.hold_predict["busy"] = threading.Event()
        busy = background(engine.predict, "busy")
        eventually(lambda: watched.running == ["busy"])
        patient = background(engine.admin.load, "v", BOUND)
        eventually(lambda: engine.admin.statistics().pool.waiting == 1)
        with pytest.raises(Overloaded, match="no place in the pool came free"):
            engine.admin.load("v", 0.05)
        watched.hold_predict["busy"].set()
        busy.result(BOUND)
        patient.result(BOUND)
        assert states(engine)["v"] == "ready"

    def test_a_load_that_takes_longer_than_its_caller_waits_goes_on(self, engine_of, watched):
        engine = engine_of(watched)
        watched.hold_load["v"] = threading.Event()
        with pytest.raises(DeadlineExceeded, match="version 'v' is still loading, and goes on"):
            engine.admin.load("v", 0.05)
        watched.hold_load["v"].set()
        engine.admin.load("v", BOUND)
        assert watched.loads == ["v"]

    @pytest.mark.parametrize("verb", ["unload", "pin"])
    def test_what_is_nowhere_can_be_neither_unloaded_nor_pinned(self, engine_of, watched, verb):
        with pytest.raises(VersionNotFound):
            getattr(engine_of(watched).admin, verb)("nope")

    def test_load_returns_when_the_version_is_ready_or_says_why_not(self, engine_of, watched):
        watched.load = lambda self: 1 / 0 if self.version == "bad" else self.loads.append(self.version)
        engine = engine_of(watched)
        engine.admin.load("v")
        assert states(engine) == {"v": "ready"}
        with pytest.raises(LoadError, match="ZeroDivisionError"):
            engine.admin.load("bad")


def test_strict_versions_refuses_names_that_are_not_on_disk(engine_of, watched):
    engine = engine_of(watched, strict_versions=True)
    with pytest.raises(VersionNotFound, match="there is no version 'invented' here"):
        engine.predict("invented")
    engine.initialize("real")
    assert engine.predict("real")["version"] == "real"
    assert watched.loads == ["real"]


class Counting(AIModelBase):
    """Answers with the number that its revision was trained with."""

    def train(self, number: int) -> int:
        (self.model_dir() / "number").write_text(str(number))
        return number

    def load(self) -> None:
        text = (self.model_dir() / "number").read_text()
        self.number = int(text)

    def predict(self) -> int:
        return self.number


class TestSwap:
    def test_under_load_no_call_fails_and_every_answer_is_the_old_or_the_new(self, engine_of, background):
        engine = engine_of(Counting)
        engine.train("v", number=0)
        stop = threading.Event()

        def stream() -> list[int]:
            answers = []
            while not stop.is_set():
                answers.append(engine.predict("v"))
            return answers

        streams = [background(stream) for _ in range(4)]
        for number in range(1, 6):
            engine.train("v", number=number)
            assert engine.predict("v") == number
        stop.set()
        for one in streams:
            answers = one.result(BOUND)
            assert answers == sorted(answers)
            assert set(answers) <= set(range(6))
        assert engine.predict("v") == 5

    def test_the_old_instance_answers_until_the_new_one_is_ready(self, engine_of, background):
        gate = threading.Event()

        class Slow(Counting):
            def load(self) -> None:
                super().load()
                if self.number == 2:
                    assert gate.wait(BOUND)

        engine = engine_of(Slow)
        engine.train("v", number=1)
        engine.predict("v")
        training = background(engine.train, "v", number=2)
        eventually(lambda: engine.admin.versions()[0].revision == 2)
        assert engine.predict("v") == 1
        gate.set()
        training.result(BOUND)
        assert engine.predict("v") == 2

    @pytest.mark.parametrize("swap", ["load_first", "evict_first"])
    def test_a_revision_that_does_not_load_is_rolled_back(self, engine_of, swap):
        class Picky(Counting):
            def load(self) -> None:
                super().load()
                if self.number < 0:
                    raise ValueError("negative")

        engine = engine_of(Picky, swap=swap)
        engine.train("v", number=1)
        engine.predict("v")
        with pytest.raises(LoadError, match="negative"):
            engine.train("v", number=-1)
        assert engine.predict("v") == 1
        assert engine.admin.versions()[0].revision == 1

    def test_evict_first_never_has_two_instances_at_a_time(self, engine_of):
        alive: list[int] = []
        most: list[int] = []

        class Alone(Counting):
            def load(self) -> None:
                super().load()
                alive.append(1)
                most.append(len(alive))

            def dispose(self) -> None:
                if hasattr(self, "number"):
                    alive.pop()

        engine = engine_of(Alone, swap="evict_first")
        for number in range(3):
            engine.train("v", number=number)
            assert engine.predict("v") == number
        assert set(most) == {1}

    def test_rollback_serves_the_older_revision(self, engine_of):
        engine = engine_of(Counting)
        for number in (1, 2, 3):
            engine.train("v", number=number)
            engine.predict("v")
        assert engine.admin.rollback("v") == 2
        assert engine.predict("v") == 2
        assert engine.admin.rollback("v", 3) == 3
        assert engine.predict("v") == 3
        with pytest.raises(VersionNotFound):
            engine.admin.rollback("v", 99)

    def test_initialize_never_hurts_what_is_loaded(self, engine_of):
        engine = engine_of(Counting)
        engine.train("v", number=1)
        engine.predict("v")
        engine.initialize("v", layers=[1])
        assert engine.predict("v") == 1
        engine.admin.unload("v")
        with pytest.raises(
            LoadError, match=r"initialize\(\) published it and it was never trained: call train\(\), or roll"
        ):
            engine.predict("v")
        engine.train("v", number=2)
        assert engine.predict("v") == 2


def test_a_load_of_the_models_own_is_left_alone_and_warmup_is_called(engine_of):
    steps: list[object] = []

    class Old(AIModelBase):
        def __init__(self, version=None, datapath=None):
            super().__init__(version, datapath)
            self.load("weights")

        def load(self, path: str) -> None:
            steps.append(path)

        def warmup(self) -> None:
            steps.append("warm")

        def predict(self) -> list[object]:
            return steps

    assert engine_of(Old).predict("v") == ["weights", "warm"]


def test_closing_finishes_running_calls_and_refuses_new_ones(engine_of, watched, background):
    engine = engine_of(watched)
    watched.hold_predict["v"] = threading.Event()
    running = background(engine.predict, "v")
    eventually(lambda: watched.running == ["v"])
    closing = background(engine.close, BOUND)
    eventually(lambda: engine._closed)
    with pytest.raises(Exception, match="draining"):
        engine.predict("v")
    watched.hold_predict["v"].set()
    assert running.result(BOUND)["version"] == "v"
    assert closing.result(BOUND)
    assert watched.disposals == ["v"]


def test_closing_does_not_wait_for_a_stuck_model_beyond_its_time(engine_of, watched, background):
    engine = engine_of(watched)
    watched.hold_predict["v"] = threading.Event()
    stuck = background(engine.predict, "v")
    eventually(lambda: watched.running == ["v"])
    waiting = [background(engine.predict, "v") for _ in range(8)]
    eventually(lambda: engine.admin.statistics().lanes[0].counts.queued == 5)
    assert not engine.close(0.1)
    # Nobody is left without an answer, though the model has not moved, and each knows whether it can have run.
    errors = [call.exception(BOUND) for call in (stuck, *waiting)]
    watched.hold_predict["v"].set()
    assert {type(error) for error in errors} == {Unavailable}
    assert sorted(error.may_have_run for error in errors) == [False] * 5 + [True] * 4


def test_calls_of_a_version_that_still_loads_at_the_end_are_answered_too(engine_of, watched, background):
    engine = engine_of(watched)
    watched.hold_load["v"] = threading.Event()
    calls = [background(engine.predict, "v") for _ in range(3)]
    eventually(lambda: sum(lane.counts.queued for lane in engine.admin.statistics().lanes) == 3)
    assert not engine.close(0.1)
    for call in calls:
        assert isinstance(call.exception(BOUND), Unavailable)
    watched.hold_load["v"].set()

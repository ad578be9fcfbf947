"""The pool in odd company: swaps beside newcomers, pins that come late, threads that are not to be had, slow disks."""

from __future__ import annotations

import gc
import threading

import pytest
from waiting import BOUND, eventually

from aipod.engine import Engine, LocalCall
from aipod.engine.resident import Resident
from aipod.errors import DeadlineExceeded, Overloaded
from aipod.model import AIModelBase, revisions


def states(engine: Engine) -> dict[str, str]:
    return {one.version: one.state for one in engine.admin.versions()}


@pytest.fixture
def trained(watched):
    """Answers with its revision's number, and loads only what was trained."""

    def train(self: AIModelBase) -> None:
        (self.model_dir() / "trained").write_text("yes")

    def predict(self: AIModelBase, hold: bool = False) -> str:
        self.running.append(self.version)
        if hold:
            assert self.hold_predict[self.version].wait(BOUND)
        return self.model_dir().name

    load = watched.load

    def load_trained(self: AIModelBase) -> None:
        (self.model_dir() / "trained").read_text()
        load(self)

    watched.train, watched.predict, watched.load = train, predict, load_trained
    return watched


def test_an_async_call_that_is_cancelled_before_its_first_step_leaves_the_lane(engine_of):
    class Async(AIModelBase):
        async def predict(self) -> None: ...

    engine = engine_of(Async, model_pool_size=1)
    for _ in range(200):
        call = LocalCall("v", "predict", {})
        engine.submit(call)
        call.cancel()
    eventually(lambda: engine.admin.statistics().lanes[0].counts.running == 0)
    engine.predict("other")


def test_a_newcomer_during_a_swap_does_not_evict_what_is_being_swapped(engine_of, trained, background):
    engine = engine_of(trained, model_pool_size=2)
    for version in ("v", "b", "c"):
        engine.train(version)
    for version in ("v", "b"):
        engine.predict(version)
    trained.hold_load["v"] = threading.Event()
    training = background(engine.train, "v")
    eventually(lambda: trained.loads.count("v") == 2)
    assert engine.predict("c") == "1"
    trained.hold_load["v"].set()
    training.result(BOUND)
    assert states(engine) == {"v": "ready", "b": "absent", "c": "ready"}
    assert engine.predict("v") == "2"
    assert trained.loads.count("v") == 2


def test_swaps_of_one_version_never_pile_up_behind_a_long_call(engine_of, trained, background):
    engine = engine_of(trained, model_pool_size=1)
    engine.train("v")
    trained.hold_predict["v"] = threading.Event()
    long = background(engine.predict, "v", hold=True)
    eventually(lambda: trained.running == ["v"])
    engine.train("v")
    second = background(engine.train, "v")
    eventually(lambda: engine.admin.versions()[0].revision == 3)
    # The first revision's instance still runs its call, the second's answers; the third's waits for its turn.
    assert engine.predict("v") == "2"
    assert trained.loads.count("v") == 2
    trained.hold_predict["v"].set()
    assert long.result(BOUND) == "1"
    second.result(BOUND)
    assert engine.predict("v") == "3"


def test_initialize_leaves_the_loaded_instance_where_only_one_fits(engine_of, trained):
    engine = engine_of(trained, swap="evict_first")
    engine.train("v")
    engine.predict("v")
    engine.initialize("v", layers=[1])
    assert engine.predict("v") == "1"
    assert trained.disposals.count("v") == 2  # those of train and of initialize, not the loaded one


def test_what_is_too_heavy_leaves_itself_when_the_others_are_pinned(engine_of, watched):
    watched.sizes = {}
    watched.memory_bytes = lambda self: 100
    engine = engine_of(watched, model_pool_size=0, model_pool_bytes=250)
    for version in ("a", "b"):
        engine.predict(version)
        engine.admin.pin(version)
    assert engine.predict("c")["version"] == "c"
    eventually(lambda: watched.disposals == ["c"])
    with pytest.raises(Overloaded, match="pinned versions take all of it"):
        engine.predict("c")


def test_pins_that_come_while_a_newcomer_waits_do_not_leave_it_waiting_for_ever(engine_of, watched, background):
    engine = engine_of(watched, model_pool_size=1)
    watched.hold_predict["busy"] = threading.Event()
    busy = background(engine.predict, "busy")
    eventually(lambda: watched.running == ["busy"])
    new = background(engine.predict, "new")
    eventually(lambda: engine.admin.statistics().pool.waiting == 1)
    engine.admin.pin("busy")
    assert isinstance(new.exception(BOUND), Overloaded)
    watched.hold_predict["busy"].set()
    busy.result(BOUND)


def test_a_pin_goes_with_its_version_and_can_always_be_taken_off(engine_of, watched):
    engine = engine_of(watched, model_pool_size=1)
    engine.initialize("v")
    engine.admin.pin("v")
    engine.admin.delete("v")
    engine.initialize("v")
    assert engine.admin.versions()[0].pinned is False
    engine.admin.pin("never-there", False)


def test_a_second_unload_waits_for_the_same_calls(engine_of, watched, background):
    engine = engine_of(watched)
    watched.hold_predict["v"] = threading.Event()
    call = background(engine.predict, "v")
    eventually(lambda: watched.running == ["v"])
    for _ in range(2):
        with pytest.raises(DeadlineExceeded, match="it goes when its calls are through"):
            engine.admin.unload("v", 0.05)
    watched.hold_predict["v"].set()
    call.result(BOUND)
    eventually(lambda: states(engine) == {})


def test_where_no_thread_can_be_had_a_load_runs_where_it_is(engine_of, watched, monkeypatch):
    engine = engine_of(watched)
    engine.predict("v")
    start = threading.Thread.start

    def refuse(self: threading.Thread) -> None:
        if self.name == "aipod-load":
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert engine.call("predict", "w", {}, timeout=BOUND)["version"] == "w"


@pytest.mark.parametrize("setting", [{"strict_versions": True}, {"model_pool_bytes": "1GiB"}])
def test_a_warm_call_does_not_wait_for_the_disk_of_a_cold_version(engine_of, watched, background, setting, tmp_path):
    engine = engine_of(watched, model_pool_size=2, **setting)
    engine.initialize("warm")
    engine.predict("warm")
    # A directory of 1.0, whose adoption another process holds up.
    (tmp_path / "data" / "models" / "cold").mkdir()
    with revisions.locked(engine._store._layout, "cold", create=True):
        cold = background(engine.predict, "cold")
        eventually(lambda: states_in_memory(engine) == {"warm": "ready", "cold": "waiting"})
        for _ in range(20):
            assert engine.call("predict", "warm", {}, timeout=BOUND)["version"] == "warm"
        assert not cold.done()
    assert cold.result(BOUND)["version"] == "cold"


def states_in_memory(engine: Engine) -> dict[str, str]:
    return {one.version: one.state.value for one in engine._pool.residents()}


def test_versions_that_came_and_went_are_not_kept(engine_of, watched):
    engine = engine_of(watched, model_pool_size=1, model_idle_ttl=3600)
    for number in range(50):
        engine.call("predict", f"guest-{number}", {}, timeout=3600)

    def alive() -> list[str]:
        gc.collect()
        # By name: what other tests left in tracebacks is not meant.
        residents = [one for one in gc.get_objects() if isinstance(one, Resident)]
        return [one.version for one in residents if one.version.startswith("guest-")]

    eventually(lambda: len(alive()) <= 3)


def test_trainings_do_not_shut_the_operator_out(engine_of, watched, background):
    gate = threading.Event()
    watched.train = lambda self: gate.wait(BOUND)
    engine = engine_of(watched, train_isolation="thread", train_max_jobs=32, train_max_queued=4)
    trainings = [background(engine.train, f"v{number}") for number in range(36)]
    eventually(lambda: len(engine.trainings.jobs()) == 36)
    with pytest.raises(Overloaded, match="4 trainings wait for their turn already"):
        engine.train("one-more")
    assert engine.log("v0") == []
    gate.set()
    for training in trainings:
        training.result(60)

"""Lanes of calls that run one by one: whom they wake and when, whose turn it is, and who goes first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import Any

import pytest
from waiting import BOUND, eventually

from aipod.clock import Timer
from aipod.engine import Engine, LocalCall, single_lane
from aipod.engine.call import MAX_PRIORITY, Call
from aipod.engine.lane import TURN, Lane
from aipod.engine.single_lane import SingleLane
from aipod.engine.workers import Workers
from aipod.errors import InvalidArgument
from aipod.model import AIModelBase

LONG = 0.002


class World:
    """A lane's surroundings: time that stands still, a runner that only counts, and timers that a test sets off."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.wakes = 0
        self.timers: list[tuple[float, Timer]] = []

    def monotonic(self) -> float:
        return self.now

    def wake(self, lane: Lane) -> None:
        self.wakes += 1

    def wake_idle(self, lane: Lane) -> bool:
        raise AssertionError

    def at(self, instant: float, action: Callable[[], object]) -> Timer:
        self.timers.append((instant, timer := Timer(action)))
        return timer

    def ring(self) -> None:
        """Pass the time until the next timer, and set it off."""
        self.now, timer = self.timers.pop(0)
        assert timer.action is not None
        timer.action()


class Quiet(Call):
    """A call whose answer nobody needs."""

    def deliver(self, value: object) -> None: ...

    def deliver_error(self, error: object) -> None: ...


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(single_lane, "time", world)
    return world


def lane_in(world: Any, limit: int = 12) -> SingleLane:
    lane = SingleLane("v", world, world, 1024, 2**20, lambda lane: None)
    lane.open({}, limit)
    return lane


def put(lane: Lane, count: int = 1) -> None:
    for _ in range(count):
        assert lane.put(Quiet("v", "predict"))


def learn(world: World, lane: SingleLane, seconds: float) -> None:
    """Have the lane see calls that take so long, until it knows."""
    for _ in range(200):
        put(lane)
        call = lane._take()
        world.now += seconds
        lane._done(call, True, (), 0.0)
    world.wakes = 0


class TestWakeUps:
    def test_before_the_first_call_has_ended_each_is_worth_a_worker(self, world):
        lane = lane_in(world)
        for number in range(5):
            put(lane)
            assert world.wakes == number + 1
            assert lane._take()

    def test_a_crowd_of_unknown_calls_calls_one_worker_after_the_other(self, world):
        lane = lane_in(world, limit=3)
        put(lane, 5)
        assert world.wakes == 1
        # Each that comes sees that more is left, up to the limit.
        assert [bool(lane._take()) for _ in range(4)] == [True, True, True, False]
        assert world.wakes == 3
        assert not world.timers

    def test_short_calls_are_worth_one_worker_for_all(self, world):
        lane = lane_in(world)
        learn(world, lane, 10e-6)
        put(lane, 32)
        call = lane._take()
        put(lane, 32)
        while call is not None:
            world.now += 10e-6
            call = lane._done(call, True, (), 0.0)
        assert world.wakes == 1
        assert len(world.timers) == 1

    def test_more_of_them_than_a_millisecond_is_for_are_worth_more(self, world):
        lane = lane_in(world)
        learn(world, lane, 100e-6)
        put(lane)
        lane._take()
        put(lane, 9)
        assert world.wakes == 1
        put(lane, 2)
        assert world.wakes == 2
        lane._take()
        put(lane, 9)
        assert world.wakes == 2
        put(lane, 2)
        assert world.wakes == 3

    def test_calls_that_wait_behind_a_long_one_get_a_worker(self, world):
        lane = lane_in(world)
        learn(world, lane, 10e-6)
        put(lane)
        long = lane._take()
        put(lane, 2)
        assert world.wakes == 1
        world.ring()
        assert world.wakes == 2
        # While it runs, nobody relies on its worker; but the one that is there now does for the short ones.
        for _ in range(20):
            call = lane._take()
            while call is not None:
                world.now += 10e-6
                call = lane._done(call, True, (), 0.0)
            # One more may have been called meanwhile, and finds nothing.
            assert lane._take() is None
            before = world.wakes
            put(lane)
            assert world.wakes == before + 1
        # When it is over, its worker is one to rely on again.
        lane._take()
        lane._done(long, True, ["another lane"], 0.0)
        before = world.wakes
        put(lane)
        assert world.wakes == before

    def test_where_one_was_long_the_next_may_be_too(self, world):
        lane = lane_in(world)
        learn(world, lane, 10e-6)
        put(lane)
        lane._take()
        put(lane, 3)
        world.ring()
        assert world.wakes == 2
        # Nobody waits for another timer.
        assert [bool(lane._take()) for _ in range(3)] == [True, True, True]
        assert world.wakes == 4

    def test_a_lane_that_moves_is_only_looked_at_again(self, world):
        lane = lane_in(world)
        learn(world, lane, 10e-6)
        put(lane)
        call = lane._take()
        put(lane, 2)
        world.now += LONG / 2
        call = lane._done(call, True, (), 0.0)
        world.ring()
        assert world.wakes == 1
        assert len(world.timers) == 1
        world.ring()
        # By now it has been with the same call for too long.
        assert world.wakes == 2

    def test_nobody_looks_after_a_lane_in_which_nothing_waits(self, world):
        lane = lane_in(world)
        learn(world, lane, 10e-6)
        put(lane)
        call = lane._take()
        put(lane)
        lane._done(lane._done(call, True, (), 0.0), True, (), 0.0)
        world.ring()
        assert not world.timers

    def test_an_event_loop_is_told_of_every_call_at_once(self, world):
        lane = SingleLane("v", world, world, 1024, 2**20, lambda lane: None, eager=True)
        lane.open({}, 1024)
        learn(world, lane, 10e-6)
        put(lane)
        lane._take()
        put(lane)
        assert world.wakes == 2


class TestTurns:
    def test_a_worker_stays_while_nobody_else_waits_for_one(self, world):
        lane = lane_in(world, limit=1)
        put(lane, 2)
        call = lane._take()
        world.now += 10.0
        assert lane._done(call, True, (), call.started + TURN)

    def test_where_others_wait_it_stays_for_the_rest_of_its_turn(self, world):
        lane = lane_in(world, limit=1)
        put(lane, 3)
        call = lane._take()
        ends = call.started + TURN
        world.now += TURN / 2
        call = lane._done(call, True, ["another lane"], ends)
        assert call is not None
        assert world.wakes == 1
        world.now += TURN
        assert lane._done(call, True, ["another lane"], ends) is None
        # It waits for its next turn.
        assert world.wakes == 2


class TestWithThreads:
    @pytest.mark.parametrize("before", [0, 500])
    def test_twelve_slow_calls_run_side_by_side(self, engine_of, watched, before):
        engine = engine_of(watched, rpc_max_workers=12)
        short = [LocalCall("v", "predict", {}) for _ in range(before)]
        for call in short:
            engine.submit(call)
        for call in short:
            call.result()
        watched.running.clear()
        gate = watched.hold_predict["v"] = threading.Event()
        calls = [LocalCall("v", "predict", {}) for _ in range(13)]
        for call in calls:
            engine.submit(call)
        eventually(lambda: len(watched.running) == 12)
        gate.set()
        for call in calls:
            call.result()

    def test_one_slow_call_holds_no_short_one_up(self, engine_of):
        inside, gate = threading.Event(), threading.Event()

        class Model(AIModelBase):
            def predict(self, hold: bool = False) -> bool:
                if hold:
                    inside.set()
                    assert gate.wait(BOUND)
                return hold

        engine = engine_of(Model)

        def burst(count: int) -> list[LocalCall]:
            calls = [LocalCall("v", "predict", {}) for _ in range(count)]
            for call in calls:
                engine.submit(call)
            return calls

        for call in burst(200):
            call.result()
        before = burst(16)
        engine.submit(slow := LocalCall("v", "predict", {"hold": True}))
        for call in (*before, *burst(16)):
            assert call.result() is False
        assert inside.wait(BOUND)
        for _ in range(20):
            for call in burst(4):
                assert call.result() is False
        assert not slow.answered
        gate.set()
        assert slow.result() is True


class TestPriority:
    def order(self, world: World, *calls: Call) -> list[int]:
        lane = lane_in(world, limit=1)
        for call in calls:
            lane.put(call)
        taken = []
        call = lane._take()
        while call is not None:
            taken.append(calls.index(call))
            call = lane._done(call, True, (), 0.0)
        return taken

    def call(self, priority: int, arrived: float = 1000.0) -> Call:
        call = Quiet("v", "predict", priority=priority)
        call.arrived = arrived
        return call

    def test_equals_keep_their_order(self, world):
        assert self.order(world, *(self.call(0) for _ in range(3))) == [0, 1, 2]
        assert self.order(world, *(self.call(7) for _ in range(3))) == [0, 1, 2]

    def test_the_higher_goes_first(self, world):
        calls = [self.call(priority) for priority in (0, -1, 2, 0, 60, 2)]
        assert self.order(world, *calls) == [4, 2, 5, 0, 3, 1]

    def test_one_that_has_waited_for_longer_than_the_difference_in_seconds_is_not_overtaken(self, world):
        calls = [self.call(0, 990.0), self.call(0, 998.0), self.call(5)]
        assert self.order(world, *calls) == [0, 2, 1]

    def test_a_low_one_is_overtaken_by_ordinary_ones_that_come_later(self, world):
        assert self.order(world, self.call(-2), self.call(0, 1001.0), self.call(0, 1003.0)) == [1, 0, 2]

    def test_a_queue_that_was_empty_is_a_plain_one_again(self, world):
        lane = lane_in(world, limit=1)
        lane.put(self.call(1))
        lane._done(lane._take(), True, (), 0.0)
        put(lane)
        assert not lane._ranked

    @pytest.mark.parametrize("priority", [MAX_PRIORITY + 1, -MAX_PRIORITY - 1, 0.5, True, "high", 10**20])
    def test_what_is_no_priority_is_refused(self, engine_of, watched, priority):
        with pytest.raises(InvalidArgument, match="it must be a whole number from -60 to 60"):
            submitted(engine_of(watched), priority).result()

    @pytest.mark.parametrize("priority", [MAX_PRIORITY, -MAX_PRIORITY, 1])
    def test_what_is_one_is_taken(self, engine_of, watched, priority):
        assert submitted(engine_of(watched), priority).result()


def submitted(engine: Engine, priority: Any) -> LocalCall:
    call = LocalCall("v", "predict", {}, priority=priority)
    engine.submit(call)
    return call


def test_workers_close_while_one_of_them_is_just_being_started(monkeypatch: pytest.MonkeyPatch) -> None:
    workers, began, go = Workers(2), threading.Event(), threading.Event()
    start = threading.Thread.start

    def slow_start(thread: threading.Thread) -> None:
        if thread.name.startswith("aipod-worker"):
            began.set()
            assert go.wait(BOUND)
        start(thread)

    class Nothing:
        def serve(self, others: object) -> None:
            pass

    monkeypatch.setattr(threading.Thread, "start", slow_start)
    with ThreadPoolExecutor(2) as pool:
        waking = pool.submit(workers.wake, Nothing())  # type: ignore[arg-type]
        assert began.wait(BOUND)
        closing = pool.submit(workers.close, BOUND)
        # What joins too early has the time to.
        wait_for([closing], 0.2)
        go.set()
        waking.result(BOUND)
        assert closing.result(BOUND)

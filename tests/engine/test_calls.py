"""What happens to a call: queues, turns, limits, cancellation, and what the user's code raises."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any, ClassVar

import pytest
from waiting import BOUND, eventually

from aipod.engine import Engine, LocalCall
from aipod.errors import (
    BadVersionName,
    Cancelled,
    ConfigError,
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    ModelError,
    NotSupportedError,
    Overloaded,
)
from aipod.model import AIModelBase, current_call


def lane_of(engine: Engine, version: str = "v") -> Any:
    return next((lane.counts for lane in engine.admin.statistics().lanes if lane.version == version), None)


class TestTurns:
    def test_as_many_calls_run_side_by_side_as_there_are_workers(self, engine_of, watched, background):
        engine = engine_of(watched, rpc_max_workers=3)
        watched.hold_predict["v"] = threading.Event()
        calls = [background(engine.predict, "v") for _ in range(5)]
        eventually(lambda: len(watched.running) == 3 and lane_of(engine).queued == 2)
        watched.hold_predict["v"].set()
        assert len([call.result(BOUND) for call in calls]) == 5

    def test_a_long_queue_of_slow_calls_never_takes_the_last_worker(self, engine_of, watched, background):
        engine = engine_of(watched, rpc_max_workers=3, model_pool_size=2)
        engine.predict("quick")
        engine.predict("slow")
        watched.hold_predict["slow"] = threading.Event()
        calls = [background(engine.predict, "slow") for _ in range(20)]
        eventually(lambda: lane_of(engine, "slow").running == 2 and lane_of(engine, "slow").queued == 18)
        for _ in range(10):
            assert engine.call("predict", "quick", {}, timeout=BOUND)["version"] == "quick"
        watched.hold_predict["slow"].set()
        for call in calls:
            call.result(BOUND)

    def test_calls_of_one_version_keep_their_order_with_one_worker(self, engine_of, watched, background):
        order: list[int] = []
        watched.predict = lambda self, value: order.append(value)
        engine = engine_of(watched, rpc_max_workers=1)
        gate = watched.hold_load["v"] = threading.Event()
        calls = []
        for number in range(20):
            calls.append(background(engine.predict, "v", value=number))
            eventually(lambda: lane_of(engine) and lane_of(engine).queued == len(calls))
        gate.set()
        for call in calls:
            call.result(BOUND)
        assert order == list(range(20))

    @pytest.mark.parametrize("where", ["class", "setting"])
    def test_max_concurrency_holds_for_the_instance(self, engine_of, watched, background, where):
        settings = {}
        if where == "class":
            watched.max_concurrency = 1
        else:
            settings["max_concurrency"] = 1
        inside: list[int] = []
        most: list[int] = []

        def predict(self: AIModelBase) -> None:
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.001)
            inside.pop()

        watched.predict = predict
        engine = engine_of(watched, **settings)
        for call in [background(engine.predict, "v") for _ in range(40)]:
            call.result(BOUND)
        assert set(most) == {1}


class TestBounds:
    def test_a_full_queue_refuses_at_once(self, engine_of, watched, background):
        engine = engine_of(watched, rpc_max_workers=1, max_queue=2)
        watched.hold_predict["v"] = threading.Event()
        calls = [background(engine.predict, "v")]
        eventually(lambda: watched.running == ["v"])
        calls += [background(engine.predict, "v") for _ in range(2)]
        eventually(lambda: lane_of(engine).queued == 2)
        with pytest.raises(
            Overloaded, match=r"2 calls wait for version 'v' already \(AIPOD_MAX_QUEUE\); try again later"
        ):
            engine.predict("v")
        watched.hold_predict["v"].set()
        for call in calls:
            call.result(BOUND)
        assert lane_of(engine).refused == 1

    def test_bytes_that_wait_or_run_are_bounded_too(self, engine_of, watched, background):
        engine = engine_of(watched, max_queue_bytes=2**20)
        watched.hold_predict["v"] = threading.Event()
        large = [LocalCall("v", "predict", {}) for _ in range(3)]
        for call in large:
            call.size_bytes = 600_000
        engine.submit(large[0])
        eventually(lambda: watched.running == ["v"])
        engine.submit(large[1])
        with pytest.raises(Overloaded, match=r"hold 600000 bytes, this one brings 600000, and 1048576 are allowed"):
            large[1].result()
        watched.hold_predict["v"].set()
        large[0].result()
        engine.submit(large[2])
        assert large[2].result()
        eventually(lambda: lane_of(engine).held_bytes == 0)

    @pytest.mark.parametrize("kind", ["def", "async def", "batch"])
    def test_who_has_an_answer_has_room_for_as_much_again_at_once(self, engine_of, kind):
        class Plain(AIModelBase):
            def predict(self) -> str:
                return "done"

        class Async(AIModelBase):
            async def predict(self) -> str:
                return "done"

        class Batch(AIModelBase):
            def predict_batch(self, inputs: list[dict[str, Any]]) -> list[str]:
                return ["done"] * len(inputs)

        class Eager(LocalCall):
            """Sends the next before whoever answers can do anything else."""

            def deliver(self, value: object) -> None:
                engine.submit(following)
                super().deliver(value)

        model = {"def": Plain, "async def": Async, "batch": Batch}[kind]
        engine = engine_of(model, max_queue_bytes=2**20)
        eager, following = Eager("v", "predict", {}), LocalCall("v", "predict", {})
        eager.size_bytes = following.size_bytes = 600_000
        engine.submit(eager)
        assert (eager.result(), following.result()) == ("done", "done")
        eventually(lambda: lane_of(engine).held_bytes == 0)

    def test_a_call_whose_time_is_over_is_not_run(self, engine_of, watched, background):
        engine = engine_of(watched, rpc_max_workers=1)
        gate = watched.hold_predict["v"] = threading.Event()
        first = background(engine.predict, "v")
        eventually(lambda: watched.running == ["v"])
        late = LocalCall("v", "predict", {}, deadline=time.monotonic() + 0.05)
        engine.submit(late)
        eventually(lambda: time.monotonic() > late.deadline)
        gate.set()
        first.result(BOUND)
        eventually(lambda: late.answered)
        assert watched.running == ["v"]
        assert lane_of(engine).expired == 1
        with pytest.raises(DeadlineExceeded, match="while the call waited for its turn"):
            late.result()

    def test_a_cancelled_call_leaves_the_queue_at_once(self, engine_of, watched, background):
        engine = engine_of(watched, rpc_max_workers=1)
        gate = watched.hold_predict["v"] = threading.Event()
        first = background(engine.predict, "v")
        eventually(lambda: watched.running == ["v"])
        waiting = LocalCall("v", "predict", {})
        engine.submit(waiting)
        assert lane_of(engine).queued == 1
        waiting.cancel()
        assert lane_of(engine).queued == 0
        with pytest.raises(Cancelled):
            waiting.result()
        gate.set()
        first.result(BOUND)
        assert watched.running == ["v"]


class TestInside:
    def test_predict_sees_deadline_version_and_cancellation(self, engine_of, watched, background):
        seen: dict[str, object] = {}
        gone = threading.Event()

        def predict(self: AIModelBase) -> None:
            call = current_call()
            seen.update(version=call.version, method=call.method, remaining=call.remaining)
            gone.set()
            while True:
                call.check()
                time.sleep(0.001)

        watched.predict = predict
        engine = engine_of(watched)
        call = LocalCall("v", "predict", {}, deadline=time.monotonic() + BOUND)
        engine.submit(call)
        assert gone.wait(BOUND)
        call.cancel()
        # The model notices, leaves, and the worker is free again.
        eventually(lambda: lane_of(engine).running == 0)
        assert seen["version"] == "v"
        assert seen["method"] == "predict"
        assert 0 < seen["remaining"] <= BOUND
        assert current_call().remaining is None

    @pytest.mark.parametrize(
        ("signature", "sent", "got"),
        [
            pytest.param(lambda self, binary_data: binary_data, {}, b"", id="demanded and not sent"),
            pytest.param(lambda self, binary_data: binary_data, {"binary_data": b"x"}, b"x", id="demanded and sent"),
            pytest.param(lambda self, binary_data=None: binary_data, {}, None, id="has a default of its own"),
            pytest.param(lambda self, **kwargs: kwargs, {}, {}, id="not asked for"),
            pytest.param(lambda self, **kwargs: kwargs, {"binary_data": b"x"}, {"binary_data": b"x"}, id="sent"),
            pytest.param(
                lambda self, timeout, version: [timeout, version], {"timeout": 1, "version": 2}, [1, 2], id="ours"
            ),
        ],
    )
    def test_binary_data_and_our_own_words_reach_the_model(self, engine_of, watched, signature, sent, got):
        watched.predict = signature
        assert engine_of(watched).call("predict", "v", sent) == got

    def test_async_predict_runs_side_by_side_on_one_loop(self, engine_of, background):
        class Async(AIModelBase):
            inside = 0
            threads: ClassVar[set[str]] = set()

            async def predict(self, n: int) -> int:
                type(self).inside += 1
                self.threads.add(threading.current_thread().name)
                while type(self).inside < 50:
                    await asyncio.sleep(0.001)
                return n

        engine = engine_of(Async, rpc_max_workers=1)
        calls = [background(engine.predict, "v", n=n) for n in range(50)]
        assert [call.result(BOUND) for call in calls] == list(range(50))
        assert Async.threads == {"aipod-async"}

    def test_async_predict_is_cancelled_with_its_call(self, engine_of):
        started, ended = threading.Event(), threading.Event()

        class Async(AIModelBase):
            async def predict(self) -> None:
                started.set()
                try:
                    await asyncio.sleep(3600)
                finally:
                    ended.set()

        engine = engine_of(Async)
        call = LocalCall("v", "predict", {})
        engine.submit(call)
        assert started.wait(BOUND)
        call.cancel()
        assert ended.wait(BOUND)
        eventually(lambda: lane_of(engine).running == 0)

    def test_async_predict_keeps_to_max_concurrency(self, engine_of, background):
        class Async(AIModelBase):
            max_concurrency = 2
            inside = 0
            most = 0

            async def predict(self) -> None:
                cls = type(self)
                cls.inside += 1
                cls.most = max(cls.most, cls.inside)
                await asyncio.sleep(0.001)
                cls.inside -= 1

        engine = engine_of(Async)
        for call in [background(engine.predict, "v") for _ in range(30)]:
            call.result(BOUND)
        assert Async.most == 2

    def test_async_train_and_log_are_awaited(self, engine_of):
        class Async(AIModelBase):
            async def train(self) -> int:
                await asyncio.sleep(0)
                return 7

            async def log(self, name: str) -> str:
                return name

            def predict(self) -> None: ...

        engine = engine_of(Async)
        assert engine.train("v") == 7
        assert engine.log("v", name="mine") == "mine"


class Raising(AIModelBase):
    def predict(self, what: str) -> object:
        raise {
            "value": ValueError("no good"),
            "exit": SystemExit(3),
            "interrupt": KeyboardInterrupt(),
            "ours": InvalidArgument("x must be positive"),
            "unprintable": Unprintable(),
            "deep": _deep(),
            "type": TypeError("inside the model"),
            "timeout": TimeoutError("the camera"),
        }[what]


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


def _deep() -> Exception:
    error = last = ValueError("at the top")
    for _ in range(5000):
        last.__cause__ = ValueError("below")
        last = last.__cause__
    return error


class TestErrors:
    @pytest.mark.parametrize(
        ("what", "kind", "text"),
        [
            ("value", ModelError, "ValueError: no good"),
            ("exit", ModelError, "SystemExit: 3"),
            ("interrupt", ModelError, "KeyboardInterrupt"),
            ("ours", InvalidArgument, "x must be positive"),
            ("deep", ModelError, "ValueError: at the top"),
            ("type", ModelError, "TypeError: inside the model"),
            ("timeout", ModelError, "TimeoutError: the camera"),
        ],
    )
    def test_what_the_model_raises_has_its_place_in_the_tree(self, engine_of, what, kind, text):
        engine = engine_of(Raising)
        with pytest.raises(kind) as error:
            engine.predict("v", what=what)
        assert type(error.value) is kind
        assert str(error.value) == text
        # The worker lives on.
        with pytest.raises(InvalidArgument):
            engine.predict("v", what="ours")

    def test_an_exception_that_cannot_be_shown_is_an_error_all_the_same(self, engine_of):
        with pytest.raises(ModelError, match="its message cannot be shown"):
            engine_of(Raising).predict("v", what="unprintable")

    def test_the_traceback_is_the_models_own(self, engine_of):
        with pytest.raises(ModelError) as error:
            engine_of(Raising).predict("v", what="value")
        assert "in predict" in error.value.traceback
        assert "aipod/engine" not in error.value.traceback

    @pytest.mark.parametrize("arguments", [{}, {"what": "value", "more": 1}, {"self": 1, "what": "value"}])
    def test_arguments_that_do_not_fit_are_the_callers_fault(self, engine_of, arguments):
        with pytest.raises(InvalidArgument, match="pass what the method's signature names"):
            engine_of(Raising).call("predict", "v", arguments)

    def test_what_a_model_has_not_got_is_not_supported(self, engine_of):
        engine = engine_of(type("Bare", (AIModelBase,), {}))
        with pytest.raises(NotSupportedError, match=r"Bare has no predict\(\)"):
            engine.predict("v")
        with pytest.raises(NotSupportedError, match=r"Bare has no train\(\)"):
            engine.train("v")
        with pytest.raises(NotSupportedError, match="Bare has no log 'other'"):
            engine.log("v", name="other")

    def test_a_bad_name_touches_nothing(self, engine_of, watched, tmp_path):
        engine = engine_of(watched)
        before = sorted(tmp_path.rglob("*"))
        for method in ("predict", "log", "initialize", "train"):
            for name in ("../../victim", "/etc", ".", "..", "a/b", "a\0b", "-rf", "x" * 201, "e\u0301"):
                with pytest.raises(BadVersionName):
                    engine.call(method, name, {})
        assert sorted(tmp_path.rglob("*")) == before
        assert watched.loads == []


class Odd(InvalidArgument):
    """An error of a user's, derived from ours, that fails at whatever is done with it."""

    status = "TEAPOT"

    def __init__(self) -> None:
        super().__init__("odd")
        self.code = 2**70
        self.name = "\ud800"

    def __str__(self) -> str:
        raise RuntimeError("no")


class TestOdd:
    def test_a_workers_thread_survives_whatever_the_model_raises(self, engine_of, watched):
        def predict(self: AIModelBase, odd: bool = False) -> str:
            if odd:
                raise Odd()
            return "fine"

        watched.predict = predict
        engine = engine_of(watched, rpc_max_workers=1)
        for _ in range(3):
            with pytest.raises(InvalidArgument):
                engine.predict("v", odd=True)
        assert engine.predict("v") == "fine"
        assert lane_of(engine).running == 0

    def test_an_answer_that_cannot_be_delivered_is_an_error_and_not_silence(self, engine_of, watched):
        class Broken(LocalCall):
            def deliver(self, value: object) -> None:
                raise KeyError("a bug of the transport")

        engine = engine_of(watched)
        call = Broken("v", "predict", {}, deadline=time.monotonic() + BOUND)
        engine.submit(call)
        with pytest.raises(InternalError):
            call.result()
        assert engine.predict("v")


class TestEngine:
    def test_it_is_usable_without_a_with_statement(self, watched, tmp_path):
        engine = Engine(watched, data_path=tmp_path)
        try:
            assert engine.predict("v", value=1) == {"version": "v", "value": 1}
        finally:
            assert engine.close()
        with pytest.raises(Exception, match="draining"):
            engine.predict("v")

    def test_what_is_no_model_is_refused(self):
        with pytest.raises(ConfigError, match="is no subclass of AIModelBase"):
            Engine(dict)

    @pytest.mark.parametrize("setting", ["preload", "pin"])
    def test_a_setting_with_a_bad_name_is_refused(self, watched, tmp_path, setting):
        with pytest.raises(ConfigError, match=f"{setting}: '../x' is no version name"):
            Engine(watched, data_path=tmp_path, **{setting: "../x"}).open()

    def test_an_alias_is_resolved_when_the_call_arrives(self, engine_of, watched):
        engine = engine_of(watched)
        engine.initialize("v1")
        engine.initialize("v2")
        engine.admin.set_alias("live", "v1")
        assert engine.predict("live")["version"] == "v1"
        engine.admin.set_alias("live", "v2")
        assert engine.predict("live")["version"] == "v2"
        with pytest.raises(InvalidArgument, match="v2"):
            engine.initialize("live")
        with pytest.raises(InvalidArgument, match="'v1' is a version, and no alias can have its name"):
            engine.admin.set_alias("v1", "v2")
        engine.admin.drop_alias("live")
        assert engine.admin.aliases() == {}

    def test_repr_says_what_is_resident(self, engine_of, watched):
        engine = engine_of(watched)
        engine.predict("v")
        wanted = "<Resident 'v' revision 0 ready, <Lane 'v' open, 0 queued, 0 running>>"
        eventually(lambda: wanted in repr(engine._pool))

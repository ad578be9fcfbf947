"""Batches: a table with a row for each rule of what shares one and what comes of it, then when they are closed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy
import pytest
from waiting import BOUND, eventually

from aipod.engine import Engine, LocalCall
from aipod.engine.batch_size import BatchSize
from aipod.engine.lane import TURN
from aipod.errors import (
    AipodError,
    Cancelled,
    ConfigError,
    DeadlineExceeded,
    InvalidArgument,
    ModelError,
    NotInitialized,
    SerializationError,
    Unavailable,
)
from aipod.model import AIModelBase, current_call
from aipod.model.batching import UNREAD

Inputs = Any


class Gathering(AIModelBase):
    """The first batch waits at the gate, so that others gather behind it. Each test gets a class of its own."""

    gate: threading.Event
    seen: list[Any]

    def predict_batch(self, inputs: Inputs) -> Any:
        self.seen.append(inputs)
        if len(self.seen) == 1:
            assert self.gate.wait(BOUND)
            return numpy.zeros(1) if self.stacked else [None] * len(inputs)
        return self.work(inputs)

    def work(self, inputs: Inputs) -> Any:
        return [one["x"] for one in inputs]


@pytest.fixture
def gathering() -> Iterator[Callable[..., type[Gathering]]]:
    gates: list[threading.Event] = []

    def make(**attributes: Any) -> type[Gathering]:
        gates.append(threading.Event())
        return type("Gathering", (Gathering,), {"gate": gates[-1], "seen": [], **attributes})

    yield make
    for gate in gates:
        gate.set()


def lane_of(engine: Engine, version: str = "v") -> Any:
    return next((lane for lane in engine.admin.statistics().lanes if lane.version == version), None)


def gather(engine: Engine, sent: list[dict[str, Any]], first: dict[str, Any] | None = None) -> list[LocalCall]:
    """Have one call run and hold the others up, until all of them wait."""
    model: Any = engine.model_class
    calls = [LocalCall("v", "predict", kwargs) for kwargs in [{"x": -1} if first is None else first, *sent]]
    engine.submit(calls[0])
    eventually(lambda: len(model.seen) == 1)
    for call in calls[1:]:
        engine.submit(call)
    assert lane_of(engine).counts.queued == len(sent)
    return calls[1:]


def outcome(call: LocalCall) -> Any:
    try:
        return call.result()
    except AipodError as error:
        return type(error), str(error)


def plain(value: Any) -> Any:
    """Arrays as lists, for comparisons."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain, value))
    return value.tolist() if isinstance(value, (numpy.ndarray, numpy.generic)) else value


def xs(*values: Any) -> list[dict[str, Any]]:
    return [{"x": value} for value in values]


def raising(error: BaseException, bad: int = 3) -> Callable[[Any, Inputs], Any]:
    """A model that fails for an input of ``bad``, whatever is with it."""

    def work(self: AIModelBase, inputs: Inputs) -> Any:
        if any(one["x"] == bad for one in inputs):
            raise error
        return [one["x"] * 10 for one in inputs]

    return work


def returning(outputs: Any) -> Callable[[Any, Inputs], Any]:
    return lambda self, inputs: outputs


WRONG = "; return a list with one for each"
STACK = {"stacked": True}


@dataclass
class Row:
    """What is sent, which batches the model sees, and what each caller gets."""

    rule: str
    sent: list[dict[str, Any]]
    batches: list[Any]
    answers: list[Any]
    attributes: dict[str, Any] = field(default_factory=dict)


TABLE = [
    Row("what waits is taken together, in its order", xs(1, 2, 3), [xs(1, 2, 3)], [1, 2, 3]),
    Row("never more than max_batch_size", xs(*range(7)), [xs(0, 1, 2), xs(3, 4, 5), xs(6)], list(range(7)), {
        "max_batch_size": 3,
    }),
    Row("an exception among the outputs fails its call alone", xs(1, 2), [xs(1, 2)], [
        1, (ModelError, "ValueError: two"),
    ], {"work": returning([1, ValueError("two")])}),
    Row("and keeps its class if it is one of ours", xs(1, 2), [xs(1, 2)], [
        (InvalidArgument, "one"), 2,
    ], {"work": returning([InvalidArgument("one"), 2])}),
    Row("a returned TypeError is the model's own", xs(1), [xs(1)], [(ModelError, "TypeError: no")], {
        "work": returning([TypeError("no")]),
    }),
    Row("a batch that raises is tried in halves", xs(1, 2, 3, 4), [
        xs(1, 2, 3, 4), xs(1, 2), xs(3, 4), xs(3), xs(4),
    ], [10, 20, (ModelError, "ValueError: bad"), 40], {"work": raising(ValueError("bad"))}),
    Row("halves of an odd number", xs(1, 2, 3), [xs(1, 2, 3), xs(1), xs(2, 3), xs(2), xs(3)], [
        10, 20, (InvalidArgument, "bad"),
    ], {"work": raising(InvalidArgument("bad"))}),
    Row("a server that is away is not the input's fault", xs(1, 2, 3), [xs(1, 2, 3)], [(Unavailable, "gone")] * 3, {
        "work": raising(Unavailable("gone")),
    }),
    Row("a version without data neither", xs(2, 3), [xs(2, 3)], [(NotInitialized, str(NotInitialized("v")))] * 2, {
        "work": raising(NotInitialized("v")),
    }),
    Row("want of memory neither", xs(2, 3), [xs(2, 3)], [(ModelError, "MemoryError")] * 2, {
        "work": raising(MemoryError()),
    }),
    Row("a broken connection neither", xs(2, 3), [xs(2, 3)], [(ModelError, "ConnectionResetError: db")] * 2, {
        "work": raising(ConnectionResetError("db")),
    }),
    Row("nor an exit", xs(2, 3), [xs(2, 3)], [(ModelError, "SystemExit: 3")] * 2, {"work": raising(SystemExit(3))}),
    Row("too few outputs fail all", xs(1, 2), [xs(1, 2)], [
        (ModelError, f"predict_batch() returned 1 outputs for 2 inputs{WRONG}"),
    ] * 2, {"work": returning([1])}),
    Row("too many do", xs(1, 2), [xs(1, 2)], [
        (ModelError, f"predict_batch() returned 3 outputs for 2 inputs{WRONG}"),
    ] * 2, {"work": returning([1, 2, 3])}),
    Row("None does", xs(1, 2), [xs(1, 2)], [
        (ModelError, f"predict_batch() returned None for 2 inputs{WRONG}"),
    ] * 2, {"work": returning(None)}),
    Row("a dictionary does", xs(1), [xs(1)], [(ModelError, f"predict_batch() returned dict for 1 inputs{WRONG}")], {
        "work": returning({"y": 1}),
    }),
    Row("text does, although it has a length", xs(1, 2), [xs(1, 2)], [
        (ModelError, f"predict_batch() returned str for 2 inputs{WRONG}"),
    ] * 2, {"work": returning("ab")}),
    Row("an array of outputs is as good as a list", xs(1, 2), [xs(1, 2)], [[1, 2], [3, 4]], {
        "work": returning(numpy.array([[1, 2], [3, 4]])),
    }),
    Row("a tuple is, too", xs(1, 2), [xs(1, 2)], ["a", "b"], {"work": returning(("a", "b"))}),
    Row("calls of different keys never share a batch", xs("a1", "b1", "a2", "c1"), [
        xs("a1", "a2"), xs("b1"), xs("c1"),
    ], ["a1", "b1", "a2", "c1"], {"batch_key": lambda self, kwargs: str(kwargs["x"])[0]}),
    Row("nor do more than max_batch_size of one", xs("a", "a", "b", "a"), [xs("a", "a"), xs("b"), xs("a")], [
        "a", "a", "b", "a",
    ], {"batch_key": lambda self, kwargs: kwargs["x"], "max_batch_size": 2}),
    Row("a key that is none fails its call alone", xs("a", ["b"], "c"), [xs("a", "c")], [
        "a", (ModelError, "batch_key() returned list; return text, a number, None, or a tuple of those"), "c",
    ], {"batch_key": lambda self, kwargs: None if isinstance(kwargs["x"], (str, int)) else kwargs["x"]}),
    Row("a batch_key that raises fails its call alone", [{"y": 1}, {"x": 1}], [xs(1)], [
        (ModelError, "KeyError: 'x'"), 1,
    ], {"batch_key": lambda self, kwargs: kwargs["x"] and None}),
    Row("stacked: numbers and lists of them are arrays", [{"x": 1, "y": [1.0, 2.0]}, {"x": 2, "y": [3.0, 4.0]}], [
        {"x": [1, 2], "y": [[1.0, 2.0], [3.0, 4.0]]},
    ], [3.0, 7.0], {**STACK, "work": lambda self, inputs: inputs["y"].sum(axis=1)}),
    Row("stacked: what has no array is a list", [{"x": "a", "b": b"1"}, {"x": "b", "b": b"2"}], [
        {"x": ["a", "b"], "b": [b"1", b"2"]},
    ], ["a", "b"], {**STACK, "work": lambda self, inputs: inputs["x"]}),
    Row("stacked: a dictionary is taken apart", xs(1, 2), [{"x": [1, 2]}], [
        {"y": [2, 2], "s": "a"}, {"y": [4, 4], "s": "b"},
    ], {**STACK, "work": lambda self, inputs: {"y": numpy.stack([2 * inputs["x"]] * 2, 1), "s": ["a", "b"]}}),
    Row("stacked: a tuple is, too", xs(1, 2), [{"x": [1, 2]}], [(1, -1), (2, -2)], {
        **STACK, "work": lambda self, inputs: (inputs["x"], -inputs["x"]),
    }),
    Row("stacked: an exception in a list fails its call alone", xs(1, 2), [{"x": [1, 2]}], [
        1, (ModelError, "ValueError: two"),
    ], {**STACK, "work": returning([1, ValueError("two")])}),
    Row("stacked: an output of another length fails all", xs(1, 2), [{"x": [1, 2]}], [(
        ModelError,
        "predict_batch() returned dict for 2 inputs; return an array or a list, or a dictionary or a tuple of those,"
        " with one for each",
    )] * 2, {**STACK, "work": lambda self, inputs: {"y": inputs["x"], "z": inputs["x"][:1]}}),
    Row("stacked: one number for all fails all", xs(1, 2), [{"x": [1, 2]}], [(
        ModelError,
        "predict_batch() returned ndarray for 2 inputs; return an array or a list, or a dictionary or a tuple of"
        " those, with one for each",
    )] * 2, {**STACK, "work": lambda self, inputs: numpy.array(3)}),
    Row("stacked: other shapes, names or dtypes are apart", [
        {"x": [1, 2]}, {"x": [1]}, {"x": [3, 4]}, {"x": [1.0, 2.0]}, {"x": [5, 6], "y": 1},
    ], [{"x": [[1, 2], [3, 4]]}, {"x": [[1]]}, {"x": [[1.0, 2.0]]}, {"x": [[5, 6]], "y": [1]}], [3, 1, 7, 3.0, 11], {
        **STACK, "work": lambda self, inputs: inputs["x"].sum(axis=1),
    }),
    Row("stacked: or padded, by choice", [{"x": [1, 2]}, {"x": [1]}, {"x": [[1]]}], [
        {"x": [[1, 2], [1, -1]]}, {"x": [[[1]]]},
    ], [3, 0, 1], {
        **STACK, "ragged": "pad", "pad_value": -1,
        "work": lambda self, inputs: inputs["x"].reshape(len(inputs["x"]), -1).sum(axis=1),
    }),
    Row("stacked: a list that is ragged in itself fails its call alone", [{"x": [[1], [1, 2]]}, {"x": [1]}], [
        {"x": [[1]]},
    ], [(InvalidArgument, "x: its rows differ in length or depth; send rows of one length"), 1], {
        **STACK, "work": lambda self, inputs: inputs["x"][:, 0],
    }),
    Row("stacked: a batch that raises is tried in halves", xs(4, -1), [{"x": [4, -1]}, {"x": [4]}, {"x": [-1]}], [
        40, (ModelError, "ValueError: bad"),
    ], {**STACK, "work": lambda self, inputs: raising(ValueError("bad"), -1)(self, [{"x": x} for x in inputs["x"]])}),
]  # fmt: skip


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.rule)
@pytest.mark.parametrize("way", ["def", "async def"])
def test_the_table_of_batches(engine_of, gathering, row: Row, way: str):
    model = gathering(**row.attributes)
    if way == "async def":
        predict_batch = model.predict_batch

        async def predict_batch_async(self: Any, inputs: Inputs) -> Any:
            await asyncio.sleep(0)
            return await asyncio.to_thread(predict_batch, self, inputs)

        model.predict_batch = predict_batch_async  # type: ignore[method-assign]
    engine = engine_of(model)
    first = {name: -1 for name in row.sent[0]} if row.attributes.get("stacked") else {"x": -1}
    calls = gather(engine, row.sent, first)
    model.gate.set()
    answers = [plain(outcome(call)) for call in calls]
    assert plain(model.seen[1:]) == row.batches
    assert answers == row.answers
    statistics = lane_of(engine)
    eventually(lambda: lane_of(engine).counts.running == 0)
    assert statistics.counts.queued == 0
    failures = [answer for answer in answers if isinstance(answer, tuple) and isinstance(answer[0], type)]
    eventually(lambda: lane_of(engine).counts.failed == len(failures))
    assert lane_of(engine).counts.done == 1 + len(calls)


class TestWhoEnters:
    def test_cancelled_and_expired_calls_never_do_and_others_take_their_places(self, engine_of, gathering):
        model = gathering(max_batch_size=3)
        engine = engine_of(model)
        calls = gather(engine, xs(*range(5)))
        late = LocalCall("v", "predict", {"x": "late"}, deadline=time.monotonic() + 0.02)
        engine.submit(late)
        calls[0].cancel()
        calls[2].cancel()
        eventually(lambda: time.monotonic() > late.deadline)
        model.gate.set()
        assert [outcome(call) for call in calls if not call.cancelled] == [1, 3, 4]
        eventually(lambda: late.answered)
        assert model.seen[1:] == [xs(1, 3, 4)]
        assert outcome(calls[0])[0] is Cancelled
        assert outcome(late)[0] is DeadlineExceeded
        assert (lane_of(engine).counts.cancelled, lane_of(engine).counts.expired) == (2, 1)

    def test_a_caller_that_gives_up_among_32_costs_the_others_nothing(self, engine_of, gathering):
        inside, go_on = threading.Event(), threading.Event()

        def work(self: Gathering, inputs: Inputs) -> Any:
            inside.set()
            assert go_on.wait(BOUND)
            return [one["x"] for one in inputs]

        model = gathering(work=work)
        engine = engine_of(model)
        calls = gather(engine, xs(*range(32)))
        model.gate.set()
        assert inside.wait(BOUND)
        calls[7].cancel()
        assert outcome(calls[7])[0] is Cancelled
        go_on.set()
        assert [outcome(call) for call in calls if call is not calls[7]] == [x for x in range(32) if x != 7]
        eventually(lambda: lane_of(engine).counts.running == 0)

    def test_a_call_that_is_answered_meanwhile_is_not_tried_again(self, engine_of, gathering):
        def work(self: Gathering, inputs: Inputs) -> Any:
            if len(inputs) == 4:
                calls[1].cancel()
                raise ValueError("all")
            return [one["x"] for one in inputs]

        model = gathering(work=work)
        engine = engine_of(model)
        calls = gather(engine, xs(1, 2, 3, 4))
        model.gate.set()
        assert [outcome(call) for call in (calls[0], calls[2], calls[3])] == [1, 3, 4]
        assert model.seen[1:] == [xs(1, 2, 3, 4), xs(1), xs(3, 4)]

    def test_what_cannot_be_decoded_fails_alone(self, engine_of, gathering):
        class Unreadable(LocalCall):
            def arguments(self) -> dict[str, Any]:
                raise SerializationError("kwargs", "no")

        model = gathering()
        engine = engine_of(model)
        bad = Unreadable("v", "predict", {})
        calls = gather(engine, xs(1))
        engine.submit(bad)
        engine.submit(last := LocalCall("v", "predict", {"x": 2}))
        model.gate.set()
        assert [outcome(call) for call in (*calls, bad, last)] == [1, (SerializationError, "kwargs: no"), 2]
        assert model.seen[1:] == [xs(1, 2)]

    def test_a_log_of_the_models_own_waits_for_nobody(self, engine_of, gathering):
        engine = engine_of(gathering(log=lambda self, name: name, batch_timeout=3600.0))
        waiting = LocalCall("v", "predict", {"x": 1})
        engine.submit(waiting)
        # Until whoever looked at it has gone, and would be back in an hour.
        eventually(lambda: [one for one in engine._pool.residents() if one.lane._alarm])
        assert engine.call("log", "v", {"name": "mine"}, timeout=BOUND) == "mine"
        assert not waiting.answered
        waiting.cancel()

    def test_a_log_of_the_models_own_is_no_part_of_a_batch(self, engine_of, gathering):
        model = gathering(log=lambda self, name: name)
        engine = engine_of(model)
        calls = gather(engine, xs(1))
        engine.submit(log := LocalCall("v", "log", {"name": "mine"}))
        engine.submit(last := LocalCall("v", "predict", {"x": 2}))
        model.gate.set()
        assert [outcome(call) for call in (*calls, log, last)] == [1, "mine", 2]
        assert model.seen[1:] == [xs(1, 2)]
        assert lane_of(engine).batches.batches == 2

    def test_a_higher_priority_enters_first_and_nobody_waits_for_ever(self, engine_of, gathering):
        model = gathering(max_batch_size=2)
        engine = engine_of(model)
        calls = gather(engine, xs(1, 2))
        # One that has waited for longer than the difference of priorities goes first all the same.
        calls += [LocalCall("v", "predict", {"x": name}, priority=value) for name, value in [("low", -5), ("high", 5)]]
        calls += [old := LocalCall("v", "predict", {"x": "old"}, priority=-1)]
        old.arrived -= 60.0
        for call in calls[2:]:
            engine.submit(call)
        model.gate.set()
        for call in calls:
            outcome(call)
        assert model.seen[1:] == [xs("old", "high"), xs(1, 2), xs("low")]


class TestWhen:
    def test_a_full_batch_waits_for_nobody(self, engine_of, gathering):
        engine = engine_of(gathering(batch_timeout=3600.0, max_batch_size=3))
        engine.model_class.gate.set()
        calls = [LocalCall("v", "predict", {"x": x}) for x in range(3)]
        for call in calls:
            engine.submit(call)
        for call in calls:
            call.result()
        assert engine.model_class.seen == [xs(0, 1, 2)]

    def test_one_that_is_not_full_waits_for_batch_timeout(self, engine_of, gathering):
        model = gathering(batch_timeout=0.05)
        model.gate.set()
        engine = engine_of(model)
        call = LocalCall("v", "predict", {"x": 1})
        engine.submit(call)
        call.result()
        assert call.started - call.arrived >= 0.05

    def test_those_of_several_keys_wait_for_theirs(self, engine_of, gathering):
        model = gathering(batch_timeout=0.02, batch_key=lambda self, kwargs: kwargs["x"])
        engine = engine_of(model)
        calls = gather(engine, xs("a", "b", "a"))
        model.gate.set()
        for call in calls:
            call.result()
        assert model.seen[1:] == [xs("a", "a"), xs("b")]
        assert all(call.started - calls[0].arrived >= 0.02 for call in calls)

    def test_a_full_batch_of_one_key_does_not_wait_behind_another(self, engine_of, gathering):
        model = gathering(batch_timeout=3600.0, max_batch_size=2, batch_key=lambda self, kwargs: kwargs["x"])
        model.gate.set()
        engine = engine_of(model)
        waiting = LocalCall("v", "predict", {"x": "a"})
        calls = [LocalCall("v", "predict", {"x": "b"}) for _ in range(2)]
        for call in (waiting, *calls):
            engine.submit(call)
        for call in calls:
            call.result()
        assert not waiting.answered
        waiting.cancel()

    def test_what_comes_while_a_batch_is_put_together_is_not_left_behind(self, engine_of, gathering):
        def batch_key(self: Gathering, kwargs: dict[str, Any]) -> None:
            if kwargs["x"] == "first":
                engine.submit(second)

        model = gathering(batch_timeout=3600.0, max_batch_size=2, batch_key=batch_key)
        model.gate.set()
        engine = engine_of(model)
        engine.admin.load("v")
        first, second = (LocalCall("v", "predict", {"x": x}) for x in ("first", "second"))
        engine.submit(first)
        # As if the alarm had rung for another.
        engine._pool.residents()[0].lane._announce()
        assert (outcome(first), outcome(second)) == (None, None)
        assert model.seen == [xs("first", "second")]

    def test_a_limit_that_shrinks_takes_the_next_slot_that_comes_free(self, engine_of, gathering):
        gates = [threading.Event(), threading.Event()]

        class Model(AIModelBase):
            max_batch_size = 1
            running: ClassVar[list[int]] = []

            def predict_batch(self, inputs: Inputs) -> Any:
                self.running.append(inputs[0]["x"])
                assert gates[min(inputs[0]["x"], 1)].wait(BOUND)
                return inputs

        engine = engine_of(Model, max_concurrency=2, rpc_max_workers=2, model_pool_size=2)
        engine.admin.load("v")
        calls = [LocalCall("v", "predict", {"x": x}) for x in range(4)]
        for call in calls:
            engine.submit(call)
        eventually(lambda: sorted(Model.running) == [0, 1])
        # With two versions loaded, neither may have both workers.
        engine.admin.load("other")
        gates[0].set()
        calls[0].result()
        eventually(lambda: engine.admin.statistics().workers_busy == 1)
        assert sorted(Model.running) == [0, 1]
        gates[1].set()
        for call in calls:
            call.result()

    def test_a_server_that_ends_waits_for_no_more_calls(self, engine_of, gathering):
        model = gathering(batch_timeout=3600.0)
        engine = engine_of(model)
        model.gate.set()
        engine.admin.load("v")
        call = LocalCall("v", "predict", {"x": 1})
        engine.submit(call)
        assert lane_of(engine).counts.queued == 1
        assert engine.close(BOUND)
        assert outcome(call) is None
        assert model.seen == [xs(1)]

    @pytest.mark.parametrize(("settings", "together"), [({}, 1), ({"max_concurrency": 2}, 2)])
    def test_max_concurrency_counts_batches_and_one_runs_at_a_time_without(self, engine_of, settings, together):
        gate = threading.Event()
        running: list[int] = []

        class Model(AIModelBase):
            max_batch_size = 2

            def predict_batch(self, inputs: Inputs) -> Any:
                running.append(len(inputs))
                assert gate.wait(BOUND)
                return inputs

        engine = engine_of(Model, **settings)
        engine.admin.load("v")
        calls = [LocalCall("v", "predict", {"x": x}) for x in range(8)]
        for call in calls:
            engine.submit(call)
        eventually(lambda: len(running) == together)
        assert engine.admin.statistics().workers_busy == together
        gate.set()
        for number, call in enumerate(calls):
            assert call.result() == {"x": number}

    @pytest.mark.parametrize("workers", [1, 2, 12])
    def test_a_batch_is_answered_and_the_next_is_read_while_one_runs(self, engine_of, gathering, workers):
        second, go_on = threading.Event(), threading.Event()

        def work(self: Gathering, inputs: Inputs) -> Any:
            if len(self.seen) == 3:
                second.set()
                assert go_on.wait(BOUND)
            return [one["x"] for one in inputs]

        model = gathering(work=work, max_batch_size=4)
        engine = engine_of(model, rpc_max_workers=workers)
        calls = gather(engine, xs(*range(8)))
        model.gate.set()
        assert second.wait(BOUND)
        assert [outcome(call) for call in calls[:4]] == [0, 1, 2, 3]
        # The batch after that is still with the model.
        assert lane_of(engine).batches.batches == 2
        later = [LocalCall("v", "predict", {"x": x}) for x in range(4)]
        eventually(lambda: engine._workers._idle or workers == 1)
        for call in later:
            engine.submit(call)
        if workers > 1:
            eventually(lambda: all(call.entry is not UNREAD for call in later))
        go_on.set()
        assert [outcome(call) for call in (*calls[4:], *later)] == [4, 5, 6, 7, 0, 1, 2, 3]

    def test_versions_take_turns(self, engine_of):
        class Model(AIModelBase):
            turns: ClassVar[list[str]] = []
            gate = threading.Event()
            max_batch_size = 1

            def predict_batch(self, inputs: Inputs) -> Any:
                self.turns.append(self.version)
                assert self.gate.wait(BOUND)
                # Longer than a turn.
                end = time.monotonic() + 2 * TURN
                eventually(lambda: time.monotonic() > end)
                return inputs

        engine = engine_of(Model, rpc_max_workers=1, model_pool_size=2)
        for version in ("a", "b"):
            engine.admin.load(version)
        calls = [LocalCall(version, "predict", {}) for version in ("a",) * 8 + ("b",) * 8]
        for call in calls:
            engine.submit(call)
        Model.gate.set()
        for call in calls:
            call.result()
        assert Model.turns == ["a", "b"] * 8


class TestSize:
    def test_the_size_that_keeps_to_the_target_is_found(self):
        size = BatchSize(most=64, target=0.010)
        found = []
        for _ in range(300):
            count = size.limit
            size.ran(count, 0.005 + 0.0002 * count)
            found.append(count)
        # 25 take 10 ms.
        assert found[0] == 1
        assert set(found[50:]) <= set(range(22, 27))
        assert 25 in found[50:]

    def test_it_follows_a_model_that_becomes_slower(self):
        size = BatchSize(most=64, target=0.010)
        for _ in range(100):
            size.ran(size.limit, 0.001)
        assert size.limit == 64
        for _ in range(100):
            size.ran(size.limit, 0.002 * size.limit)
        assert size.limit <= 6

    def test_batches_that_are_not_full_tell_nothing(self):
        size = BatchSize(most=64, target=0.010)
        for _ in range(9):
            size.ran(size.limit, 0.001)
        assert size.limit == 10
        for _ in range(100):
            size.ran(3, 0.001)
        assert size.limit == 10

    def test_nothing_is_too_slow_for_a_batch_of_one_and_no_target_is_the_most(self):
        size = BatchSize(most=64, target=0.010)
        for _ in range(100):
            size.ran(1, 10.0)
        assert size.limit == 1
        size = BatchSize(most=64, target=0.0)
        size.ran(64, 10.0)
        assert size.limit == 64

    def test_what_was_chosen_is_shown(self, engine_of, gathering):
        model = gathering(latency_target=3600.0)
        engine = engine_of(model)
        calls = gather(engine, xs(*range(6)))
        model.gate.set()
        for call in calls:
            call.result()
        batches = lane_of(engine).batches
        # One, then each time one more than before.
        assert [len(inputs) for inputs in model.seen] == [1, 2, 3, 1]
        assert (batches.batches, batches.calls, batches.runs, batches.last_size) == (4, 7, 4, 1)
        assert batches.mean_size == 7 / 4
        assert batches.size_limit == 4

    def test_settings_are_stronger_than_the_class(self, engine_of, gathering, monkeypatch):
        monkeypatch.setenv("AIPOD_MAX_BATCH_SIZE", "3")
        model = gathering(max_batch_size=2)
        engine = engine_of(model)
        gather(engine, xs(*range(6)))
        model.gate.set()
        eventually(lambda: [len(inputs) for inputs in model.seen] == [1, 3, 3])

    @pytest.mark.parametrize(("name", "value"), [("stacked", 1), ("ragged", "padd"), ("pad_value", "0")])
    def test_a_class_that_makes_no_sense_is_refused(self, engine_of, gathering, name, value):
        with pytest.raises(ConfigError, match=f"^{name} of the model class is {value!r}; it must be "):
            engine_of(gathering(**{name: value}))


class TestContract:
    def test_a_model_sees_the_whole_batch_as_its_call(self, engine_of, gathering):
        views: list[Any] = []

        def work(self: Gathering, inputs: Inputs) -> Any:
            view = current_call()
            views.append((view.version, view.method, view.deadline, view.cancelled))
            calls[0].cancel()
            views.append(view.cancelled)
            calls[1].cancel()
            views.append(view.cancelled)
            view.check()

        model = gathering(work=work)
        engine = engine_of(model)
        calls = gather(engine, xs(1))
        calls.append(LocalCall("v", "predict", {"x": 2}, deadline=time.monotonic() + BOUND))
        engine.submit(calls[1])
        model.gate.set()
        eventually(lambda: lane_of(engine).counts.running == 0 and lane_of(engine).counts.queued == 0)
        assert views == [("v", "predict", None, False), False, True]
        assert len(model.seen) == 2

    @pytest.mark.parametrize("way", [raising, lambda error: returning([error, error])], ids=["raised", "returned"])
    def test_an_error_for_several_calls_is_one_of_its_own_for_each(self, engine_of, gathering, way):
        error = Unavailable("gone")
        model = gathering(work=way(error))
        engine = engine_of(model)
        calls = gather(engine, xs(3, 3))
        model.gate.set()
        errors = []
        for call in calls:
            with pytest.raises(Unavailable) as caught:
                call.result()
            errors.append(caught.value)
        assert len({id(one) for one in (error, *errors)}) == 3
        # So no client tries it again.
        assert all(one.by_model for one in errors)

    def test_the_traceback_is_the_models_own(self, engine_of, gathering):
        model = gathering(work=raising(ValueError("bad")))
        engine = engine_of(model)
        [call] = gather(engine, xs(3))
        model.gate.set()
        with pytest.raises(ModelError) as caught:
            call.result()
        assert "in predict_batch" in caught.value.traceback
        assert "aipod/engine" not in caught.value.traceback

    def test_a_predict_batch_of_1_0_is_the_models_own(self, engine_of, caplog):
        class Old(AIModelBase):
            def predict_batch(self, images: Any, size: int = 2) -> Any:
                raise AssertionError

            def predict(self, x: int) -> int:
                return x

        assert engine_of(Old).predict("v", x=1) == 1
        assert "Old.predict_batch is not used: it does not take (inputs)" in caplog.text

    def test_one_beside_a_predict_answers_if_it_takes_inputs(self, engine_of):
        class Both(AIModelBase):
            def predict_batch(self, inputs: Inputs) -> Any:
                return ["batch"] * len(inputs)

            def predict(self) -> str:
                return "alone"

        assert engine_of(Both).predict("v") == "batch"
        assert Both().predict() == "alone"

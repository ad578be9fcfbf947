"""Whatever is mixed into batches, every call is answered once, with its own answer."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import BOUND, eventually

from aipod.engine import Call, Engine
from aipod.errors import AipodError, Cancelled, DeadlineExceeded, InvalidArgument, ModelError
from aipod.model import AIModelBase

# What each kind of call gets.
KINDS: dict[str, tuple[type, ...]] = {
    "good": (int,),
    "raises": (ModelError,),
    "is refused": (InvalidArgument,),
    "returns an error": (ModelError,),
    "cannot be read": (InvalidArgument,),
    "has no key": (ModelError,),
    "is late": (DeadlineExceeded,),
    "is cancelled before": (Cancelled,),
    # It may win or lose the race.
    "is cancelled meanwhile": (Cancelled, int),
}


class Mixed(AIModelBase):
    max_batch_size = 5

    def batch_key(self, kwargs: dict[str, Any]) -> Any:
        return object() if kwargs["kind"] == "has no key" else kwargs["key"]

    def predict_batch(self, inputs: list[dict[str, Any]]) -> list[Any]:
        kinds = {one["kind"] for one in inputs}
        assert len({one["key"] for one in inputs}) == 1
        assert len(inputs) <= self.max_batch_size
        if "is refused" in kinds:
            raise InvalidArgument("no")
        if "raises" in kinds:
            raise ValueError("no")
        return [KeyError("no") if one["kind"] == "returns an error" else one["number"] for one in inputs]


class AsyncMixed(Mixed):
    async def predict_batch(self, inputs: list[dict[str, Any]]) -> list[Any]:  # type: ignore[override]
        return super().predict_batch(inputs)


class Noted(Call):
    """A call that keeps every answer it gets."""

    def __init__(self, kind: str, key: int, priority: int, number: int) -> None:
        late = time.monotonic() - 1.0 if kind == "is late" else None
        super().__init__("v", "predict", late, 10, priority)
        self.kind, self.key, self.number = kind, key, number
        self.answers: list[Any] = []

    def arguments(self) -> dict[str, Any]:
        if self.kind == "cannot be read":
            raise InvalidArgument("cannot be read")
        return {"kind": self.kind, "key": self.key, "number": self.number}

    def deliver(self, value: object) -> None:
        self.answers.append(value)

    def deliver_error(self, error: AipodError) -> None:
        self.answers.append(error)


@pytest.mark.parametrize(("model", "workers"), [(Mixed, 1), (Mixed, 4), (AsyncMixed, 1)])
def test_every_call_is_answered_once_with_its_own_answer(model: type[Mixed], workers: int, tmp_path: Path) -> None:
    kinds, keys, priorities = st.sampled_from(sorted(KINDS)), st.integers(0, 1), st.sampled_from([0, 0, 0, 5])
    with Engine(model, data_path=tmp_path, rpc_max_workers=workers) as engine:
        engine.admin.load("v")

        @given(st.lists(st.tuples(kinds, keys, priorities), max_size=40))
        def check(sent: list[tuple[str, int, int]]) -> None:
            answered_as_they_should(engine, [Noted(*one, number) for number, one in enumerate(sent)])

        check()


def answered_as_they_should(engine: Engine, calls: list[Noted]) -> None:
    def cancel() -> None:
        for call in calls:
            if call.kind == "is cancelled meanwhile":
                call.cancel()

    canceller = threading.Thread(target=cancel)
    for call in calls:
        if call.number == len(calls) // 2:
            canceller.start()
        if call.kind == "is cancelled before":
            call.cancel()
        engine.submit(call)
    if calls:
        canceller.join(BOUND)
    eventually(lambda: all(call.answers for call in calls))
    lane = engine._pool.residents()[0].lane
    eventually(lambda: lane.idle and lane.busy == 0)
    for call in calls:
        [answer] = call.answers
        assert isinstance(answer, KINDS[call.kind]), (call.kind, answer)
        assert answer == call.number or not isinstance(answer, int)
    counts = lane.statistics()
    assert (counts.queued, counts.running, counts.held_bytes) == (0, 0, 0)

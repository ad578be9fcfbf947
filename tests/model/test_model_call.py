"""What a model sees of the call that it answers."""

from __future__ import annotations

import asyncio
import contextvars
import time
from dataclasses import dataclass

import pytest

from aipod.errors import Cancelled, DeadlineExceeded
from aipod.model import current_call
from aipod.model.call import running


@dataclass
class Call:
    version: str = "v1"
    method: str = "predict"
    deadline: float | None = None
    cancelled: bool = False


def test_outside_of_a_call_nobody_gives_up() -> None:
    view = current_call()
    view.check()
    assert (view.cancelled, view.deadline, view.remaining, view.version) == (False, None, None, "")


def test_a_call_shows_its_version_method_and_time_left() -> None:
    with running(Call(deadline=time.monotonic() + 100)):
        view = current_call()
        assert (view.version, view.method) == ("v1", "predict")
        assert view.remaining is not None
        assert 0 < view.remaining <= 100
        view.check()


def test_a_view_sees_that_the_caller_gives_up_later() -> None:
    call = Call()
    with running(call):
        view = current_call()
        view.check()
        call.cancelled = True
        assert view.cancelled
        with pytest.raises(Cancelled):
            view.check()


def test_a_call_past_its_deadline_has_no_time_left() -> None:
    with running(Call(deadline=time.monotonic() - 1)):
        assert current_call().remaining == 0.0
        with pytest.raises(DeadlineExceeded):
            current_call().check()


def test_the_call_before_comes_back_even_after_an_error() -> None:
    with running(Call(version="outer")):
        with pytest.raises(KeyError), running(Call(version="inner")):
            assert current_call().version == "inner"
            raise KeyError
        assert current_call().version == "outer"
    assert current_call().version == ""


def test_tasks_on_one_loop_do_not_see_each_others_call() -> None:
    async def predict(version: str) -> str:
        with running(Call(version=version)):
            await asyncio.sleep(0)
            return current_call().version

    async def both() -> list[str]:
        return await asyncio.gather(predict("a"), predict("b"))

    assert asyncio.run(both()) == ["a", "b"]


def test_a_copied_context_carries_the_call() -> None:
    with running(Call(version="v7")):
        context = contextvars.copy_context()
    assert context.run(lambda: current_call().version) == "v7"

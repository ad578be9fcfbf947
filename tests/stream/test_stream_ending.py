"""How what runs side by side comes to an end."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any

import pytest

from aipod.stream.ending import end, first_of


def complaints(main: Coroutine[Any, Any, None]) -> list[str]:
    """Run it; what the loop has to complain of, such as an error that nobody has asked for."""
    found: list[str] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: found.append(str(context["message"])))
        await main
        gc.collect()  # that is when it complains
        await asyncio.sleep(0)

    asyncio.run(run())
    return found


async def failing(error: Exception, turns: int = 0) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)
    raise error


def test_of_several_that_fail_at_once_the_first_is_raised_and_none_is_left_to_be_complained_of() -> None:
    async def main() -> None:
        with pytest.raises(KeyError):
            await first_of(failing(KeyError()), failing(ValueError()), failing(OSError(), 1), asyncio.sleep(60))

    assert complaints(main()) == []


def test_what_tasks_had_failed_with_before_they_were_ended_is_nobodys() -> None:
    async def main() -> None:
        tasks = {asyncio.ensure_future(failing(KeyError())), asyncio.ensure_future(asyncio.sleep(60))}
        await asyncio.sleep(0)
        await end(tasks)
        assert all(task.done() for task in tasks)

    assert complaints(main()) == []


def test_first_of_ends_the_others_before_it_returns() -> None:
    ended: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            ended.append("slow")

    async def main() -> None:
        await first_of(slow(), asyncio.sleep(0))
        assert ended == ["slow"]

    assert complaints(main()) == []


def test_who_stops_waiting_for_the_end_leaves_nothing_to_be_complained_of() -> None:
    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            raise KeyError

    async def main() -> None:
        waiting = asyncio.ensure_future(first_of(slow(), asyncio.sleep(0)))
        for _ in range(5):
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.001)

    assert complaints(main()) == []

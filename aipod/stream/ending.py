"""How what runs side by side comes to an end.

To cancel a task once is not enough: up to Python 3.11 ``asyncio.wait_for`` loses a cancellation that comes in the very
moment in which what it waits for is done (https://github.com/python/cpython/issues/86296), and the broker's client
waits with it for every answer. So whoever must end a task makes sure of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

__all__ = ["end", "first_of"]

_AGAIN = 1.0


async def end(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel tasks until they have ended; what they end with is nobody's, also if nobody waits for that to the end."""
    tasks = set(tasks)
    for task in tasks:  # those that have ended before, too
        task.add_done_callback(_forget)
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_AGAIN)


async def first_of(*coroutines: Coroutine[Any, Any, Any]) -> None:
    """Run coroutines until one of them ends, end the others, and raise what the first one raised, if it did."""
    tasks = [asyncio.ensure_future(one) for one in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(tasks)
    for task in tasks:
        if task in done:
            task.result()


def _forget(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()  # or it would be logged as never retrieved

"""Results for the tests of sinks, and what all of them are asked to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from aipod.stream.broker.connection import Connect, Connection, connect
from aipod.stream.result import Ranges, Recorded, Result

T = TypeVar("T")

BOUND = 20.0


def result_of(  # noqa: PLR0913
    first: int,
    last: int,
    key: str = "k",
    *,
    value: Any = 1.5,
    task: str = "t",
    id: str = "",
    revision: int = 0,
    reason: str = "full",
    members: Ranges = (),
    dropped: Ranges = (),
    headers: Mapping[str, str] | None = None,
) -> Result:
    """The result of the messages from ``first`` to ``last``."""
    recorded = Recorded(
        key, id or f"s{first}", revision, float(first), float(last), reason, members or ((first, last),)
    )
    return Result(task, recorded, value, dropped, headers or {})


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(work, BOUND))


async def until(condition: Callable[[], object]) -> None:
    end = asyncio.get_running_loop().time() + BOUND
    while not condition():
        assert asyncio.get_running_loop().time() < end, "it never came true"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    connection = await connect(Connect((url,)), wait=BOUND)
    try:
        yield connection
    finally:
        await connection.close()


async def make_stream(connection: Connection, name: str, *subjects: str, **more: Any) -> None:
    await connection.api(f"STREAM.CREATE.{name}", {"name": name, "subjects": list(subjects), **more})


async def bodies(connection: Connection, stream: str) -> list[Any]:
    """Everything in a stream, in its order."""
    state = (await connection.api(f"STREAM.INFO.{stream}"))["state"]
    found = []
    for seq in range(state["first_seq"], state["last_seq"] + 1):
        found.append(await connection.js.get_msg(stream, seq))
    return found

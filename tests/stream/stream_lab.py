"""Pipelines in the test's own process, with a real broker and a model server in a process of its own."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ports import free_port
from stream_child import Child

from aipod.stream.broker.connection import Connect, Connection, connect
from aipod.stream.errors import Refused
from aipod.stream.pipeline import Pipeline
from aipod.stream.tasks import StreamTask

__all__ = ["Lab", "members_of", "run", "start_model"]

MODEL = Path(__file__).with_name("stream_lab_model.py")


def start_model(directory: Path, port: int = 0) -> tuple[Child, str]:
    """Start the model server of the lab; it, and its address."""
    port = port or free_port()
    child = Child(
        *("serve", f"{MODEL}:Sums", "--host", "127.0.0.1", "--port", str(port), "--workers", "8"),
        *("--data-path", str(directory / "data"), "--pool-size", "4"),
        directory=directory,
        name="model",
        says="aipod: serving",
    )
    child.start()
    child.ready()
    return child, f"127.0.0.1:{port}"


def run(main: Coroutine[Any, Any, Any], bound: float = 40.0) -> Any:
    return asyncio.run(asyncio.wait_for(main, bound))


class Lab:
    """One source stream and one of results, with names of their own; an async context manager."""

    def __init__(self, url: str, name: str, model: str, *, dedup: float = 120.0) -> None:
        self.url = url
        self.name = name
        self.model = model
        self._dedup = dedup

    async def __aenter__(self) -> Lab:
        self.connection: Connection = await connect(Connect((self.url,)))
        await self.make("E", f"{self.name}.in.>")
        await self.make("R", f"{self.name}.out.>", duplicate_window=round(self._dedup * 1e9))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.connection.close()

    async def make(self, kind: str, subject: str, **more: Any) -> None:
        name = f"{kind}_{self.name}"
        await self.connection.api(f"STREAM.CREATE.{name}", {"name": name, "subjects": [subject], **more})

    def task(self, **own: Any) -> StreamTask:
        table: dict[str, Any] = {
            "name": self.name,
            "nats": self.url,
            "stream": f"E_{self.name}",
            "subjects": [f"{self.name}.in.>"],
            "durable": self.name,
            "ack_wait": 5.0,
            "key": "k",
            "window": "count:4",
            "model": self.model,
            "sinks": [f"nats:{self.name}.out.{{key}}"],
            "lease_ttl": 1.0,
            **own,
        }
        return StreamTask.from_dict({name: value for name, value in table.items() if value is not None})

    async def publish(self, values: Iterable[Any], **headers: str) -> None:
        """Publish values as JSON, bytes as they are."""
        js = self.connection.js
        batch = [value if isinstance(value, bytes) else json.dumps(value).encode() for value in values]
        for first in range(0, len(batch), 200):
            await asyncio.gather(
                *(js.publish(f"{self.name}.in.x", data, headers=headers or None) for data in batch[first : first + 200])
            )

    def pipeline(self, task: StreamTask, partition: int = 0, **more: Any) -> Pipeline:
        more = {"holder": f"h{time.monotonic_ns()}", "grace": 5.0, **more}
        return Pipeline(task, partition, self.connection, **more)

    @asynccontextmanager
    async def running(self, task: StreamTask, partition: int = 0, **more: Any) -> AsyncIterator[Pipeline]:
        """Run a pipeline; at the end of the block it is asked to leave. What it fails with is raised."""
        pipeline = self.pipeline(task, partition, **more)
        running = asyncio.ensure_future(pipeline.run())
        try:
            yield pipeline
        finally:
            if running.done() and not running.cancelled():
                running.result()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def once(self, task: StreamTask, partition: int = 0, **more: Any) -> Pipeline:
        pipeline = self.pipeline(task, partition, **more)
        await pipeline.run(once=True)
        return pipeline

    async def results(self) -> list[dict[str, Any]]:
        return [json.loads(data) for _, data in await self.stored(f"R_{self.name}")]

    async def windows(self) -> list[list[int]]:
        """The members of all results, in the order in which they were stored."""
        return [members_of(result) for result in await self.results()]

    async def dead(self) -> list[tuple[dict[str, str], bytes]]:
        """The dead letters: their headers and payloads."""
        names = (await self.connection.api("STREAM.NAMES", {"subject": f"dead.{self.name}"})).get("streams")
        return await self.stored(names[0]) if names else []

    async def stored(self, stream: str) -> list[tuple[dict[str, str], bytes]]:
        js = self.connection.js
        state = (await self.connection.api(f"STREAM.INFO.{stream}"))["state"]
        found = []
        for seq in range(state["first_seq"], state["last_seq"] + 1) if state["messages"] else ():
            message = await js.get_msg(stream, seq)
            found.append((dict(message.headers or {}), message.data or b""))
        return found

    async def origin(self) -> str:
        """Name the source as results do."""
        return f"E_{self.name}@{(await self.connection.api(f'STREAM.INFO.E_{self.name}'))['created']}"

    async def floor(self, durable: str = "") -> int:
        """Up to where the consumer has everything acknowledged."""
        info = await self._consumer(durable)
        return int(info["ack_floor"]["stream_seq"]) if info and not info["num_ack_pending"] else -1

    async def until(self, condition: Callable[[], Any], bound: float = 15.0) -> Any:
        """Wait for a condition, which may be a coroutine function."""
        end = time.monotonic() + bound
        while True:
            value = condition()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return value
            assert time.monotonic() < end, "it never came true"
            await asyncio.sleep(0.01)

    async def results_are(self, count: int) -> list[dict[str, Any]]:
        async def there() -> bool:
            state = (await self.connection.api(f"STREAM.INFO.R_{self.name}"))["state"]
            return bool(state["messages"] >= count)

        await self.until(there)
        return await self.results()

    async def floor_is(self, seq: int, durable: str = "") -> None:
        async def there() -> bool:
            return await self.floor(durable) == seq

        await self.until(there)

    async def floor_passes(self, seq: int) -> None:
        async def there() -> bool:
            info = await self._consumer()
            return bool(info and info["ack_floor"]["stream_seq"] >= seq)

        await self.until(there)

    async def _consumer(self, durable: str = "") -> dict[str, Any]:
        try:
            return await self.connection.api(f"CONSUMER.INFO.E_{self.name}.{durable or self.name}")
        except Refused:  # not made yet
            return {}


def members_of(result: dict[str, Any]) -> list[int]:
    return [seq for first, last in result["window"]["members"] for seq in range(first, last + 1)]

"""A broker and a model server for the tests of ``aipod stream``, and what one asks them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import nats

MODEL = """
import pathlib, time
from aipod.errors import InvalidArgument
from aipod.model import AIModelBase

class Sum(AIModelBase):
    def predict(self, messages, window):
        if "poison" in messages:
            raise InvalidArgument("poison")
        while "stuck" in messages and not pathlib.Path(messages[-1]).exists():
            time.sleep(0.01)
        return {"sum": sum(messages)}
"""


@dataclass
class World:
    """A broker and a model, for all tests of this file; each test has names of its own."""

    nats: str
    model: str
    name: str

    @property
    def task(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "nats": self.nats,
            "subject": f"{self.name}.in.>",
            "window": "count:2",
            "key": "subject:2",
            "decode": "json",
            "model": self.model,
            "sink": f"nats:{self.name}.out.{{key}}",
        }

    def flags(self, **changes: str) -> list[str]:
        return [
            part
            for field, value in {**self.task, **changes}.items()
            for part in (f"--{field.replace('_', '-')}", value)
        ]

    def ask(self, question: Callable[[Any], Any]) -> Any:
        async def scenario() -> Any:
            client = await nats.connect(self.nats)
            try:
                return await question(client.jetstream())
            finally:
                await client.close()

        return asyncio.run(scenario())

    def publish(self, *values: object, key: str = "a", name: str = "") -> None:
        async def publish(js: Any) -> None:
            for value in values:
                await js.publish(f"{name or self.name}.in.{key}", json.dumps(value).encode())

        self.ask(publish)

    def results(self, name: str = "") -> list[dict[str, Any]]:
        async def read(js: Any) -> list[dict[str, Any]]:
            stream = f"{name or self.name}-out"
            last = (await js.stream_info(stream)).state.last_seq
            return [json.loads((await js.get_msg(stream, seq)).data) for seq in range(1, last + 1)]

        return list(self.ask(read))

    def sums(self, name: str = "") -> list[int]:
        return [result["result"]["sum"] for result in self.results(name)]

    def streams(self, *names: str) -> None:
        async def make(js: Any) -> None:
            for name in names or (self.name,):
                await js.add_stream(name=f"{name}-in", subjects=[f"{name}.in.>"])
                await js.add_stream(name=f"{name}-out", subjects=[f"{name}.out.>"])

        self.ask(make)

    def consumers(self, name: str = "") -> list[str]:
        return [info.name for info in self.ask(lambda js: js.consumers_info(f"{name or self.name}-in"))]


def toml(*tables: dict[str, Any]) -> str:
    # What JSON says of a text, TOML says too.
    return "\n".join(
        "[[task]]\n" + "\n".join(f"{name} = {json.dumps(value)}" for name, value in table.items()) for table in tables
    )

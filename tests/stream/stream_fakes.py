"""Stand-ins for what stands around an operator: sinks and letters that are lists, and a model that is a function."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from aipod.stream.burial import Burial
from aipod.stream.inference import Inference
from aipod.stream.message import Message
from aipod.stream.operator import Operator
from aipod.stream.recording import Recording
from aipod.stream.result import Recorded, Result
from aipod.stream.retry import Retry
from aipod.stream.statistics import Statistics
from aipod.stream.windows import Window

__all__ = ["Letters", "Limits", "Plain", "Shelf", "World", "run", "window"]

log = logging.getLogger("aipod.stream")


def window(*seqs: int, key: str = "k", releases: Sequence[int] | None = None, **more: Any) -> Window:
    messages = tuple(Message(seq, float(seq), "s", b"", value=seq, key=key, time=float(seq)) for seq in seqs)
    made: dict[str, Any] = {
        "key": key,
        "id": f"s{seqs[0]}",
        "start": float(seqs[0]),
        "end": float(seqs[-1]),
        "messages": messages,
        "reason": "full",
        "revision": 0,
        "releases": tuple(seqs if releases is None else releases),
        "watermark": float(seqs[-1]),
        "final": True,
    }
    return Window(**{**made, **more})


class Letters:
    def __init__(self) -> None:
        self.buried: list[tuple[int, str]] = []

    async def bury(self, message: Message, reason: str, error: BaseException | None = None) -> None:
        self.buried.append((message.seq, reason))


class Shelf:
    """A sink that can be read; ``on_write`` may do what a real one does."""

    name = "shelf"

    def __init__(self, on_write: Callable[[Result], Awaitable[None]] | None = None) -> None:
        self.results: list[Result] = []
        self._on_write = on_write

    async def open(self) -> None: ...

    async def write(self, result: Result) -> None:
        if self._on_write is not None:
            await self._on_write(result)
        self.results.append(result)

    async def close(self) -> None: ...

    async def recall(self, since: float, floor: int) -> list[Recorded]:
        return [result.recorded for result in self.results]

    async def stored(self, recorded: Recorded) -> Result | None:
        return next((result for result in self.results if result.recorded == recorded), None)


class Plain(Shelf):
    """A sink that cannot be read."""

    name = "plain"
    recall = None  # type: ignore[assignment]


@dataclass
class Limits:
    max_ratio: float = 1.0
    min_count: int = 1
    over: int = 1000


@dataclass
class World:
    """An operator and all that it works with."""

    predict: Callable[[list[int]], Awaitable[Any]]
    sinks: list[Any] = field(default_factory=lambda: [Shelf()])
    limits: Limits = field(default_factory=Limits)
    concurrency: int = 4
    lead: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.statistics = Statistics()
        self.letters = Letters()
        self.released: list[int] = []
        self.asked: list[list[int]] = []

        async def predict(arguments: dict[str, Any]) -> Any:
            self.asked.append(arguments["values"])
            return await self.predict(arguments["values"])

        def retry(name: str) -> Retry:
            return Retry(name, log, failed=self._count)

        self.burial = Burial("t", self.letters, self.limits, retry("dead letters"), self.statistics, self.lead)
        self.inference = Inference(
            predict,
            lambda window: {"values": [message.value for message in window.messages]},
            retry("the model"),
            self.burial,
            self.statistics,
        )
        self.recording = Recording(self.sinks, retry, self.statistics, self.lead)
        self.operator = Operator(
            "t", self.inference, self.recording, self.burial, self._done, self.statistics, self.concurrency
        )

    def _count(self) -> None:
        self.statistics.retries += 1

    def _done(self, seqs: Sequence[int], window: Window) -> None:
        self.lead()
        self.released += seqs

    @property
    def results(self) -> list[Result]:
        return self.sinks[0].results  # type: ignore[no-any-return]

    async def run(self, *windows: Window) -> None:
        try:
            for one in windows:
                await self.operator.submit(one)
            await self.operator.drain()
        finally:
            await self.operator.close()


def run(main: Coroutine[Any, Any, Any], bound: float = 20.0) -> Any:
    return asyncio.run(asyncio.wait_for(main, bound))

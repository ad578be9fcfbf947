"""What becomes of messages between the intake and the operator, with a source that is told what to say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from stream_fakes import World, run

from aipod.stream.feed import Feed, Parts
from aipod.stream.message import Message
from aipod.stream.result import Ranges
from aipod.stream.tasks import StreamTask
from aipod.stream.windows import Windower


class Told:
    """A source: hands out what it is given, and counts what is done."""

    def __init__(self) -> None:
        self.waiting: asyncio.Queue[list[Message]] = asyncio.Queue()
        self.held: set[int] = set()
        self.done_: list[int] = []
        self.clock = 0.0
        self.sure: float | None = 0.0
        self.asked = 0

    @property
    def held_messages(self) -> int:
        return len(self.held)

    held_bytes = 0

    @property
    def floor(self) -> int:
        return min(self.held, default=1) - 1

    @property
    def caught_up(self) -> bool:
        return self.waiting.empty()

    def put(self, *messages: Message) -> None:
        self.held.update(message.seq for message in messages)
        self.waiting.put_nowait(list(messages))

    async def get(self, timeout: float | None = None) -> list[Message]:
        try:
            return await asyncio.wait_for(self.waiting.get(), timeout)
        except asyncio.TimeoutError:
            return []

    async def settled(self) -> float | None:
        self.asked += 1
        return self.sure

    def now(self) -> float:
        return self.clock

    def done(self, seqs: Iterable[int]) -> None:
        for seq in seqs:
            self.held.discard(seq)
            self.done_.append(seq)


class Line:
    """A feed between a told source and a world's operator."""

    def __init__(self, world: World, **own: Any) -> None:
        table = {
            "name": "t",
            "subjects": ["s"],
            "key": "k",
            "model": "localhost:1",
            "sinks": ["stdout"],
            **own,
        }
        task = StreamTask.from_dict(table)
        self.source = Told()
        self.world = world
        world.on_done = self.source.done
        self.windower = Windower(task.window)
        parts = Parts(
            self.source,
            self.windower,
            world.operator,
            world.recording,
            world.burial,
            world.statistics,
            recalled=-1,
            unacknowledged=self._pending,
            fetch=self._fetch,
        )
        self.feed = Feed(task, 0, parts)

    async def _pending(self) -> int:
        return len(self.source.held)

    async def _fetch(self, ranges: Ranges) -> list[Message]:
        return []

    async def run(self, steps: Any) -> None:
        running = asyncio.ensure_future(self.feed.run())
        try:
            await steps
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await self.world.operator.close()


def message(seq: int, stored: float, key: str = "a", **value: Any) -> Message:
    return Message(seq, stored, "s", json.dumps({"k": key, "v": seq, **value}).encode())


async def turns(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_a_late_message_is_acknowledged_after_the_windows_that_were_closed_before_it() -> None:
    # It may sit in one of them, as hopping windows overlap; acknowledged alone it would be missing there after a crash.
    async def main() -> None:
        gate = asyncio.Event()

        async def predict(values: list[Any]) -> int:
            await gate.wait()
            return 0

        world = World(predict)
        line = Line(world, window="tumbling:10s", time="t", late="drop")

        async def steps() -> None:
            line.source.put(message(1, 1.0, t=1.0), message(2, 2.0, t=12.0), message(3, 3.0, t=2.0))
            await until(lambda: world.statistics.late == 1)
            await turns()
            assert line.source.done_ == []
            gate.set()
            await until(lambda: line.source.done_ == [1, 3])

        await line.run(steps())

    run(main())


def test_time_windows_are_closed_by_what_is_certain_and_not_by_the_clock() -> None:
    async def main() -> None:
        async def predict(values: list[Any]) -> int:
            return len(values)

        world = World(predict)
        line = Line(world, window="tumbling:10s")
        source = line.source

        async def steps() -> None:
            source.put(message(1, 101.0))
            source.clock = 111.0  # by the clock the window is over; a message of it may still be on its way
            source.sure = None
            await until(lambda: source.asked >= 3)
            assert not world.results
            source.sure = 109.0
            source.put(message(2, 109.5))
            asked = source.asked
            await until(lambda: source.asked >= asked + 3)
            assert not world.results
            source.sure = 112.0
            await until(lambda: world.results)
            assert world.results[0].recorded.members == ((1, 2),)
            assert world.statistics.late == 0

        await line.run(steps())

    run(main())


def test_while_the_model_is_slow_nothing_more_is_taken_in() -> None:
    async def main() -> None:
        async def predict(values: list[Any]) -> int:
            await asyncio.Event().wait()
            return 0

        world = World(predict, concurrency=2)
        line = Line(world, window="count:2")

        async def steps() -> None:
            for seq in range(1, 101):
                line.source.put(message(seq, float(seq)))
            await until(lambda: world.operator.in_flight == 2)
            await turns()
            assert world.statistics.messages == 6, "two windows are in flight, and one waits for a place"

        await line.run(steps())

    run(main())

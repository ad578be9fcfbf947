"""What becomes of messages between the intake and the operator, with a source that is told what to say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pytest
from stream_fakes import Limits, Shelf, World, run

from aipod.errors import ConfigError
from aipod.stream import feed as feeds
from aipod.stream.errors import TaskStopped, TooLarge
from aipod.stream.feed import Feed, Parts, partition_of
from aipod.stream.message import Message
from aipod.stream.result import Ranges, Result, expand
from aipod.stream.tasks import StreamTask
from aipod.stream.windows import Windower


class Told:
    """A source: hands out what it is given, and counts what is done."""

    def __init__(self) -> None:
        self.waiting: asyncio.Queue[list[Message]] = asyncio.Queue()
        self.stream: dict[int, Message] = {}
        self.held: set[int] = set()
        self.done_: list[int] = []
        self.clock = 0.0
        self.catches_up = True
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
        return self.catches_up and self.waiting.empty()

    def put(self, *messages: Message) -> None:
        self.held.update(message.seq for message in messages)
        self.stream.update((message.seq, message) for message in messages)
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

    def __init__(self, world: World, *, partition: int = 0, **own: Any) -> None:
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
        self.windower = Windower(task.window)
        parts = Parts(
            self.source,
            self.windower,
            world.inference,
            world.recording,
            world.burial,
            world.statistics,
            unacknowledged=self._pending,
            fetch=self._fetch,
        )
        self.feed = Feed(task, partition, parts)

    async def _pending(self) -> int:
        return len(self.source.held)

    async def _fetch(self, ranges: Ranges) -> list[Message]:
        return [self.source.stream[seq] for seq in expand(ranges) if seq in self.source.stream]

    async def run(self, steps: Any) -> None:
        running = asyncio.ensure_future(self.feed.run())
        try:
            await steps
        finally:
            if running.done():
                running.result()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await self.feed.operator.close()


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

        world = World(predict)
        line = Line(world, window="count:2", concurrency=2)

        async def steps() -> None:
            for seq in range(1, 101):
                line.source.put(message(seq, float(seq)))
            await until(lambda: line.feed.operator.in_flight == 2)
            await turns()
            assert world.statistics.messages == 6, "two windows are in flight, and one waits for a place"

        await line.run(steps())

    run(main())


def late_for_the_first(line: Line) -> None:
    """Two messages in a window, one that closes it, and one that comes after that."""
    line.source.put(message(1, 1.0, t=1.0), message(2, 2.0, t=2.0), message(3, 3.0, t=12.0), message(4, 4.0, t=3.0))


def amending(world: World, **own: Any) -> Line:
    return Line(world, window="tumbling:10s", time="t", late="amend", **own)


def test_a_late_message_is_not_acknowledged_where_its_corrected_window_fails() -> None:
    async def main() -> None:
        async def predict(values: list[Any]) -> int:
            if len(values) == 3:
                raise ConfigError(["wrong"])
            return len(values)

        world = World(predict)
        line = amending(world)

        async def steps() -> None:
            late_for_the_first(line)
            with suppress(ConfigError):
                await line.feed.operator.failure()
            await turns()

        with pytest.raises(ConfigError, match="wrong"):
            await line.run(steps())
        assert line.source.done_ == [1, 2] and not world.letters.buried

    run(main())


def test_a_corrected_result_that_no_sink_takes_buries_none_whose_result_is_there() -> None:
    async def main() -> None:
        async def predict(values: list[Any]) -> int:
            return len(values)

        async def write(result: Result) -> None:
            if result.count == 3:
                raise TooLarge(2, 1)

        world = World(predict, [Shelf(write)])
        line = amending(world)

        async def steps() -> None:
            late_for_the_first(line)
            await until(lambda: 4 in line.source.done_)
            assert [seq for seq, _ in world.letters.buried] == [4]

        await line.run(steps())

    run(main())


async def counted(values: list[Any]) -> int:
    return len(values)


def test_what_is_another_partitions_is_not_counted() -> None:
    async def main() -> None:
        worlds = [World(counted, limits=Limits(max_ratio=0.5, min_count=10, over=100)) for _ in range(2)]
        lines = [Line(world, partition=at, partitions=2, window="count:5") for at, world in enumerate(worlds)]
        keys = [f"k{number % 7}" for number in range(100)]
        ours = [sum(partition_of(key, 2) == at for key in keys) for at in range(2)]
        assert all(ours)
        for line in lines:

            async def steps(line: Line = line) -> None:
                line.source.put(*(message(seq, float(seq), key) for seq, key in enumerate(keys, 1)))
                line.source.put(Message(101, 101.0, "s", b"{"))
                await until(lambda: 101 in line.source.done_)

            await line.run(steps())
        # What nobody can read is the first one's.
        assert [world.statistics.messages for world in worlds] == [ours[0] + 1, ours[1]]
        assert [len(world.letters.buried) for world in worlds] == [1, 0]
        assert worlds[1].statistics.bytes == sum(
            len(message(seq, 0.0, key).data) for seq, key in enumerate(keys, 1) if partition_of(key, 2) == 1
        )
        for world, seen in zip(worlds, (ours[0] + 1, ours[1]), strict=True):
            world.burial.afford(seen // 2 - len(world.letters.buried))
            with pytest.raises(TaskStopped, match=f"of the last {seen} messages"):
                world.burial.afford(seen // 2 + 1)

    run(main())


def test_under_pressure_whatever_lands_is_followed_by_the_next_relief_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of each key there is one message, so pressure alone closes windows; and the early ones give nothing back.
    monkeypatch.setattr(feeds, "_GLANCE", 3600.0)

    async def main() -> None:
        async def predict(values: list[Any]) -> int:
            for _ in range(5):
                await asyncio.sleep(0)
            return 0

        world = World(predict)
        line = Line(world, window="count:10,early=1", max_ack_pending=20)
        line.source.catches_up = False

        async def steps() -> None:
            line.source.put(*(message(seq, float(seq), f"k{seq}") for seq in range(1, 21)))
            await until(lambda: len(line.source.done_) >= 5)

        await asyncio.wait_for(line.run(steps()), 5)

    run(main())

"""Messages in, windows predicted, results out: what is left of bare pulls, and what do other pipelines make?"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path

import numpy as np

from aipod.stream.result import Result, expand
from benchmarks.broker import MESSAGE_BYTES, RESULTS, SOURCE, Broker, Observed
from benchmarks.harness import Comparison, Plan, Server, alternate
from benchmarks.pipelines import FASTSTREAM, Pipelines

_WINDOW = 100
_MESSAGES_PER_SECOND = 60_000  # of the plan's; the fastest side needs about half of it
_ROUNDS = 5
_LIMIT_GOAL, _FETCH_GOAL, _FASTSTREAM_GOAL = 0.25, 3.0, 1.0

_RATE, _MAX_WAIT = 1000, 0.05
_KEYS, _KEYED_WINDOW, _KEYED_ROUNDS = 10_000, 10, 3


def run(plan: Plan) -> Iterator[Comparison]:
    with Broker() as broker, Server("benchmarks.models", "Mean") as model, tempfile.TemporaryDirectory() as directory:
        bench = _Bench(broker, Pipelines(broker, model, Path(directory)))
        yield from bench.throughput(plan)
        yield from bench.latency(plan)
        yield from bench.keys(plan)
        yield bench.memory()


class _Bench:
    def __init__(self, broker: Broker, pipelines: Pipelines) -> None:
        self._broker = broker
        self._pipelines = pipelines

    def throughput(self, plan: Plan) -> Iterator[Comparison]:
        """All find the same messages in the same stream, and have a durable of their own."""
        windows = round(_MESSAGES_PER_SECOND * plan.seconds / _WINDOW)
        count = windows * _WINDOW
        asyncio.run(self._publish(SOURCE, repeat(0, count)))
        peers = {"bare pulls": _LIMIT_GOAL, "fetch by hand": _FETCH_GOAL}
        sides = self._pipelines
        looks = [
            partial(sides.observe, sides.ours(f"count:{_WINDOW},max_wait=1h"), count, windows),
            partial(sides.observe, sides.peer("pulls"), count),
            partial(sides.observe, sides.peer("fetch"), count, windows),
        ]
        if FASTSTREAM.exists():
            peers["FastStream"] = _FASTSTREAM_GOAL
            looks.append(partial(sides.observe, sides.peer("faststream"), count, windows))
        else:
            print(f"  FastStream is left out: there is no {FASTSTREAM}; make peers makes it", flush=True)
        ours, *theirs = alternate(min(plan.rounds, _ROUNDS), *looks)
        for (peer, goal), other in zip(peers.items(), theirs, strict=True):
            yield Comparison(f"windows of {_WINDOW}", "msg/s", _rates(count, ours), _rates(count, other), peer, goal)
        for peer, other in zip(peers, theirs, strict=True):
            what = "the consumer's CPU per million messages"
            yield Comparison(what, "s", _cpu(count, ours), _cpu(count, other), peer, at_most=True)

    def latency(self, plan: Plan) -> Iterator[Comparison]:
        """From just before a message is published until the result that it is in is stored, by the machine's clock."""
        rounds = range(min(plan.rounds, _ROUNDS))
        delays = [np.percentile(asyncio.run(self._delays(plan.load_seconds)), (50, 99)).tolist() for _ in rounds]
        for name, ours in zip(("p50", "p99"), zip(*delays, strict=True), strict=True):
            what = f"{name} from publish to result, {_RATE:,} msg/s"
            bound = [_MAX_WAIT * 1000] * len(rounds)
            yield Comparison(what, "ms", list(ours), bound, "max_wait", at_most=True)

    def keys(self, plan: Plan) -> Iterator[Comparison]:
        """Keys take turns, so that all of their windows are open at once."""
        count = _KEYS * _KEYED_WINDOW
        looks = []
        for keys in (1, 100, _KEYS):
            source = f"{SOURCE}-{keys}"
            asyncio.run(self._publish(source, (number % keys for number in range(count))))
            side = self._pipelines.ours(f"count:{_KEYED_WINDOW},max_wait=1h", "device", source)
            looks.append(partial(self._pipelines.observe, side, count, count // _KEYED_WINDOW))
        one, *more = alternate(min(plan.rounds, _KEYED_ROUNDS), *looks)
        for keys, observed in zip((100, _KEYS), more, strict=True):
            what = f"windows of {_KEYED_WINDOW}, {keys:,} keys"
            yield Comparison(what, "msg/s", _rates(count, observed), _rates(count, one), "one key")

    def memory(self) -> Comparison:
        """Of windows that are open for good: what the process has grown by since it waited for the first message."""
        count = _KEYS * _KEYED_WINDOW
        grown = asyncio.run(self._growth(count)) / 1e6
        what = f"memory of {_KEYS:,} open windows, {_KEYED_WINDOW} messages each"
        return Comparison(what, "MB", [grown], [count * MESSAGE_BYTES / 1e6], "the payloads", at_most=True)

    async def _publish(self, source: str, keys: Iterable[int]) -> None:
        async with self._broker.connection() as connection:
            await connection.fresh(source)
            await connection.publish(source, keys)

    async def _delays(self, seconds: float) -> list[float]:
        """Milliseconds, of each message."""
        side = self._pipelines.ours(f"count:{_WINDOW},max_wait={_MAX_WAIT * 1000:g}ms")
        async with self._broker.connection() as connection:
            await connection.fresh(SOURCE)
            await connection.fresh(RESULTS)
            with side.process as process:
                await connection.until_waiting(process, SOURCE, side.durable)
                sent = await connection.publish_at(_RATE, round(seconds * _RATE), SOURCE)
                await connection.until_done(process, SOURCE, side.durable, len(sent))
                delays = []
                async for stored, payload in connection.stored(RESULTS):
                    members = expand(Result.read(payload).recorded.members)
                    delays += [(stored - sent[seq - 1]) * 1000 for seq in members]
        return delays

    async def _growth(self, messages: int) -> int:
        side = self._pipelines.ours("count:100,max_wait=1h", "device")
        async with self._broker.connection() as connection:
            await connection.fresh(SOURCE)
            await connection.fresh(RESULTS)
            with side.process as process:
                await connection.until_waiting(process, SOURCE, side.durable)
                idle = process.resident_bytes()
                await connection.publish(SOURCE, (number % _KEYS for number in range(messages)))
                await connection.until_held(process, SOURCE, side.durable, messages)
                return process.resident_bytes() - idle


def _rates(count: int, side: Sequence[Observed]) -> list[float]:
    return [count / one.seconds for one in side]


def _cpu(count: int, side: Sequence[Observed]) -> list[float]:
    return [one.cpu_seconds / count * 1e6 for one in side]

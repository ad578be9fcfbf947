"""The same work by every server that one would pick instead, each called as its Python users call it: who is first?"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.harness import Comparison, Cpu, PeerServer, Plan, Server, call
from benchmarks.order import Measured, Order
from benchmarks.peers import PEERS, Peer
from benchmarks.work import BATCH_SECONDS, BATCH_SIZE

__all__ = ["OURS", "Samples", "available", "cpu", "python", "run", "serving"]

OURS = Peer("AIPOD", "ours", "AsyncAIClient, AIClient")
_MODELS = {"tiny": "First", "batch": "Batch", "sum": "Arrays"}
_MB = 2**20
# The best of those that are model servers.
_BEST = "best peer"
_AIO, _SYNC = "bare grpc.aio", "bare sync grpcio"

Samples = Mapping[Peer, Sequence[Measured]]
Value = Callable[[Measured], float]


def _rate(one: Measured) -> float:
    return one.rate


def _p50(one: Measured) -> float:
    return one.p50 * 1e6


def _p99_batches(one: Measured) -> float:
    return one.p99 / BATCH_SECONDS


@dataclass(frozen=True)
class Race:
    """One measurement of every side.

    Attributes:
        what: For the report.
        work: See :mod:`benchmarks.work`.
        style: ``threads`` or ``asyncio``.
        callers: How many.
        goals: The ratio to reach, by the name of the other side.
        array_bytes: For work with arrays.
        value: What is compared.
        unit: Its unit.
        at_most: Whether less is better.
        bound: What there is to reach at all, as its name, its value and the goal.
        p99: The most that it may be, in batches; 0 where nobody asks.
    """

    what: str
    work: str
    style: str
    callers: int
    goals: dict[str, float] = field(default_factory=dict)
    array_bytes: int = 0
    value: Value = _rate
    unit: str = "calls/s"
    at_most: bool = False
    bound: tuple[str, float, float] | None = None
    p99: float = 0.0


def _echo(megabytes: int, goals: dict[str, float]) -> Race:
    what = f"{megabytes} MB float32 there and back, and its sum, 1 × threads"
    return Race(what, "sum", "threads", 1, goals, megabytes * _MB, lambda one: one.rate * megabytes * _MB / 1e6, "MB/s")


_IDEAL = ("the ideal", BATCH_SIZE / BATCH_SECONDS, 0.97)
RACES = (
    Race("tiny predict, 32 × asyncio", "tiny", "asyncio", 32, {_AIO: 12.0, _BEST: 8.0}),
    Race("tiny predict, 32 × threads", "tiny", "threads", 32, {_SYNC: 4.0}),
    Race(
        "p50 of a tiny predict, 1 × threads",
        "tiny",
        "threads",
        1,
        {_SYNC: 1.0, _BEST: 1.0},
        value=_p50,
        unit="µs",
        at_most=True,
    ),
    Race("batches of at most 32, 64 × asyncio", "batch", "asyncio", 64, bound=_IDEAL, p99=2.3),
    _echo(16, {_SYNC: 4.0, _BEST: 6.0}),
    _echo(1, {_SYNC: 2.0}),
)


def run(plan: Plan) -> Iterator[Comparison]:
    peers = available()
    for work in _MODELS:
        races = [race for race in RACES if race.work == work]
        found = _measure(plan, races, [OURS, *(peer for peer in peers if work in peer.works)])
        for race in races:
            yield from _compare(race, found[race.what])


def available() -> list[Peer]:
    """The peers that are there; of the others, say so."""
    for peer in PEERS:
        if not (peer.bare or peer.python.exists()):
            print(f"  {peer.name} is left out: there is no {peer.python}; make peers makes it", flush=True)
    return [peer for peer in PEERS if peer.bare or peer.python.exists()]


def serving(peer: Peer, work: str) -> Server | PeerServer:
    """A server, to be started."""
    if peer is OURS:
        return Server("benchmarks.models", _MODELS[work])
    return Server("benchmarks.peers.bare", peer.bare) if peer.bare else PeerServer(peer, work)


def python(peer: Peer) -> str:
    """The interpreter of a side's callers."""
    return sys.executable if peer.bare or peer is OURS else str(peer.python)


def _measure(plan: Plan, races: Sequence[Race], sides: Sequence[Peer]) -> dict[str, Samples]:
    """All sides take turns in each round, every one with a server that is started for it alone."""
    found: dict[str, dict[Peer, list[Measured]]] = {race.what: defaultdict(list) for race in races}
    out: set[Peer] = set()
    for _ in range(plan.races):
        for side in sides:
            if side in out:
                continue
            try:
                with serving(side, races[0].work) as server:
                    for race in races:
                        found[race.what][side].append(_run(plan, race, side, server))
            except RuntimeError as error:
                if side is OURS:
                    raise
                out.add(side)
                print(f"  {side.name} is left out: {error}", flush=True)
    return {what: {side: one for side, one in samples.items() if side not in out} for what, samples in found.items()}


def _run(plan: Plan, race: Race, side: Peer, server: Server | PeerServer) -> Measured:
    order = Order(
        side.module,
        server.address,
        race.style,
        race.callers,
        plan.seconds,
        work=race.work,
        array_bytes=race.array_bytes,
        family=server.family,
    )
    return call(order, server, python(side))


def _compare(race: Race, samples: Samples) -> Iterator[Comparison]:
    values = {side: [race.value(one) for one in measured] for side, measured in samples.items()}
    ours = values.pop(OURS)
    our_cpu = cpu(samples[OURS])
    if race.bound:
        name, bound, goal = race.bound
        yield Comparison(race.what, race.unit, ours, [bound] * len(ours), name, goal, our_cpu=our_cpu)
    if race.p99:
        p99, what = [_p99_batches(one) for one in samples[OURS]], f"{race.what}: p99"
        yield Comparison(what, "batches", p99, [1.0] * len(p99), "one batch", race.p99, at_most=True)
    best = _best(race, values) if _BEST in race.goals else None
    for side, theirs in values.items():
        goal_here = race.goals.get(_BEST if side is best else side.name)
        name = f"{side.name} ({_BEST})" if side is best else side.name
        yield Comparison(
            race.what,
            race.unit,
            ours,
            theirs,
            name,
            goal_here,
            race.at_most,
            our_cpu=our_cpu,
            their_cpu=cpu(samples[side]),
        )


def _best(race: Race, values: Mapping[Peer, Sequence[float]]) -> Peer | None:
    medians = {side: statistics.median(these) for side, these in values.items() if not side.bare}
    if not medians:
        return None
    return (min if race.at_most else max)(medians, key=lambda side: medians[side])


def cpu(samples: Sequence[Measured]) -> Cpu:
    """The medians of both sides."""
    return statistics.median(one.server_cpu for one in samples), statistics.median(one.client_cpu for one in samples)

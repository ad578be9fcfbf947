"""Large arrays on one host, and through the socket alone: what do they cost in copies, in memory, in bandwidth?"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from benchmarks.harness import Comparison, Plan, Server, alternate, call
from benchmarks.order import Measured, Order
from benchmarks.peers import ours
from benchmarks.workloads.races import cpu

_MB = 2**20
_SIZE = 16 * _MB
_EMPTY_GOAL, _MEMORY_GOAL, _SOCKET_GOAL = 1.5, 3.0, 0.9
_SOCKET_SIZES = (_MB, _SIZE, 256 * _MB)
# 256 MB are more than the default lets through; nothing else is set.
_MOST_BYTES = 2**30
# What switches shared memory off.
_SOCKET_ALONE = {"shared_memory_bytes": 0}
_COPIES = 50


def run(plan: Plan) -> Iterator[Comparison]:
    with Server("benchmarks.models", "Arrays") as server:
        if ours.can_lend():
            yield _lent(plan, server)
        else:
            print("  client.empty is left out: there is none", flush=True)
        for callers in (1, 4):
            yield _memory(plan, server, callers)
    yield from _by_socket(plan)


def _lent(plan: Plan, server: Server) -> Comparison:
    """An array that lies in shared memory already, to a model that returns it and takes no time itself."""
    order = Order("ours", server.address, seconds=plan.seconds, work="array", array_bytes=_SIZE, family=server.family)
    order = replace(order, options={"empty": True})
    calls, copies = alternate(plan.races, partial(call, order, server), _copy_milliseconds)
    what = "16 MB there and back with client.empty, 1 × threads: p50"
    times = [one.p50 * 1e3 for one in calls]
    return Comparison(what, "ms", times, copies, "one copy", _EMPTY_GOAL, at_most=True, our_cpu=cpu(calls))


def _copy_milliseconds() -> float:
    """A copy between arrays that have been touched before."""
    source, target = np.ones(_SIZE // 4, np.float32), np.ones(_SIZE // 4, np.float32)
    times = []
    for _ in range(_COPIES):
        began = time.perf_counter()
        np.copyto(target, source)
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3


def _memory(plan: Plan, server: Server, callers: int) -> Comparison:
    """Of both sides; pages that both have are counted once."""
    order = Order("ours", server.address, callers=callers, seconds=plan.seconds, work="sum", array_bytes=_SIZE)
    order = replace(order, family=server.family, memory=True)
    (found,) = alternate(plan.races, partial(call, order, server))
    grown = [(one.server_bytes + one.client_bytes) / _MB for one in found]
    flight = [2 * callers * _SIZE / _MB] * len(grown)
    what = f"memory of both sides, 16 MB, {callers} × threads"
    note = f"of which the callers {statistics.median(one.client_bytes for one in found) / _MB:.0f} MB"
    return Comparison(what, "MB", grown, flight, "bytes in flight, both ways", _MEMORY_GOAL, at_most=True, note=note)


def _by_socket(plan: Plan) -> Iterator[Comparison]:
    server = Server("benchmarks.models", "Arrays", max_message_bytes=_MOST_BYTES, **_SOCKET_ALONE)
    with server as mine, Server("benchmarks.peers.bare", "sync") as bare:
        for size in _SOCKET_SIZES:
            order = Order("ours", mine.address, seconds=plan.seconds, work="array", array_bytes=size)
            order = replace(order, family=mine.family, options={"max_message_bytes": _MOST_BYTES})
            other = replace(order, peer="bare", address=bare.address, family=bare.family, options={})
            found: list[list[Measured]] = alternate(plan.races, partial(call, order, mine), partial(call, other, bare))
            rates, theirs = ([one.rate * size / 1e6 for one in side] for side in found)
            what = f"{size // _MB} MB there and back through the socket, 1 × threads"
            cpus = [cpu(side) for side in found]
            yield Comparison(
                what, "MB/s", rates, theirs, "bare sync grpcio", _SOCKET_GOAL, our_cpu=cpus[0], their_cpu=cpus[1]
            )

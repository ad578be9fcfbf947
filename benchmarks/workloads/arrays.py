"""Large arrays, there and back: what is left of the bare transport's bandwidth, and what memory does it take?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from benchmarks.harness import Comparison, Plan, Server, alternate, call
from benchmarks.order import Order

_MB = 1024 * 1024
_GOAL = 0.8
_MEMORY_GOAL = 4.0


def run(plan: Plan) -> Iterator[Comparison]:
    for size in (_MB, 16 * _MB):
        for callers in (1, 4):
            with Server("benchmarks.models", "Arrays") as ours, Server("benchmarks.peers.bare", "pool") as bare:
                yield from _compare(plan, ours, bare, size, callers)


def _compare(plan: Plan, ours: Server, bare: Server, size: int, callers: int) -> Iterator[Comparison]:
    idle = {server: _idle_bytes(peer, server) for peer, server in (("ours", ours), ("bare", bare))}

    def run(peer: str, server: Server, keep_memory: bool = False, work: str = "array") -> tuple[float, float]:
        """MB/s one way, and the MB that the server took at most."""
        server.forget_peak()
        this = replace(order, peer=peer, address=server.address, keep_memory=keep_memory, work=work)
        rate = call(this).rate
        return rate * size / 1e6, (server.peak_bytes() - idle[server]) / _MB

    order = Order("", "", "threads", callers, plan.seconds, array_bytes=size)
    sides = [
        lambda: run("ours", ours, keep_memory=True),
        lambda: run("ours", ours, keep_memory=True, work="sum"),
        lambda: run("bare", bare, keep_memory=True),
        lambda: run("ours", ours),
        lambda: run("bare", bare),
    ]
    (echo, memory), (summed, _), (floor, bare_memory), (plain, _), (plain_floor, _) = (
        map(list, zip(*side, strict=True)) for side in alternate(plan.rounds, *sides)
    )
    what = f"{size // _MB} MB float32, {callers} × threads"
    yield Comparison(f"{what}: echo", "MB/s", echo, floor, "bare", _GOAL)
    yield Comparison(f"{what}: echo and sum", "MB/s", summed, floor, "bare", note="the bare echo sums nothing")
    yield Comparison(f"{what}: echo, callers with malloc as it is", "MB/s", plain, plain_floor, "bare")
    requests = [callers * size / _MB] * plan.rounds
    both = [2 * one for one in requests]
    yield Comparison(f"{what}: memory", "MB", memory, both, "bytes in flight, both ways", _MEMORY_GOAL, at_most=True)
    yield Comparison(f"{what}: memory", "MB", memory, requests, "the requests alone", at_most=True)
    yield Comparison(f"{what}: memory", "MB", memory, bare_memory, "bare", at_most=True)


def _idle_bytes(peer: str, server: Server) -> int:
    """What the server takes when everything is imported and a small call has been through, but nothing large."""
    call(Order(peer, server.address, seconds=0.1, work="array", array_bytes=4096))
    return server.resident_bytes()

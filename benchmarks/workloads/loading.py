"""A version that is loaded answers 100 calls a second, and another loads beside it: who notices?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from aipod.rpc.client import AIClient
from benchmarks.harness import Comparison, Plan, Server, alternate, call
from benchmarks.order import Order

_RATE = 100.0
_GOAL = 2.0
# Each takes four times the length of a load.
_ROUNDS = 5
_KINDS = {
    "numpy": ("reads 64 MB from disk, converts, normalises, over and over", _GOAL),
    "sleep": ("sleeps", None),
    "python": ("computes in pure Python half of the time", None),
}


# What a process of its own can keep from the others.
_APART = ("numpy", "python")


def run(plan: Plan) -> Iterator[Comparison]:
    versions = {kind: f"{kind}-{plan.load_seconds:g}" for kind in _KINDS}
    yield from _loads(plan, versions, "thread", "")
    yield from _loads(plan, {kind: versions[kind] for kind in _APART}, "process", ", instances in processes")
    with Server("benchmarks.peers.original", "Loading") as original:
        # Once is enough: nothing is answered before the load is over.
        alone = _p99("original", original, plan)
        blocked = _p99("original", original, plan, versions["sleep"])
    note = f"one round; a load of {plan.load_seconds:g} s holds the lock that every call needs"
    yield _comparison("the same with the original's construction (sleep)", [blocked], [alone], None, note)


def _loads(plan: Plan, versions: dict[str, str], isolation: str, where: str) -> Iterator[Comparison]:
    with Server("benchmarks.models", "Loading", model_pool_size=2, isolation=isolation) as ours:
        for version in versions.values():
            with AIClient(ours.address, version) as client:
                client.initialize()
        sides = [partial(_beside, ours, plan, version) for version in versions.values()]
        quiet, *loading = alternate(min(plan.rounds, _ROUNDS), partial(_p99, "ours", ours, plan), *sides)
        for kind, latencies in zip(versions, loading, strict=True):
            note, goal = _KINDS[kind]
            what = f"warm version's p99 while another loads ({kind}{where})"
            yield _comparison(what, latencies, quiet, goal, note)


def _beside(server: Server, plan: Plan, version: str) -> float:
    with AIClient(server.address) as client:
        client.admin.unload(version)
    return _p99("ours", server, plan, version)


def _p99(peer: str, server: Server, plan: Plan, loading: str = "") -> float:
    return call(Order(peer, server.address, seconds=plan.load_seconds, rate=_RATE, loading=loading)).p99 * 1000


def _comparison(what: str, loading: list[float], quiet: list[float], goal: float | None, note: str) -> Comparison:
    return Comparison(what, "ms", loading, quiet, "quiet", goal, at_most=True, note=note)

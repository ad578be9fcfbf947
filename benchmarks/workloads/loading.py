"""A version that is loaded answers 100 calls a second, and another loads beside it: who notices?"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from aipod.rpc.client import AIClient
from benchmarks.callers import Order
from benchmarks.harness import Comparison, Plan, Server, alternate, call

_RATE = 100.0
_GOAL = 2.0
_KINDS = {
    "numpy": ("reads 64 MB from disk, converts, normalises, over and over", _GOAL),
    "sleep": ("sleeps", None),
    "python": ("computes in pure Python half of the time", None),
}


def run(plan: Plan) -> Iterator[Comparison]:
    with Server("benchmarks.models", "Loading", model_pool_size=2) as ours:
        versions = {kind: f"{kind}-{plan.load_seconds:g}" for kind in _KINDS}
        with AIClient(ours.address) as client:
            AIClient(ours.address, versions["numpy"]).initialize()

            def beside(version: str) -> float:
                client.admin.unload(version)
                return _p99("aipod", ours, plan, version)

            sides: list[Callable[[], float]] = [lambda: _p99("aipod", ours, plan, "")]
            sides += [lambda version=version: beside(version) for version in versions.values()]  # type: ignore[misc]
            quiet, *loading = alternate(plan.rounds, *sides)
        for (kind, (note, goal)), latencies in zip(_KINDS.items(), loading, strict=True):
            yield _comparison(f"warm version's p99 while another loads ({kind})", latencies, quiet, goal, note)
    with Server("benchmarks.peers.original", "Loading") as original:
        quiet, loading_at_all = (
            [_p99("original", original, plan, "")],
            [_p99("original", original, plan, versions["sleep"])],
        )
    note = f"one round; what it cannot do is answer while a load of {plan.load_seconds:g} s holds its lock"
    yield _comparison("the same with the original's construction (sleep)", loading_at_all, quiet, None, note)


def _p99(peer: str, server: Server, plan: Plan, loading: str) -> float:
    return call(Order(peer, server.address, seconds=plan.load_seconds, rate=_RATE, loading=loading)).p99 * 1000


def _comparison(what: str, loading: list[float], quiet: list[float], goal: float | None, note: str) -> Comparison:
    return Comparison(what, "ms", loading, quiet, "quiet", goal, at_most=True, note=note)

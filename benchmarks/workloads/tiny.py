"""Small calls: what does AIPOD add to the bare transport, and what has it gained on 1.0?"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.callers import Order
from benchmarks.harness import Comparison, Plan, Server, alternate, call

_GOAL = 0.85
# Single measurements of small calls scatter by a third on two cores; the median of fewer did, too.
_ROUNDS_FACTOR = 2


def run(plan: Plan) -> Iterator[Comparison]:
    ours = Server("benchmarks.models", "Tiny")
    with ours, Server("benchmarks.peers.bare") as bare, Server("benchmarks.peers.original", "Tiny") as original:
        for style in ("threads", "asyncio"):
            for callers in (1, 32):
                yield _compare(plan, {"aipod": ours, "bare": bare}, style, callers, _GOAL)
        for callers in (1, 32):
            yield _compare(plan, {"aipod": ours, "original": original}, "threads", callers)


def _compare(plan: Plan, servers: dict[str, Server], style: str, callers: int, goal: float | None = None) -> Comparison:
    orders = [Order(peer, one.address, style, callers, plan.seconds) for peer, one in servers.items()]
    ours, theirs = alternate(_ROUNDS_FACTOR * plan.rounds, *(lambda order=order: call(order).rate for order in orders))
    against = list(servers)[1]
    return Comparison(f"tiny predict, {callers} × {style}", "calls/s", ours, theirs, against, goal)

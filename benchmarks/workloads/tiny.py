"""Small calls: what does AIPOD add to the bare transport, and what has it gained on 1.0?"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness import Comparison, Plan, Server, alternate, call
from benchmarks.order import Order

_GOAL = 0.85
# Single measurements of small calls scatter by a third on two cores; the median of fewer did, too.
_ROUNDS_FACTOR = 2


def run(plan: Plan) -> Iterator[Comparison]:
    # What the same construction costs with a model server on it; what other constructions gain is the races' question.
    ours = Server("benchmarks.models", "Tiny", front="aio")
    with ours, Server("benchmarks.peers.bare", "pool") as bare, Server("benchmarks.peers.original", "Tiny") as original:
        for style in ("threads", "asyncio"):
            for callers in (1, 32):
                yield _compare(plan, {"ours": ours, "bare": bare}, style, callers, _GOAL)
        for callers in (1, 32):
            yield _compare(plan, {"ours": ours, "original": original}, "threads", callers)


def _compare(plan: Plan, servers: dict[str, Server], style: str, callers: int, goal: float | None = None) -> Comparison:
    alone = {"ours": {"trunk": False}}
    orders = [
        Order(peer, one.address, style, callers, plan.seconds, options=alone.get(peer, {}))
        for peer, one in servers.items()
    ]
    ours, theirs = alternate(_ROUNDS_FACTOR * plan.rounds, *(lambda order=order: call(order).rate for order in orders))
    against = list(servers)[1]
    return Comparison(f"tiny predict, {callers} × {style}", "calls/s", ours, theirs, against, goal)

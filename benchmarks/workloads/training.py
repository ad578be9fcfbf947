"""A version is trained, on all of a core, and answers 200 calls a second meanwhile: who notices?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from aipod.rpc.client import AIClient
from benchmarks.harness import Comparison, Plan, Server, alternate, call
from benchmarks.order import Order

_RATE = 200.0
_GOAL = 2.0
_ROUNDS = 5


def run(plan: Plan) -> Iterator[Comparison]:
    with Server("benchmarks.models", "Trained") as server:
        with AIClient(server.address) as client:
            client.train()
        sides = [partial(_p99, server, plan, training) for training in (True, False)]
        during, quiet = alternate(min(plan.rounds, _ROUNDS), *sides)
    what = "p99 of 200 calls/s on a version that is trained and swapped meanwhile"
    note = "no call fails, or this line would not be here"
    yield Comparison(what, "ms", during, quiet, "quiet", _GOAL, at_most=True, note=note)


def _p99(server: Server, plan: Plan, training: bool) -> float:
    """Milliseconds; the training begins before the calls and ends within them."""
    order = Order("ours", server.address, seconds=plan.load_seconds, rate=_RATE, work="none")
    with AIClient(server.address) as client:
        job = client.start_training(seconds=plan.load_seconds / 2) if training else None
        try:
            return call(order, server).p99 * 1e3
        finally:
            if job is not None:
                job.result()

"""Models in processes of their own: what does a call pay for it, what do copies bring, how long does a change take?"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial

from aipod.rpc.client import AIClient
from benchmarks.harness import Comparison, Plan, Server, alternate, call
from benchmarks.order import Measured, Order
from benchmarks.peers import PEERS
from benchmarks.workloads.races import cpu, python, serving

_MB = 2**20
# What is sent, as a name, a work, and the bytes of its array.
_SIZES = (("tiny", "tiny", 0), ("1 MB", "sum", _MB), ("16 MB", "sum", 16 * _MB))
_MODELS = {"tiny": "First", "sum": "Arrays"}
_CALLERS = (1, 32)
# All calls that are on their way, of the largest size, both ways.
_ROOM = {"max_queue_bytes": 2**31, "shared_memory_bytes": 2**31}
_HANDING_OVER = ("mosec", "Aqueduct")
_TWICE = 1.8
_PEER_ROUNDS = 3


def run(plan: Plan) -> Iterator[Comparison]:
    for work in _MODELS:
        yield from _cost(plan, work)
    yield _copies(plan)
    yield from _lives(plan)


def _cost(plan: Plan, work: str) -> Iterator[Comparison]:
    """The same model on a thread and in a process, and two that hand every call to a process."""
    measures = [
        (f"{name} there and back, {callers} × threads", partial(Order, callers=callers, work=work, array_bytes=nbytes))
        for name, its_work, nbytes in _SIZES
        for callers in _CALLERS
        if its_work == work
    ]
    found: dict[tuple[str, str], list[Measured]] = defaultdict(list)
    for _ in range(plan.races):
        for isolation in ("process", "thread"):
            with Server("benchmarks.models", _MODELS[work], isolation=isolation, **_ROOM) as server:
                for what, order in measures:
                    ours = order("ours", server.address, seconds=plan.seconds, family=server.family)
                    found[what, isolation].append(call(ours, server))
    peers = [peer for peer in PEERS if peer.name in _HANDING_OVER and peer.python.exists()]
    for peer in peers:
        for _ in range(min(plan.races, _PEER_ROUNDS)):
            with serving(peer, work) as server:
                for what, order in measures:
                    theirs = order(peer.module, server.address, seconds=plan.seconds, family=server.family)
                    found[what, peer.name].append(call(theirs, server, python(peer)))
    for what, _ in measures:
        for other in ("thread", *(peer.name for peer in peers)):
            yield _beside(what, found[what, "process"], found[what, other], other)


def _beside(what: str, ours: Sequence[Measured], theirs: Sequence[Measured], other: str) -> Comparison:
    rounds = min(len(ours), len(theirs))
    mine, others = ([one.rate for one in side[:rounds]] for side in (ours, theirs))
    return Comparison(
        f"{what}, model in a process", "calls/s", mine, others, other, our_cpu=cpu(ours), their_cpu=cpu(theirs)
    )


def _copies(plan: Plan) -> Comparison:
    """A model that keeps the interpreter's lock for 2 ms, 8 callers: one copy, and two."""
    with (
        Server("benchmarks.models", "Busy", replicas=2) as two,
        Server("benchmarks.models", "Busy", isolation="process") as one,
    ):
        sides = [
            partial(
                call, Order("ours", server.address, callers=8, seconds=plan.seconds, work="tiny", family=server.family)
            )
            for server in (two, one)
        ]
        ours, theirs = alternate(plan.races, *sides)
    what = "a model that computes in Python for 2 ms, 8 × threads: two copies"
    rates = [[measured.rate for measured in side] for side in (ours, theirs)]
    return Comparison(what, "calls/s", *rates, "one", _TWICE, our_cpu=cpu(ours), their_cpu=cpu(theirs))


def _lives(plan: Plan) -> Iterator[Comparison]:
    """How long it takes to load and to unload, and from the end of a training to the first answer of what it made."""
    with (
        Server("benchmarks.models", "Trained", isolation="process") as process,
        Server("benchmarks.models", "Trained") as thread,
    ):
        for server in (process, thread):
            with AIClient(server.address) as client:
                client.train()
        found = alternate(plan.rounds, partial(_life, process.address), partial(_life, thread.address))
        for number, what in enumerate(("load", "unload", "from the end of train to the first new answer")):
            ours, theirs = ([one[number] * 1e3 for one in side] for side in found)
            yield Comparison(f"{what}, in a process", "ms", ours, theirs, "thread", at_most=True)


def _life(address: str) -> tuple[float, float, float]:
    """Seconds to load, to unload, and to serve what was trained."""
    with AIClient(address) as client:
        # What the round before has left.
        client.admin.unload("default")
        began = time.perf_counter()
        client.admin.load("default")
        loaded = time.perf_counter()
        client.admin.unload("default")
        unloaded = time.perf_counter()
        client.admin.load("default")
        ended = client.start_training().result()
        # The clock that a process on this machine shares with this one.
        while client.predict() != ended:
            pass
        return loaded - began, unloaded - loaded, time.time() - ended

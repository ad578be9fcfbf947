"""From nothing: how long until the client is imported, how long until the server serves?"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.harness import Comparison, Plan, Server, alternate

_OURS = "import aipod.rpc.client"
_LIBRARIES = "import grpc, msgpack, numpy"
_IMPORT_GOAL = 2.0
_READY_WITHIN = 1.0


def run(plan: Plan) -> Iterator[Comparison]:
    # An import reads from disk only once: the first of each is not counted.
    _interpret(_OURS), _interpret(_LIBRARIES)
    sides = (lambda: _interpret(_OURS), lambda: _interpret(_LIBRARIES), lambda: _interpret("pass"))
    ours, libraries, nothing = alternate(plan.rounds, *sides)
    note = f"of which the interpreter is {min(nothing):.0f} ms"
    yield Comparison(_OURS, "ms", ours, libraries, _LIBRARIES, _IMPORT_GOAL, at_most=True, note=note)
    ready, bare = alternate(
        plan.rounds, lambda: _ready("benchmarks.models", "Tiny"), lambda: _ready("benchmarks.peers.bare", "pool")
    )
    yield Comparison("server ready", "s", ready, [_READY_WITHIN] * plan.rounds, "1 s", 1.0, at_most=True)
    yield Comparison("server ready", "s", ready, bare, "bare", at_most=True)


def _interpret(program: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return (time.perf_counter() - started) * 1000


def _ready(*command: str) -> float:
    with Server(*command) as server:
        return server.ready_seconds

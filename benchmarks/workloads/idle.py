"""A thousand trunks that say nothing: what does each cost, and does a busy one notice them?"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benchmarks import family
from benchmarks.harness import Comparison, Plan, Process, Server, call
from benchmarks.order import Measured, Order
from benchmarks.workloads.races import cpu

_TRUNKS, _PROCESSES = 1000, 4
_CALLERS = 32
_KEPT = 0.9
_SETTLED, _LOOK, _LONGEST = 1.01, 0.5, 30.0


def run(plan: Plan) -> Iterator[Comparison]:
    quiet: list[Measured] = []
    beside: list[Measured] = []
    memory: list[tuple[float, float]] = []
    for _ in range(plan.races):
        with Server("benchmarks.models", "First") as server:
            quiet.append(_busy(plan, server))
            before = _settled(server)
            with _idle(server) as clients:
                grown = _settled(server) - before
                theirs = sum(one.pss_bytes() for one in clients)
                memory.append((grown / _TRUNKS / 1024, theirs / _TRUNKS / 1024))
                beside.append(_busy(plan, server))
    for number, side in enumerate(("server", "clients")):
        each = [one[number] for one in memory]
        note = "" if side == "server" else f"with the interpreters of their {_PROCESSES} processes"
        what = f"memory of each of {_TRUNKS:,} idle trunks, of the {side}"
        yield Comparison(what, "KB", each, [1.0] * len(each), "1 KB", at_most=True, note=note)
    what = f"tiny predict, {_CALLERS} × asyncio, beside {_TRUNKS:,} idle trunks"
    loud, alone = ([one.rate for one in side] for side in (beside, quiet))
    note = "no loss is the goal; that much is told from noise"
    yield Comparison(
        what, "calls/s", loud, alone, "no other", _KEPT, note=note, our_cpu=cpu(beside), their_cpu=cpu(quiet)
    )


def _busy(plan: Plan, server: Server) -> Measured:
    order = Order("ours", server.address, "asyncio", _CALLERS, plan.seconds, work="tiny", family=server.family)
    return call(order, server)


@contextmanager
def _idle(server: Server) -> Iterator[list[_Idlers]]:
    with ExitStack() as stack:
        idlers = [stack.enter_context(_Idlers(server.address)) for _ in range(_PROCESSES)]
        if (connected := sum(one.connected() for one in idlers)) != _TRUNKS:
            raise RuntimeError(f"{connected} of {_TRUNKS} clients have a trunk")
        yield idlers


class _Idlers(Process):
    """A process with its share of the clients."""

    def __init__(self, address: str) -> None:
        super().__init__(sys.executable, "-m", "benchmarks.idlers", address, str(_TRUNKS // _PROCESSES))
        self._stdin = self._stdout = subprocess.PIPE

    def connected(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline() or 0)

    def pss_bytes(self) -> int:
        return family.pss_bytes(family.members(self.family))


def _settled(server: Server) -> int:
    """The server's memory when it has stopped growing."""
    end = time.monotonic() + _LONGEST
    now = server.resident_bytes()
    while time.monotonic() < end:
        time.sleep(_LOOK)
        before, now = now, server.resident_bytes()
        if before / _SETTLED <= now <= before * _SETTLED:
            break
    return now

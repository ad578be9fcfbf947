"""Processes to measure, and measurements that take turns, ours and theirs, so that a machine's moods hit both alike."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

from benchmarks import family
from benchmarks.order import Measured, Order
from benchmarks.peers import Peer, Raw
from benchmarks.ports import free_port

_SLOWEST_START = 30.0
_ENDS_WITHIN = 10.0
# For what a process has started and not waited for.
_GRACE = 5.0
_CALLERS_END_WITHIN = 180.0
_LOOK = 0.02
_ROOT = Path(__file__).parents[1]
# What a server says at its end, of its log.
_LAST_WORDS = 300


P = TypeVar("P", bound="Process")
Cpu = tuple[float, float]


@dataclass(frozen=True)
class Plan:
    """How thorough to be.

    Attributes:
        rounds: Pairs of measurements per comparison.
        seconds: Length of one measurement of throughput.
        load_seconds: Length of a load, and of the calls beside it.
        races: Measurements of each side where all peers take part.
    """

    rounds: int = 7
    seconds: float = 1.5
    races: int = 5
    load_seconds: float = 10.0


@dataclass(frozen=True)
class Comparison:
    """One line of the report.

    Attributes:
        what: The question.
        unit: Of the numbers.
        ours: AIPOD's, one per round.
        theirs: What it is compared with, in the same rounds; or a bound, once per round.
        against: What it is compared with.
        goal: The ratio to reach; None where there is none.
        at_most: Whether less is better.
        note: For the reader.
        our_cpu: CPU seconds per 1,000 calls, of the server and of the callers; None where nobody looked.
        their_cpu: Likewise.
    """

    what: str
    unit: str
    ours: list[float]
    theirs: list[float]
    against: str
    goal: float | None = None
    at_most: bool = False
    note: str = ""
    our_cpu: Cpu | None = None
    their_cpu: Cpu | None = None
    ratios: list[float] = field(init=False)

    def __post_init__(self) -> None:
        ratios = [mine / other for mine, other in zip(self.ours, self.theirs, strict=True)]
        object.__setattr__(self, "ratios", ratios)

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        return self.ratio <= self.goal if self.at_most else self.ratio >= self.goal


class Process:
    """A process to measure, from ``with`` to its end.

    Args:
        command: What to run.
        settings: ``AIPOD_*`` by their names without the prefix, in lower case.

    Attributes:
        family: Of it and of all that it starts; see :mod:`benchmarks.family`.
    """

    def __init__(self, *command: str, **settings: object) -> None:
        self._command = command
        self._settings = settings
        self._stdout: int | IO[bytes] | None = None
        self._stderr: int | None = None
        self._stdin: int | None = None
        self._directory: str | None = None
        self._environment: dict[str, str] = {}
        self.family = uuid.uuid4().hex

    def __enter__(self: P) -> P:
        environment = {f"AIPOD_{name.upper()}": str(value) for name, value in self._settings.items()}
        self._process = subprocess.Popen(
            self._command,
            stdin=self._stdin,
            stdout=self._stdout,
            stderr=self._stderr,
            cwd=self._directory,
            env={
                **os.environ,
                "PYTHONPATH": str(_ROOT),
                family.VARIABLE: self.family,
                **environment,
                **self._environment,
            },
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        before = family.born(family.members(self.family))
        self._process.terminate()
        try:
            self._process.wait(_ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        family.end(self.family, _GRACE, before)

    def check(self) -> None:
        """Raise if it has ended of its own accord."""
        if self._process.poll() is not None:
            raise RuntimeError(f"{' '.join(self._command[1:])} ended with {self._process.returncode}")

    def cpu_seconds(self) -> float:
        """User's and system's, since it was started."""
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        return self._status("VmRSS")

    def peak_bytes(self) -> int:
        """The most since the last :meth:`forget_peak`."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        (self._proc / "clear_refs").write_text("5")

    @property
    def _proc(self) -> Path:
        return Path("/proc") / str(self._process.pid)

    def _status(self, name: str) -> int:
        lines = (self._proc / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


class Server(Process):
    """A server in a process of its own, with a directory for its data that goes when it does.

    Args:
        module: What ``python -m`` runs; its first line on stdout ends in ``on host:port``.
        arguments: For the module.
        settings: As for :class:`Process`.

    Attributes:
        ready_seconds: From the start of the process to its first line.
    """

    def __init__(self, module: str, *arguments: str, **settings: object) -> None:
        super().__init__(
            sys.executable, "-m", module, *arguments, **{"listen_host": "127.0.0.1", "listen_port": 0, **settings}
        )
        self._stdout = subprocess.PIPE
        self.address = ""
        self.ready_seconds = 0.0

    def __enter__(self) -> Server:
        self._data = tempfile.TemporaryDirectory(prefix="aipod-bench-")
        self._settings["data_path"] = self._data.name
        started = time.perf_counter()
        super().__enter__()
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        self.ready_seconds = time.perf_counter() - started
        self.address = line.rpartition(" on ")[2].strip()
        if not self.address:
            self.__exit__(None, None, None)
            raise RuntimeError(f"{' '.join(self._command[1:])} did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._data.cleanup()


class PeerServer(Process):
    """A peer in its environment, with a directory for whatever it writes that goes when it does.

    What it says goes there, too, and nobody reads it unless it ends before its time. It has a port when it has begun,
    and callers must wait until it serves.
    """

    def __init__(self, peer: Peer, work: str) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        arguments = (work, self.address.rpartition(":")[2], str(peer.workers))
        super().__init__(str(peer.python), "-m", f"benchmarks.peers.{peer.module}", *arguments)

    def __enter__(self) -> PeerServer:
        self._data = tempfile.TemporaryDirectory(prefix="aipod-bench-", ignore_cleanup_errors=True)
        self._directory = self._data.name
        self._environment = {"TMPDIR": self._directory}
        self._log = (Path(self._directory) / "log").open("w+b")
        self._stdout, self._stderr = self._log, subprocess.STDOUT
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._log.close()
        self._data.cleanup()

    def check(self) -> None:
        try:
            super().check()
        except RuntimeError as error:
            self._log.seek(0)
            words = self._log.read().decode(errors="replace").strip()
            raise RuntimeError(f"{error}: {words[-_LAST_WORDS:]}") from None


def call(order: Order, server: Process | None = None, python: str = sys.executable) -> Measured:
    """Carry an order out in a process of its own.

    Args:
        order: What to measure.
        server: Whose end is the end of this, too.
        python: The environment of the client.

    Raises:
        RuntimeError: The callers or the server failed.
    """
    return Measured(**_carry_out(order, server, python))


def call_as_bytes(order: Order, server: Process, python: str = sys.executable) -> Raw:
    """The call that an order makes, when the server has answered it; the arguments are those of :func:`call`."""
    raw = _carry_out(replace(order, style="raw"), server, python)
    return Raw(**{**raw, "body": bytes.fromhex(raw["body"])})


def _carry_out(order: Order, server: Process | None, python: str) -> dict[str, Any]:
    command = [python, "-m", "benchmarks.callers", json.dumps(asdict(order))]
    # Files, and not pipes, which somebody would have to empty meanwhile.
    with tempfile.TemporaryFile("w+") as answer, tempfile.TemporaryFile("w+") as errors:
        callers = subprocess.Popen(command, stdout=answer, stderr=errors, text=True, cwd=_ROOT)
        try:
            _wait(callers, server)
        finally:
            callers.kill()
            callers.wait()
        answer.seek(0), errors.seek(0)
        if callers.returncode:
            raise RuntimeError(f"the callers of {order.peer} failed: {errors.read().strip()[-_LAST_WORDS:]}")
        found: dict[str, Any] = json.load(answer)
    return found


def _wait(callers: subprocess.Popen[str], server: Process | None) -> None:
    """Until the callers have ended."""
    end = time.monotonic() + _CALLERS_END_WITHIN
    while callers.poll() is None:
        if server is not None:
            server.check()
        if time.monotonic() > end:
            raise RuntimeError(f"callers took longer than {_CALLERS_END_WITHIN:g} s")
        time.sleep(_LOOK)


def alternate(rounds: int, *sides: Callable[[], Any]) -> list[list[Any]]:
    """Measure every side in each round; gives one list per side."""
    results = [[side() for side in sides] for _ in range(rounds)]
    return [list(one) for one in zip(*results, strict=True)]

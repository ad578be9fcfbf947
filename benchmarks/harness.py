"""Processes to measure, and measurements that take turns, ours and theirs, so that a machine's moods hit both alike."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.callers import Measured, Order

_SLOWEST_START = 30.0
_ENDS_WITHIN = 10.0
_CALLERS_END_WITHIN = 120.0


@dataclass(frozen=True)
class Plan:
    """How thorough to be.

    Attributes:
        rounds: Pairs of measurements per comparison.
        seconds: Length of one measurement of throughput.
        load_seconds: Length of a load, and of the calls beside it.
    """

    rounds: int = 7
    seconds: float = 1.5
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
    """

    what: str
    unit: str
    ours: list[float]
    theirs: list[float]
    against: str
    goal: float | None = None
    at_most: bool = False
    note: str = ""
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
    """

    def __init__(self, *command: str, **settings: object) -> None:
        self._command = command
        self._settings = settings
        self._stdout: int | None = None

    def __enter__(self) -> Process:
        environment = {f"AIPOD_{name.upper()}": str(value) for name, value in self._settings.items()}
        self._process = subprocess.Popen(
            self._command, stdout=self._stdout, env={**os.environ, **environment}, text=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(_ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

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
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._data.cleanup()


def call(order: Order) -> Measured:
    """Carry an order out in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.callers", json.dumps(asdict(order))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=_CALLERS_END_WITHIN, check=True)
    return Measured(**json.loads(done.stdout))


def alternate(rounds: int, *sides: Callable[[], Any]) -> list[list[Any]]:
    """Measure every side in each round; gives one list per side."""
    results = [[side() for side in sides] for _ in range(rounds)]
    return [list(one) for one in zip(*results, strict=True)]

"""A process of ours, to be killed, frozen, started again and looked at from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from waiting import BOUND, eventually

__all__ = ["Child"]

ROOT = Path(__file__).parents[1]


class Child:
    """A process: what it says goes to a file, so that nothing stops because nobody reads.

    Args:
        arguments: Of ``python -m aipod``.
        directory: Where it runs.
        name: Of its log.
        says: What it prints once it is ready; without it nobody waits for that.
        variables: Added to its environment.
    """

    def __init__(self, *arguments: str, directory: Path, name: str, says: str = "", **variables: str) -> None:
        self.log = directory / f"{name}.log"
        self._command = [sys.executable, "-W", "error", "-m", "aipod", *arguments]
        self._directory = directory
        self._says = says
        self._environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{directory}", **variables}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, *more: str) -> None:
        """Start it, with more arguments if there are any."""
        assert not self.alive
        with self.log.open("ab") as log:
            log.write(b"--- started\n")
            self._process = subprocess.Popen(
                [*self._command, *more], cwd=self._directory, env=self._environment, stdout=log, stderr=log
            )

    def ready(self) -> None:
        """Wait until it has said so."""
        eventually(lambda: not self.alive or self._says in self.said())
        assert self.alive, self.said()

    def said(self) -> str:
        """What it has printed since it was started last."""
        return self.log.read_text(encoding="utf-8", errors="replace").rpartition("--- started\n")[2]

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, bound: float = BOUND) -> int:
        """Wait for its end; gives the exit status."""
        assert self._process is not None
        try:
            return self._process.wait(bound)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.log.stem} did not end in {bound:g} s:\n{self.said()[-4000:]}") from None

    def stop(self, number: signal.Signals = signal.SIGTERM, bound: float = BOUND) -> int:
        self.send(number)
        return self.wait(bound)

    def end(self) -> None:
        """Kill it, if it runs."""
        if self.alive:
            self.stop(signal.SIGKILL)

    def rss_bytes(self) -> int:
        return self._status("VmRSS")

    def peak_bytes(self) -> int:
        """The most memory that it ever had."""
        return self._status("VmHWM")

    def _status(self, field: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
        raise KeyError(field)

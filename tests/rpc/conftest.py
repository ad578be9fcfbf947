"""Servers: in this process on a free port, and as processes of their own that can be stopped, killed and restarted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from waiting import BOUND

from aipod.model import AIModelBase
from aipod.rpc.client import AIClient
from aipod.rpc.server import Server


@pytest.fixture(params=["cq", "aio"], autouse=True)
def front(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What is promised on the wire both fronts keep: every test of this directory runs once with each."""
    kind = str(request.param)
    monkeypatch.setenv("AIPOD_FRONT", kind)
    return kind


class Process:
    """A script that serves, as its author would start it."""

    def __init__(self, script: Path, data: Path, **environment: str) -> None:
        self._arguments = [sys.executable, str(script)]
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.getcwd(),
            "AIPOD_DATA_PATH": str(data),
            "AIPOD_LISTEN_PORT": str(free_port()),
            "AIPOD_LISTEN_HOST": "127.0.0.1",
            **environment,
        }
        self.start()

    def start(self) -> None:
        """Start it, again on the same port if it ran before; returns when it says that it serves."""
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.popen = subprocess.Popen(self._arguments, env=self._environment, **pipes)
        self.first_line = self.popen.stdout.readline().strip()
        self.port = self.first_line.rpartition(":")[2]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def wait(self, timeout: float = BOUND) -> int:
        """Its exit status, once it has ended; what it wrote is in ``stdout`` and ``stderr`` then."""
        self.stdout, self.stderr = self.popen.communicate(timeout=timeout)
        return self.popen.returncode

    def end(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.communicate()


@pytest.fixture
def process_of(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts scripts, given as text, that end in ``serve(…)``."""
    processes: list[Process] = []

    def make(source: str, **environment: str) -> Process:
        script = tmp_path / "script.py"
        script.write_text(textwrap.dedent(source), "utf-8")
        processes.append(Process(script, tmp_path / "data", **environment))
        return processes[-1]

    yield make
    for process in processes:
        process.end()


@pytest.fixture
def server_of(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def make(model: type[AIModelBase], **settings: Any) -> Server:
        defaults = {"port": 0, "listen_host": "127.0.0.1", "data_path": tmp_path / "data", "rpc_max_workers": 4}
        server = Server(model, **{**defaults, **settings})
        server.start()
        servers.append(server)
        return server

    yield make
    for server in servers:
        assert server.stop(BOUND), "something was still running at the end of the test"


@pytest.fixture
def client_of() -> Iterator[Callable[..., AIClient]]:
    clients: list[AIClient] = []

    def make(server: Any, version: str = "v", **options: Any) -> AIClient:
        clients.append(AIClient(server if isinstance(server, str) else server.address, version, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def background() -> Iterator[Callable[..., Future[Any]]]:
    with ThreadPoolExecutor(128) as threads:
        yield threads.submit


class Model(AIModelBase):
    """Does what its arguments say."""

    gate: threading.Event
    entered: list[str]

    def train(self, **kwargs: object) -> dict[str, object]:
        self.training_log.append(progress=100, message="完成")
        (self.model_dir() / "trained").write_text("yes")
        return kwargs

    def predict(self, do: str = "echo", **kwargs: Any) -> object:
        self.entered.append(do)
        if do == "wait":
            assert self.gate.wait(BOUND)
        elif do == "raise":
            raise (
                kwargs["error"] if isinstance(kwargs.get("error"), Exception) else ValueError(kwargs.get("text", "no"))
            )
        elif do == "exit":
            sys.exit(3)
        elif do == "return a set":
            return {"deep": [1, {2}]}
        return kwargs


@pytest.fixture
def model() -> type[Model]:
    return type("Model", (Model,), {"gate": threading.Event(), "entered": []})

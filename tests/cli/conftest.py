"""The real command: in a process of its own, or, where it only has to refuse, in the test's."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import secrets
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cli_streams
import cli_training
import pytest
from waiting import BOUND

from aipod.cli.main import main
from aipod.rpc.client import AIClient
from aipod.stream.dev import DevServer

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-W", "error", "-m", "aipod"]

MODEL = """
from aipod.model import AIModelBase

class Shout(AIModelBase):
    def predict(self, text="hello", binary_data=None):
        return {"text": text.upper() + "!", "bytes": binary_data}

class Whisper(Shout):
    pass

NUMBER = 3
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Refused = Callable[..., str]
Start = Callable[..., "subprocess.Popen[str]"]
OnTerminal = Callable[..., "tuple[subprocess.Popen[str], Callable[[], str]]"]


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """The directory that the command runs in, with the model ``desk_model.py``."""
    desk = tmp_path / "desk"
    desk.mkdir()
    (desk / "desk_model.py").write_text(MODEL)
    return desk


@pytest.fixture
def aipod(desk: Path) -> Run:
    """Run the command to its end: ``aipod("predict", "--json", "{}", AIPOD_ADDRESS=…)``."""

    def run(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            **_process(desk, variables),
            input=stdin,
            stdout=subprocess.PIPE,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def refused(desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Refused]:
    """Run the command in this process, which must end with 2 and one line for each problem; returns what it says."""
    monkeypatch.chdir(desk)
    monkeypatch.setattr(sys, "path", sys.path[:])

    def run(*arguments: str, stdin: bytes = b"") -> str:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as end:
            main(arguments)
        output, errors = capsys.readouterr()
        assert (end.value.code, output) == (2, "")
        assert re.fullmatch(r"aipod: [^\n]+\n(  [^\n]+\n)*", errors), errors
        return errors

    yield run
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(desk)):
            del sys.modules[name]


@pytest.fixture(scope="session")
def school(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server, a process of its own, that trains; a version for each test."""
    directory = tmp_path_factory.mktemp("school")
    (directory / "trainee.py").write_text(cli_training.MODEL)
    with subprocess.Popen(
        [*COMMAND, "serve", "trainee:Trainee", "--port", "0", "--host", "127.0.0.1", "--set", "train_max_jobs=8"],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        yield server.stdout.readline().split()[-1]
        server.kill()


@pytest.fixture
def pupil(school: str) -> Iterator[AIClient]:
    """A client for a version that nothing has been done with."""
    with AIClient(school, version=f"v{secrets.token_hex(4)}") as client:
        yield client


@pytest.fixture
def start(desk: Path) -> Iterator[Start]:
    """Start the command and leave it running; it is killed after the test, if it still runs by then."""
    with ExitStack() as stack:

        def start(*arguments: str, stdin: int | None = None, **variables: str) -> subprocess.Popen[str]:
            pipes = {"stdin": stdin, "stdout": subprocess.PIPE}
            process = subprocess.Popen([*COMMAND, *arguments], **_process(desk, variables), **pipes)
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture
def on_terminal(desk: Path) -> Iterator[OnTerminal]:
    """Start the command with a terminal for its stderr; gives the process, and what reads the terminal's screen."""
    with ExitStack() as stack:

        def start(
            *arguments: str, columns: int = 100, **variables: str
        ) -> tuple[subprocess.Popen[str], Callable[[], str]]:
            ours, theirs = pty.openpty()
            stack.callback(os.close, ours)
            try:
                fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
                options = {**_process(desk, variables), "stderr": theirs}
                process = subprocess.Popen([*COMMAND, *arguments], **options, stdout=subprocess.PIPE)
            finally:
                os.close(theirs)
            stack.enter_context(process)
            stack.callback(process.kill)
            return process, lambda: _read_terminal(ours)

        yield start


def _read_terminal(descriptor: int) -> str:
    """What comes next; nothing more once the command has ended."""
    ready, _, _ = select.select([descriptor], [], [], BOUND)
    assert ready, "the terminal stays as it is"
    try:
        return os.read(descriptor, 65536).decode()
    except OSError:
        return ""


def _process(desk: Path, variables: dict[str, str]) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "AIPOD_DATA_PATH": str(desk / "data"), **variables}
    return {"cwd": desk, "env": environment, "stderr": subprocess.PIPE, "encoding": "utf-8"}


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Where the broker and the model are."""
    directory = tmp_path_factory.mktemp("world")
    (directory / "summing.py").write_text(cli_streams.MODEL)
    arguments = ["serve", "summing:Sum", "--port", "0", "--host", "127.0.0.1", "--data-path", "data"]
    with (
        DevServer(directory / "nats") as broker,
        subprocess.Popen(
            [sys.executable, "-m", "aipod", *arguments],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        ) as server,
    ):
        assert server.stdout is not None
        yield broker.url, server.stdout.readline().split()[-1]
        server.kill()


@pytest.fixture
def world(places: tuple[str, str]) -> cli_streams.World:
    world = cli_streams.World(*places, name=f"t{secrets.token_hex(4)}")
    world.streams()
    return world

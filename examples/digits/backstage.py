"""What the demo works with: a server in a process of its own, callers that never stop asking, a line of progress."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from aipod.errors import AipodError
from aipod.rpc.client import AIClient

HERE = Path(__file__).parent
# Whatever goes wrong, the demo comes to an end.
LONGEST = 110.0
BAR = 30


class ServerProcess:
    """``serve.py`` on a free port, with a data path of its own that goes when the server does.

    Args:
        settings: As in the environment, without the ``AIPOD_``.
    """

    def __init__(self, **settings: str) -> None:
        self._settings = {f"AIPOD_{name.upper()}": value for name, value in settings.items()}

    def __enter__(self) -> ServerProcess:
        self._data = tempfile.TemporaryDirectory(prefix="aipod-demo-")
        self._log = Path(self._data.name, "server.log")
        mine = {name: value for name, value in os.environ.items() if not name.startswith("AIPOD_")}
        # Matrices as small as ours are slower when several cores share one.
        mine.update(AIPOD_LISTEN_PORT="0", AIPOD_DATA_PATH=f"{self._data.name}/data", OPENBLAS_NUM_THREADS="1")
        started = time.monotonic()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, HERE / "serve.py"],
                env={**mine, **self._settings},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._watchdog = threading.Timer(LONGEST, self._process.kill)
        self._watchdog.start()
        assert self._process.stdout is not None
        greeting = self._process.stdout.readline()
        self.seconds_to_start = time.monotonic() - started
        self.address = f"localhost:{greeting.strip().rpartition(':')[2]}"
        if not greeting.startswith("aipod: serving "):
            self.__exit__(None, None, None)
            raise SystemExit("the server did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watchdog.cancel()
        self._process.kill()
        self._process.communicate()
        if self._process.returncode:
            sys.stderr.write(self._log.read_text(errors="replace"))
        self._data.cleanup()

    def terminate(self) -> int:
        """Send SIGTERM and return the exit code."""
        self._process.terminate()
        return self._process.wait()

    def kill_children(self) -> None:
        """Send SIGKILL to the processes that the server has started: a training, if one runs."""
        for pid in children(self._process.pid):
            os.kill(pid, signal.SIGKILL)


class Reader:
    """``aipod stream run digits.toml``, again and again, until the end of the block.

    Args:
        broker: The URL that the task is given in place of the one in its file.
        model: The address, likewise.
    """

    def __init__(self, broker: str, model: str) -> None:
        task = (HERE / "digits.toml").read_text(encoding="utf-8")
        self._task = task.replace("nats://localhost:4222", broker).replace("localhost:50051", model)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Reader:
        self._directory = tempfile.TemporaryDirectory(prefix="aipod-demo-")
        self._log = Path(self._directory.name, "reader.log")
        Path(self._directory.name, "digits.toml").write_text(self._task, encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        if kind:
            sys.stderr.write(self._log.read_text(errors="replace"))
        self._directory.cleanup()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "aipod", "stream", "run", f"{self._directory.name}/digits.toml"],
                cwd=HERE,  # where the module is that the task names
                env={name: value for name, value in os.environ.items() if not name.startswith("AIPOD_")},
                stderr=log,
            )

    def kill(self) -> None:
        """Send SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def terminate(self) -> int:
        """Send SIGTERM and return the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait()


class Traffic:
    """Threads that ask one version the same thing, from ``with`` to its end, and what became of it.

    Every thread has had an answer when the block begins, and makes one call more when it ends.

    Attributes:
        answers: For each thread its answers in order, as the epochs and the digits in them.
        failures: The calls that failed.
    """

    def __init__(self, client: AIClient, images: NDArray[Any], threads: int) -> None:
        self._client = client
        self._images = images
        self._all_asked = threading.Barrier(threads + 1)
        self._enough = threading.Event()
        self._threads = ThreadPoolExecutor(threads)
        self.answers: list[list[tuple[int, list[int]]]] = [[] for _ in range(threads)]
        self.failures: list[AipodError] = []

    def __enter__(self) -> Traffic:
        self._work = [self._threads.submit(self._ask_on, answers) for answers in self.answers]
        self._all_asked.wait(LONGEST)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._enough.set()
        self._threads.shutdown()
        for thread in self._work:
            thread.result()

    def _ask_on(self, answers: list[tuple[int, list[int]]]) -> None:
        self._ask(answers)
        self._all_asked.wait(LONGEST)
        while not self._enough.is_set():
            self._ask(answers)
        self._ask(answers)

    def _ask(self, answers: list[tuple[int, list[int]]]) -> None:
        try:
            reply = self._client.predict(images=self._images)
            answers.append((reply["epochs"], reply["digits"].tolist()))
        except AipodError as error:
            self.failures.append(error)


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    tasks = Path(f"/proc/{pid}/task")
    if tasks.exists():
        return [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    return [int(child) for child, parent in map(str.split, listing.splitlines()) if int(parent) == pid]


def train(client: AIClient, epochs: int, margin: str) -> None:
    """Train, and show what the job says meanwhile: a bar that grows on a terminal, else a line for each quarter."""
    job = client.start_training(epochs=epochs)
    live, shown = sys.stdout.isatty(), -1
    for record in job.logs(follow=True):
        progress, told = record["progress"], record["data"]
        bar = f"[{'#' * int(BAR * progress / 100):{BAR}}] {progress:3.0f}%"
        line = f"{margin}{bar}  epoch {told['epoch']:2}, accuracy {told['accuracy']:.3f} in training"
        if live:
            print(f"\r{line}", end="", flush=True)
        elif progress // 25 > shown:
            print(line, flush=True)
            shown = progress // 25
    if live:
        print()
    job.result()

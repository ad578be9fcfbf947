"""What somebody sees while a training runs: a bar that lives on a terminal, plain lines anywhere else.

Both go to stderr, so that stdout has nothing but the value.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol

import click

from aipod.cli.progress import Progress
from aipod.cli.records import record_line, state_line
from aipod.rpc.client import JobInfo

__all__ = ["ERASE", "Bar", "Display", "Lines"]

# Back to the first column, and away with what stands there.
ERASE = "\r\x1b[K"

_TICK_SECONDS = 0.5
_COLUMNS = 80


class Display(Protocol):
    """Shows a training, within its block."""

    def __enter__(self) -> Display: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def tell(self, info: JobInfo) -> None:
        """It stands so now; the same may be told again."""

    def add(self, record: Mapping[str, Any]) -> None:
        """It has written a record."""


class Lines:
    """A line for each record, and for each change of its state."""

    def __init__(self) -> None:
        self._state = self._shown = ""

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def tell(self, info: JobInfo) -> None:
        # That it is queued is news when it stays so. The end is told with the last records, and before them: it is for
        # whoever follows to say.
        is_passing = info.is_over or (info.state == "queued" and self._state != "queued")
        self._state = info.state
        if info.state != self._shown and not is_passing:
            click.echo(state_line(info), err=True)
            self._shown = info.state

    def add(self, record: Mapping[str, Any]) -> None:
        click.echo(record_line(record), err=True)


class Bar:
    """One line that is drawn anew twice a second, whether there are records or not: its times go on.

    A thread draws; the lock guards what it draws.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._progress = Progress(time.monotonic())
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._draw_on, name="aipod-bar", daemon=True)

    def __enter__(self) -> Bar:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._draw()
        click.echo(err=True)

    def tell(self, info: JobInfo) -> None:
        with self._lock:
            self._progress.tell(info, time.monotonic())

    def add(self, record: Mapping[str, Any]) -> None:
        with self._lock:
            self._progress.add(record, time.monotonic())

    def _draw_on(self) -> None:
        while True:
            self._draw()
            if self._over.wait(_TICK_SECONDS):
                return

    def _draw(self) -> None:
        with self._lock:
            # In its last column a terminal would begin a new line.
            line = self._progress.line(time.monotonic(), _columns() - 1)
        click.echo(ERASE + line, nl=False, err=True)


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _COLUMNS
    except OSError:
        return _COLUMNS

"""Results as lines of JSON on the standard output. No record: what was printed cannot be asked for again."""

from __future__ import annotations

import os
import sys

from aipod.errors import StorageError
from aipod.stream.errors import TaskStopped
from aipod.stream.result import Result
from aipod.stream.sinks.thread import SinkThread

__all__ = ["StdoutSink"]


class StdoutSink:
    """Prints each result as one line, at once.

    It writes to the descriptor itself: a buffered stream is shared with everything else that prints, and one whose
    reader sleeps would keep the process from ending.
    """

    name = "stdout"

    def __init__(self, task: str, descriptor: int = 1) -> None:
        self._task = task
        self._descriptor = descriptor
        self._thread = SinkThread("stdout")

    def __repr__(self) -> str:
        return "StdoutSink()"

    async def open(self) -> None:
        await self._thread.run(self._print, b"")

    async def write(self, result: Result) -> None:
        await self._thread.run(self._print, result.encode() + b"\n")

    async def close(self) -> None:
        await self._thread.end()

    def _print(self, line: bytes) -> None:
        if self._descriptor == 1 and sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()  # what the program printed before comes before
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except BrokenPipeError:
            raise TaskStopped(self._task, "nobody reads the standard output any more") from None
        except OSError as error:
            raise StorageError("print a result", error.strerror or type(error).__name__) from error

"""A training in a process of its own: what kills it there hurts nothing here."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aipod.config import Settings
from aipod.engine.child import ChildInstance, MakeOrder, Origin
from aipod.engine.runners import Order, Wish
from aipod.errors import ModelCrashed, TrainingFailed

__all__ = ["MAX_OUTPUT_BYTES", "Output", "ProcessRunner"]


MAX_OUTPUT_BYTES = 16 << 20

_CUT = b"\n(what was printed after this was dropped: %d bytes are kept)\n"


class Output:
    """What a training prints, kept in a file up to a size.

    Args:
        path: The file; a run that goes on after an interruption adds to it.
        limit: How many bytes are kept.
    """

    def __init__(self, path: Path, limit: int = MAX_OUTPUT_BYTES) -> None:
        self._path = path
        self._limit = limit

    def write(self, data: bytes) -> None:
        """Add to it; beyond the limit there is one line that says so.

        Raises:
            OSError: The disk refused.
        """
        with self._path.open("ab") as file:
            room = self._limit - file.tell()
            if room >= 0:
                file.write(data[:room])
                if len(data) > room:
                    file.write(_CUT % self._limit)


class ProcessRunner:
    """A :class:`~aipod.engine.runners.Runner` whose run anybody can end.

    Args:
        origin: Where the process finds the class.
        root: The data path.
        order: What it runs.
        settings: How nice it is, how long it may take for its end, and how much memory it shares.
    """

    def __init__(self, origin: Origin, root: Path, order: Order, settings: Settings) -> None:
        self._order = order
        self._grace = settings.train_grace
        self._shared_memory_bytes = settings.shared_memory_bytes
        self._make = MakeOrder(
            origin=origin.fields(),
            version=order.job.version,
            root=str(root),
            kind="staging",
            directory=str(order.staging.directory),
            log=str(order.staging.place.log_path()),
            job_id=order.job.id,
            resume=order.resumes,
            nice=settings.train_nice,
        )
        self._source = _Source(order.job.version)
        self._lock = threading.Lock()
        self._child: ChildInstance | None = None
        # What was asked before there was anybody to ask.
        self._missed: list[Callable[[ChildInstance], object]] = []

    def train(self, arguments: dict[str, Any]) -> Any:
        try:
            child = ChildInstance.start(
                self._make,
                shared_memory_bytes=self._shared_memory_bytes,
                on_output=Output(self._order.output_path).write,
                on_beat=self._order.on_sign,
                on_begin=self._begun,
            )
        except ModelCrashed as error:
            raise self._crashed(error) from None
        except OSError as error:
            reason = f"no process could be started for it ({os.strerror(error.errno or 0)}); try again later"
            raise TrainingFailed(self._order.job.version, self._order.job.id, reason) from None
        try:
            # What was asked while the instance was made it could not hear.
            self._catch_up(child)
            return child.call("train", arguments, self._source)
        except ModelCrashed as error:
            raise self._crashed(error) from None
        finally:
            child.end(self._grace)

    def ask(self, wish: Wish) -> None:
        with self._lock:
            self._missed.append(lambda child: child.ask(wish))
            child = self._child
        if child is not None:
            child.ask(wish)

    def terminate(self) -> None:
        self._do(ChildInstance.terminate)

    def kill(self) -> bool:
        self._do(ChildInstance.kill)
        return True

    def _do(self, action: Callable[[ChildInstance], object]) -> None:
        with self._lock:
            child = self._child
            if child is None:
                self._missed.append(action)
        if child is not None:
            action(child)

    def _begun(self, child: ChildInstance) -> None:
        with self._lock:
            self._child = child
        self._catch_up(child)

    def _catch_up(self, child: ChildInstance) -> None:
        with self._lock:
            missed = list(self._missed)
        for action in missed:
            action(child)

    def _crashed(self, error: ModelCrashed) -> ModelCrashed:
        child = self._child
        return error if child is None else ModelCrashed(f"its process is gone: {child.ended.result()}")


class _Source:
    """What the child is told of the call: it ends with nobody's deadline. That it is to end is asked of the run."""

    method = "train"
    deadline = None
    cancelled = False

    def __init__(self, version: str) -> None:
        self.version = version

    def watch(self, action: Callable[[], object]) -> None:
        pass

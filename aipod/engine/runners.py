"""Where a training runs: on a thread of this process, or in a process of its own. Both look the same from outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from aipod.engine.running import RunSource, run_method
from aipod.model.base import AIModelBase
from aipod.model.job import Job
from aipod.model.run import Run
from aipod.model.staging import Staging

__all__ = ["Order", "Runner", "ThreadRunner", "Wish"]

Wish = Literal["cancel", "stop"]


@dataclass(frozen=True)
class Order:
    """What is to be run.

    Attributes:
        job: Which job it is.
        staging: The directory that it works in.
        resumes: Whether it goes on from what the directory holds.
        output_path: Where what it prints goes.
        on_sign: Called at every sign of life, from any thread.
    """

    job: Job
    staging: Staging
    resumes: bool
    output_path: Path
    on_sign: Callable[[], object]


class Runner(Protocol):
    """One run of ``train``. All but :meth:`train` may be called from any thread, at any time, also before and after."""

    def train(self, arguments: dict[str, Any]) -> Any:
        """Run to the end, and give what the model returned.

        Raises:
            ModelCrashed: The process that it ran in died.
            BaseException: Whatever the model raised.
        """

    def ask(self, wish: Wish) -> None:
        """Let the model know; it may take no notice."""

    def terminate(self) -> None:
        """Ask its process to end, where it has one."""

    def kill(self) -> bool:
        """End its process; False if it has none."""
        raise NotImplementedError


class ThreadRunner:
    """A run on the thread that calls :meth:`train`. Nobody can end it but the model itself."""

    def __init__(self, model_class: type[AIModelBase], root: Path, order: Order) -> None:
        directory = order.staging.directory
        self._model_class = model_class
        self._root = root
        self._place = order.staging.place
        self._run = Run(order.job.version, order.job.id, directory if order.resumes else None, order.on_sign)

    def train(self, arguments: dict[str, Any]) -> Any:
        source = RunSource(self._run.version, "train", self._run)
        return run_method(self._model_class, self._root, self._place, source, arguments)

    def ask(self, wish: Wish) -> None:
        if wish == "cancel":
            self._run.cancel()
        else:
            self._run.stopping = True

    def terminate(self) -> None:
        pass

    def kill(self) -> bool:
        return False

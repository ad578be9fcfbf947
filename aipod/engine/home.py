"""Where an instance lives: the interface, and the way to live in this process. The other way is in
:mod:`aipod.engine.replicas`.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from aipod.engine.invoke import endpoint, memory_of, prepare
from aipod.errors import AipodError
from aipod.memory import resident_bytes
from aipod.model.base import AIModelBase, has_batches
from aipod.model.batching import BatchPredict
from aipod.model.place import Place, construct

__all__ = ["Home", "Methods", "ThreadHome"]

Methods = dict[str, Callable[..., Any]]

_log = logging.getLogger("aipod.engine")


class Home(Protocol):
    """An instance of the model, wherever it is. Built and left on threads that may wait.

    Attributes:
        width: How many copies of it there are to call now; it may change.
        size_bytes: The memory that it takes.
    """

    width: int
    size_bytes: int

    def move_in(self, version: str, root: Path, place: Place) -> Methods:
        """Build the instance, load and warm it; gives the methods that a lane may call.

        Raises:
            BaseException: What the user's code raised; :meth:`move_out` is due all the same.
        """

    def watch(self, on_width: Callable[[], object], on_lost: Callable[[AipodError], object]) -> None:
        """Say who is told, on any thread, when :attr:`width` has changed, and when there is no instance any more."""

    def move_out(self) -> None:
        """Dispose of the instance; never raises, since nobody could do anything about it."""


class ThreadHome:
    """An instance in this process; its methods run on the threads that call them.

    Args:
        model_class: The user's class.
    """

    def __init__(self, model_class: type[AIModelBase]) -> None:
        self.width = 1
        self.size_bytes = 0
        self._model_class = model_class
        self._instance: AIModelBase | None = None

    def move_in(self, version: str, root: Path, place: Place) -> Methods:
        before = resident_bytes()
        self._instance = instance = construct(self._model_class, place, version, root)
        prepare(instance)
        self.size_bytes = memory_of(instance, before)
        predict = BatchPredict(instance) if has_batches(self._model_class) else endpoint(instance.predict)
        return {"predict": predict, "log": endpoint(instance.log)}

    def watch(self, on_width: Callable[[], object], on_lost: Callable[[AipodError], object]) -> None:
        # It stays as it is for as long as the process lives.
        pass

    def move_out(self) -> None:
        instance, self._instance = self._instance, None
        if instance is None:
            return
        try:
            instance.dispose()
        except BaseException:
            _log.exception("dispose() of version %r failed; its instance is dropped all the same", instance.version)
        del instance
        # Models are full of reference cycles, and it is their memory that the next one waits for.
        gc.collect()

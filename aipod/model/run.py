"""What a training may know of the run that it is part of.

Code of 1.0 need not know of it. A training that works for long asks now and then::

    def train(self, epochs=10):
        begin = self.restore(self.resume_from) if self.resume_from else 0
        for epoch in range(begin, epochs):
            ...
            self.training_log.append(progress=100 * epoch / epochs)   # raises TrainingCancelled, if it is to end
            if self.stopping:
                break                                                 # what there is by now is published
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from aipod.errors import TrainingCancelled

__all__ = ["NO_RUN", "Asked", "Run"]

T = TypeVar("T")


class Run:
    """One run of ``train``, as the model sees it. Its flags are set from any thread.

    Args:
        version: The version that is trained.
        job_id: The job's id; ``""`` where there is none.
        resume_from: Where an interrupted run of the same job left what it had.
        on_record: Called after each record of the training log.

    Attributes:
        stopping: Whether it is to come to an end early, and what it has by then to be published.
        heard: Whether the model has been told that it is cancelled. Until it has, what it returns is what it would have
            returned anyway.
    """

    def __init__(
        self,
        version: str = "",
        job_id: str = "",
        resume_from: Path | None = None,
        on_record: Callable[[], object] = lambda: None,
    ) -> None:
        self.version = version
        self.job_id = job_id
        self.resume_from = resume_from
        self.stopping = False
        self.heard = False
        self._cancelled = False
        self._on_record = on_record

    @property
    def cancelled(self) -> bool:
        """Whether the run is to end, and what it made to be thrown away. Who asks has heard of it."""
        if self._cancelled:
            self.heard = True
        return self._cancelled

    def cancel(self) -> None:
        """Let it end."""
        self._cancelled = True

    def returned(self) -> None:
        """``train`` has returned.

        Raises:
            TrainingCancelled: It has heard that it is to end, so that what it returned may be half of something.
        """
        if self.heard:
            raise TrainingCancelled(self.version, self.job_id)

    def recorded(self) -> None:
        """A record was written.

        Raises:
            TrainingCancelled: The run is to end.
        """
        self._on_record()
        if self.cancelled:
            raise TrainingCancelled(self.version, self.job_id)


NO_RUN = Run()


class Asked(Generic[T]):
    """An attribute of a model that asks its run; a model may have one of its own by that name, and then it has that."""

    def __init__(self, ask: Callable[[Run], T], doc: str) -> None:
        self._ask = ask
        self.__doc__ = doc

    @overload
    def __get__(self, instance: None, owner: type) -> Asked[T]: ...

    @overload
    def __get__(self, instance: Any, owner: type) -> T: ...

    def __get__(self, instance: Any, owner: type) -> Asked[T] | T:
        return self if instance is None else self._ask(instance._aipod_run)

"""Trying again, for as long as the other side is away.

Which errors are the input's own fault, which pass, and which somebody must mend is decided here, for the whole package:

- *the input's*: the model does not take it. It is isolated and buried, and the rest goes on;
- *passing*: the other side is away, full, or not ready. Tried again without end, since the messages lose nothing by
  waiting: a version that is not there may be published, a server that is down may come back;
- everything else stops the task, which begins anew after a pause.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aipod.errors import (
    AipodError,
    Cancelled,
    Conflict,
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    LoadError,
    ModelCrashed,
    ModelError,
    NotInitialized,
    Overloaded,
    SerializationError,
    StorageError,
    TrainingInProgress,
    Unavailable,
    VersionNotFound,
)
from aipod.stream.pauses import Pauses

__all__ = ["FIRST_PAUSE", "LONGEST_PAUSE", "Retry", "is_inputs", "is_of_the_whole", "is_passing"]

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
# Nothing succeeded for so long: worth a line.
_AWAY_SECONDS = 1.0

T = TypeVar("T")

_PASSING = (
    Unavailable,
    Overloaded,
    DeadlineExceeded,
    Cancelled,
    NotInitialized,
    VersionNotFound,
    LoadError,
    ModelCrashed,
    Conflict,
    TrainingInProgress,
    StorageError,
    InternalError,
)
# What an accelerator's libraries raise when the accelerator, not the input, is the trouble. They have no class in
# common: PyTorch raises RuntimeError("CUDA error: …"), TensorFlow and JAX errors of their own that name the device.
_ACCELERATOR = re.compile(
    r"\b(?:CUDA|cuDNN|cuBLAS|CUBLAS|NCCL|NVML|HIP error|ROCm|MPS backend|XlaRuntimeError|DeviceLost)|out of memory"
    r"|OutOfMemory|MemoryError|Cannot allocate memory"
)
# gRPC's words; our own server refuses in the same ones.
_OVERSIZED = "message larger than max"


def is_inputs(error: BaseException) -> bool:
    """Whether the input is to blame, so that another input may pass where this one does not."""
    if isinstance(error, Overloaded):
        return _OVERSIZED in str(error)
    if isinstance(error, ModelError):
        # Its type is that of what was raised; it stands in the sentence too.
        return not isinstance(error, ModelCrashed) and _ACCELERATOR.search(str(error)) is None
    return isinstance(error, InvalidArgument)


def is_of_the_whole(error: BaseException) -> bool:
    """Whether the error speaks of a request as one thing (its size, above all), and of none of its parts."""
    if isinstance(error, SerializationError):
        return error.place in ("kwargs", "message")
    return isinstance(error, Overloaded) and is_inputs(error)


def is_passing(error: BaseException) -> bool:
    """Whether the same call may well succeed later, with nobody touching the task."""
    return isinstance(error, (*_PASSING, ModelError)) and not is_inputs(error)


class Retry:
    """Calls one other side, shared by all who call it: that it is away is logged once, and once that it is back.

    What fails and succeeds by turns (a full queue) is not away; that is counted, and no line of the log.

    Args:
        what: The other side, for the log.
        log: Where to say so.
        failed: Called for each try that failed in passing.
    """

    def __init__(self, what: str, log: logging.Logger, *, failed: Callable[[], None] = lambda: None) -> None:
        self._what = what
        self._log = log
        self._failed = failed
        self._away_since: float | None = None
        # Each kind of error is worth one line while it is away: what is wrong may change.
        self._said: set[type[BaseException]] = set()

    @property
    def away(self) -> bool:
        """Whether nobody's call has succeeded since one failed in passing."""
        return self._away_since is not None

    async def __call__(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Call until it succeeds.

        Raises:
            Exception: Whatever is not passing, at once.
        """
        pauses = Pauses(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                value = await attempt()
            except AipodError as error:
                if not is_passing(error):
                    self._back()  # it answered
                    raise
                self._failed()
                self._gone(error)
            else:
                self._back()
                return value
            await asyncio.sleep(pauses.next())

    def _gone(self, error: AipodError) -> None:
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        if now - self._away_since >= _AWAY_SECONDS and type(error) not in self._said:
            self._said.add(type(error))
            self._log.warning("%s: %s; trying again until it works", self._what, error)

    def _back(self) -> None:
        if self._said and self._away_since is not None:
            self._log.warning("%s is back after %.1f s", self._what, time.monotonic() - self._away_since)
        self._away_since = None
        self._said.clear()

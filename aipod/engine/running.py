"""One run of ``initialize`` or ``train``: a fresh instance, its method, and its end."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aipod.engine.invoke import endpoint, perform
from aipod.errors import StorageFull
from aipod.model.base import AIModelBase
from aipod.model.place import Place, construct
from aipod.model.run import NO_RUN, Run

__all__ = ["RunSource", "run_method", "write"]

_log = logging.getLogger("aipod.engine")


@dataclass(frozen=True)
class RunSource:
    """What ``current_call()`` shows inside: a run ends neither with its caller nor with the caller's deadline."""

    version: str
    method: str
    run: Run = NO_RUN
    deadline: float | None = None

    @property
    def cancelled(self) -> bool:
        return self.run.cancelled


def write(method: Callable[..., Any], source: RunSource, arguments: dict[str, Any]) -> Any:
    """Call an ``initialize`` or a ``train``.

    Raises:
        StorageFull: There was no room for what it wrote.
        TrainingCancelled: It came to its end because it was told to.
        BaseException: Whatever else it raised.
    """
    try:
        value = perform(method, source, arguments)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"{source.method} of version {source.version!r}") from error
        raise
    source.run.returned()
    return value


def run_method(
    model_class: type[AIModelBase], root: Path, place: Place, source: RunSource, arguments: dict[str, Any]
) -> Any:
    """Run ``initialize`` or ``train`` of a new instance, and dispose of that.

    Raises:
        StorageFull: There was no room for what it wrote.
        BaseException: Whatever else the model raised.
    """
    instance = construct(model_class, place, source.version, root, {"_aipod_run": source.run})
    try:
        return write(endpoint(getattr(instance, source.method)), source, arguments)
    finally:
        try:
            instance.dispose()
        except Exception:
            _log.exception("dispose() after %s of version %r failed", source.method, source.version)

"""Versions that are kept out of the pool while a training has the machine to itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aipod.errors import Unavailable

__all__ = ["Bars"]


class Bars:
    """Which versions may not be loaded now, and the jobs that they make room for."""

    def __init__(self) -> None:
        self._jobs: dict[str, str] = {}

    def __contains__(self, version: str) -> bool:
        return version in self._jobs

    def check(self, version: str) -> None:
        """
        Raises:
            Unavailable: It may not be loaded; names the job.
        """
        job = self._jobs.get(version)
        if job is not None:
            raise Unavailable(
                f"version {version!r} is unloaded while training job {job!r} has the machine to itself;"
                " try again when it is over"
            )

    @contextmanager
    def closed(self, version: str, job: str, unload: Callable[[str], object]) -> Iterator[None]:
        """Have no instance of a version: what there is goes when its calls are through, and who calls is told why."""
        self._jobs[version] = job
        try:
            unload(version)
            yield
        finally:
            del self._jobs[version]

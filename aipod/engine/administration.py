"""What an operator asks and orders: the state of the versions, and every change that is not a call of the model's."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from aipod.engine.pool import Pool
from aipod.engine.resident import Resident, State
from aipod.engine.statistics import LaneState, Statistics
from aipod.errors import AipodError, InvalidArgument, VersionNotFound
from aipod.model.names import check_version
from aipod.model.store import Revision, Store

__all__ = ["Administration", "VersionState"]

_log = logging.getLogger("aipod.engine")

_SHOWN = {State.WAITING: "loading", State.LOADING: "loading", State.READY: "ready", State.DRAINING: "draining"}


@dataclass(frozen=True)
class VersionState:
    """One version, on disk and in the pool.

    Attributes:
        state: ``absent``, ``loading``, ``ready``, ``draining`` or ``failed``.
        revision: The live one on disk; 0 if there is none.
        loaded_revision: The one that the instance was made of; 0 without an instance, or for one without data.
        memory_bytes: What the instance takes up in memory; 0 without one.
        last_use: Seconds since the epoch; 0.0 if not since it was loaded.
        reason: Why it is failed.
    """

    version: str
    state: str
    revision: int
    loaded_revision: int
    revisions: Sequence[Revision]
    memory_bytes: int
    last_use: float
    pinned: bool
    aliases: Sequence[str]
    reason: str


class Administration:
    """The operator's verbs. They may block (on a load, on the disk), so no event loop calls them.

    Args:
        store: The data.
        pool: The instances.
        workers_busy: How many calls run now.
    """

    def __init__(self, store: Store, pool: Pool, workers_busy: Callable[[], int]) -> None:
        self._store = store
        self._pool = pool
        self._workers_busy = workers_busy

    def preload(self, versions: Sequence[str]) -> None:
        """Load versions now; one that fails is logged, and tried again when it is called."""
        for version in dict.fromkeys(versions):
            try:
                self._pool.load(version)
            except AipodError as error:
                _log.error("version %r was to be preloaded: %s", version, error)

    def versions(self) -> list[VersionState]:
        """All that are on disk or in the pool, by name."""
        inside = {resident.version: resident for resident in reversed(self._pool.residents())}
        names = sorted({*self._store.versions(), *inside})
        by_version: dict[str, list[str]] = {}
        for alias, version in sorted(self._store.aliases().items()):
            by_version.setdefault(version, []).append(alias)
        return [self._version(name, inside.get(name), by_version.get(name, [])) for name in names]

    def revisions(self, version: str) -> list[Revision]:
        """Those of one version, the oldest first.

        Raises:
            VersionNotFound: There is none.
        """
        return self._store.revisions(self._resolve(version))

    def aliases(self) -> dict[str, str]:
        return self._store.aliases()

    def load(self, version: str, timeout: float | None = None) -> None:
        self._pool.load(self._resolve(version), timeout)

    def unload(self, version: str, timeout: float | None = None) -> None:
        """Let the instance go; returns when its memory is given back.

        Raises:
            VersionNotFound: It is neither on disk nor in the pool.
            DeadlineExceeded: Its calls were not through in time; it goes as soon as they are.
        """
        self._pool.unload(self._known(version), timeout)

    def pin(self, version: str, pinned: bool = True) -> None:
        """Keep a version from eviction and idling, or no longer. Does not load it.

        Raises:
            VersionNotFound: It is neither on disk nor in the pool.
        """
        self._pool.pin(self._known(version) if pinned else self._resolve(version), pinned)

    def rollback(self, version: str, revision: int | None = None) -> int:
        """Make another revision live and serve it; None is the newest below the live one. Returns its number.

        Raises:
            VersionNotFound: There is no such revision.
            LoadError: It does not load; what was live before is live again.
        """
        version = self._resolve(version)
        before = self._store.current(version)
        number = self._store.rollback(version, revision)
        try:
            self._pool.swap(version)
        except AipodError:
            if before is not None:
                self._store.rollback(version, before)
                self._pool.swap(version)
            raise
        return number

    def set_alias(self, alias: str, version: str) -> None:
        self._store.set_alias(check_version(alias), check_version(version))

    def drop_alias(self, alias: str) -> None:
        self._store.drop_alias(check_version(alias))

    def delete(self, version: str, timeout: float | None = None) -> None:
        """Remove a version from the pool and from disk.

        Raises:
            Conflict: It is in use, here or elsewhere.
            InvalidArgument: It is an alias, or an alias names it.
        """
        version = check_version(version)
        target = self._store.resolve(version)
        if target != version:
            raise InvalidArgument(
                f"{version!r} is an alias of {target!r}; drop the alias, or delete the version by its name"
            )
        if self._store.current(version) is None:
            raise VersionNotFound(version)
        self._pool.unload(version, timeout)
        self._store.delete(version)
        self._pool.pin(version, False)

    def export(self, version: str, revision: int | None, target: Path | BinaryIO) -> None:
        """Write one revision, the live one if None, to a zip file."""
        self._store.export(self._resolve(version), revision, target)

    def import_zip(self, version: str, source: Path | BinaryIO) -> int:
        """Publish what :meth:`export` wrote as a new revision and serve it. Returns its number."""
        version = check_version(version)
        number = self._store.import_zip(version, source)
        self._pool.swap(version)
        return number

    def statistics(self) -> Statistics:
        lanes = [
            LaneState(one.version, one.revision, one.lane.statistics(), one.lane.batch_statistics())
            for one in self._pool.residents()
        ]
        return Statistics(self._pool.statistics(), lanes, self._workers_busy())

    def _resolve(self, version: str) -> str:
        return self._store.resolve(check_version(version))

    def _known(self, version: str) -> str:
        version = self._resolve(version)
        if self._store.current(version) is None and all(one.version != version for one in self._pool.residents()):
            raise VersionNotFound(version)
        return version

    def _version(self, version: str, resident: Resident | None, aliases: list[str]) -> VersionState:
        reason = self._pool.failure(version)
        revision = self._store.current(version)
        revisions = self._store.revisions(version) if revision else []
        state = _SHOWN.get(resident.state, "failed") if resident is not None else "failed" if reason else "absent"
        last_use = time.time() - (time.monotonic() - resident.lane.last_used) if resident is not None else 0.0
        return VersionState(
            version,
            state,
            revision or 0,
            resident.revision if resident is not None else 0,
            revisions,
            resident.size_bytes if resident is not None else 0,
            last_use,
            self._pool.is_pinned(version),
            aliases,
            reason,
        )

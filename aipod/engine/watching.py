"""Revisions that another program put in place: one that shares the volume and trains elsewhere, or a sync.

One stat of ``models/`` per interval finds that some link has moved; only then the links of what is loaded are looked
at. What a link names is served once it is whole: its manifest is there, and all files are what that says. A copy that
is still under way is looked at again when one of its files has changed.
"""

from __future__ import annotations

import logging
import os
import time
from functools import partial

from aipod.clock import Clock
from aipod.engine.chores import Chores
from aipod.engine.pool import Pool
from aipod.engine.resident import State
from aipod.errors import AipodError
from aipod.model import manifest
from aipod.model.layout import MODELS
from aipod.model.store import Store

__all__ = ["Watch"]

_log = logging.getLogger("aipod.engine")

# A clock of files ticks in steps: two changes within one look like one.
_TICK_SECONDS = 1.0


class Watch:
    """Swaps to what others publish.

    Args:
        store: What is watched.
        pool: Whose versions are.
        interval: Seconds between looks; 0 for none at all.
        clock, chores: On whose threads it looks, and then reads and loads.
    """

    def __init__(self, store: Store, pool: Pool, interval: float, clock: Clock, chores: Chores) -> None:
        self._store = store
        self._pool = pool
        self._interval = interval
        self._clock = clock
        self._chores = chores
        self._links = store.root / MODELS
        # When models/ last changed, of what has been dealt with; and, of versions whose new revision is not whole, its
        # number and how its files looked when they were read.
        self._seen = -1
        self._unfinished: dict[str, tuple[int, tuple[object, ...]]] = {}

    def begin(self) -> None:
        self._again()

    def end(self) -> None:
        """Look no more, from the next time on."""
        self._interval = 0.0

    def _again(self) -> None:
        if self._interval:
            self._clock.at(time.monotonic() + self._interval, self._tick)

    def _tick(self) -> None:
        try:
            moved = os.stat(self._links).st_mtime_ns
        except OSError as error:
            _log.warning("what others publish cannot be seen: %s", error.strerror)
        else:
            if moved != self._seen or self._unfinished:
                # The clock's thread must not wait for the content of files, or for a load.
                self._chores.run("watch", partial(self._look, moved))
                return
        self._again()

    def _look(self, moved: int) -> None:
        try:
            for resident in self._pool.residents():
                if resident.state is State.READY:
                    self._follow(resident.version, resident.revision)
            self._seen = moved if time.time() - moved / 1e9 > _TICK_SECONDS else -1
        finally:
            self._again()

    def _follow(self, version: str, loaded: int) -> None:
        try:
            live = self._store.current(version)
            if live == loaded or (live is None and not (self._links / version).is_symlink()):
                self._unfinished.pop(version, None)
            elif live is None:
                # The link came before what it names.
                self._unfinished[version] = (0, ())
            elif self._is_whole(version, live):
                self._pool.swap(version)
        except AipodError as error:
            _log.warning("what is live of version %r now is not served: %s", version, error)

    def _is_whole(self, version: str, number: int) -> bool:
        before = self._unfinished.get(version, (0, ()))
        with self._store.lease(version, number) as held:
            now = (number, manifest.marks(held.directory))
            if now == before:
                return False
            problems = manifest.damage(held.directory)
        if not problems:
            self._unfinished.pop(version, None)
            return True
        self._unfinished[version] = now
        if before[0] != number:
            what = f"revision {number} of version {version!r} was put in place and is not whole: {problems[0]}"
            _log.warning("%s; what was loaded before is served until it is", what)
        return False

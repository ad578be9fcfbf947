"""The pool: finds a call the instance of its version, and loads, swaps and disposes of instances.

A warm call takes no lock of the pool: it reads the roster once and goes into the lane. If the lane is closed by then,
the call comes back and enters by the slow way. What that is, and every other change, is in
:mod:`aipod.engine.population`.
"""

from __future__ import annotations

import threading
import time
from functools import partial

from aipod.engine.call import Call
from aipod.engine.population import Population
from aipod.engine.refusals import draining, no_place, stopped
from aipod.engine.resident import Resident, State
from aipod.engine.statistics import PoolStatistics
from aipod.errors import AipodError, DeadlineExceeded, again

__all__ = ["Pool"]


class Pool(Population):
    """Instances of one class. Its methods may be called from any thread."""

    def __repr__(self) -> str:
        return f"<Pool {self.residents()}, {len(self._roster.waiting)} waiting>"

    def submit(self, call: Call) -> None:
        """Bring a call to its version's lane; loads the version if it has to.

        Raises:
            AipodError: It was not taken: full, draining, unknown, or remembered as failing.
        """
        resident = self._roster.residents.get(call.version)
        if resident is not None and resident.lane.is_open and resident.lane.put(call):
            return
        with self._planning() as todo:
            resident = self._roster.residents.get(call.version) or self._newcomer(call.version, todo)
            # No lane in the roster is closed while its lock is held: the call is in, or the lane is full and says so.
            resident.lane.put(call)
            if resident.state is State.WAITING:
                self._timers.watch_call(resident, call)

    def load(self, version: str, timeout: float | None = None) -> None:
        """Return once the version is ready.

        Raises:
            AipodError: Why it does not load; after ``timeout`` seconds ``Overloaded`` if no place came free,
                ``DeadlineExceeded`` if it was still loading.
        """
        with self._planning() as todo:
            resident = self._roster.residents.get(version) or self._newcomer(version, todo)
            resident.wanted += 1
        settled = resident.settled.wait(timeout)
        with self._planning():
            resident.wanted -= 1
        if not settled and resident.state is State.LOADING:
            raise DeadlineExceeded(f"version {version!r} is still loading, and goes on; ask again, or allow more time")
        if not settled:
            raise no_place(version)
        if resident.error is not None:
            raise again(resident.error)

    def unload(self, version: str, timeout: float | None = None) -> None:
        """Let a version's instance go; returns when its calls are through and its memory is given back.

        Raises:
            DeadlineExceeded: They were not in ``timeout`` seconds; it goes when they are.
        """
        deadline = time.monotonic() + (threading.TIMEOUT_MAX / 2 if timeout is None else timeout)
        for resident in [one for one in self.residents() if one.version == version]:
            if not resident.settled.wait(max(0.0, deadline - time.monotonic())):
                raise DeadlineExceeded(
                    f"version {version!r} is not unloaded: it still loads; ask again when it is ready"
                )
            with self._planning() as todo:
                if resident.state is State.READY:
                    todo.extend(self._leave(resident))
            if resident.error is None and not resident.gone.wait(max(0.0, deadline - time.monotonic())):
                raise DeadlineExceeded(f"version {version!r} is not unloaded yet: it goes when its calls are through")

    def pin(self, version: str, pinned: bool = True) -> None:
        """Keep a version from eviction and idling, or no longer. Does not load it."""
        with self._planning():
            (self._roster.pinned.add if pinned else self._roster.pinned.discard)(version)

    def swap(self, version: str, keep_old: bool = False) -> None:
        """Serve what is live on disk now; the old instance answers until the new one is ready, if both fit.

        Args:
            version: One swap of a version runs at a time; another waits, and then looks again.
            keep_old: Do nothing where the old instance would have to go before the new one is known to load.

        Raises:
            AipodError: The new revision does not load; the old instance serves on, if it is still there.
        """
        with self._lock:
            self._failures.forget(version)
            self._changed.wait_for(lambda: version not in self._swapping)
            self._swapping.add(version)
        try:
            while self._must_swap(version) and not (keep_old and self._evict_first):
                (self._swap_after if self._evict_first else self._swap_beside)(version)
        finally:
            with self._lock:
                self._swapping.discard(version)
                self._changed.notify_all()

    def _must_swap(self, version: str) -> bool:
        """Whether an instance serves another revision than the live one; waits for what is on its way in or out."""
        while not self._closing:
            resident = self._roster.residents.get(version)
            if resident is None or resident.state is State.WAITING:
                return False
            if resident.state is State.LOADING:
                # It may have begun with what was live before.
                resident.settled.wait()
                continue
            if resident.revision == (self._store.current(version) or 0):
                return False
            with self._lock:
                # Else every swap during one endless call would leave another instance behind.
                leaving = any(one.version == version for one in self._roster.leaving)
                if not leaving:
                    return True
                self._changed.wait()
        return False

    def close(self, timeout: float) -> bool:
        """Take no more calls, finish those inside, dispose of everything; False if ``timeout`` was too short."""
        with self._planning() as todo:
            self._closing = True
            for resident in [one for one in self._roster.residents.values() if one.state is State.WAITING]:
                self._roster.remove(resident)
                todo.append(partial(self._give_up, resident, draining()))
            for resident in self._roster.ready():
                todo.extend(self._leave(resident))
        with self._lock:
            return self._changed.wait_for(lambda: self._roster.empty, timeout)

    def abandon(self) -> None:
        """The time to finish is over: answer every call that is still inside."""
        for resident in self.residents():
            resident.lane.abandon(lambda call: stopped() if call.started else draining())

    def statistics(self) -> PoolStatistics:
        with self._lock:
            return self._roster.statistics()

    def residents(self) -> list[Resident]:
        """Who is in, those on the way out last."""
        with self._lock:
            return [*self._roster.residents.values(), *self._roster.leaving]

    def is_pinned(self, version: str) -> bool:
        return version in self._roster.pinned

    def failure(self, version: str) -> str:
        """Why the version's last load failed, ``""`` if it did not."""
        with self._lock:
            return self._failures.reason(version)

    @property
    def _evict_first(self) -> bool:
        policy = self._settings.swap
        return policy == "evict_first" or (policy == "auto" and self._settings.model_pool_bytes > 0)

    def _swap_beside(self, version: str) -> None:
        with self._lock:
            # One beside the others, in the whole pool.
            self._changed.wait_for(lambda: not self._roster.beside)
            old = self._roster.residents.get(version)
            if old is None:
                return
            new = Resident(version, old.size_bytes, self._make_lane, self._make_home)
            self._roster.beside.add(new)
        try:
            methods = new.bring_up(self._store, self._settings)
        except AipodError:
            with self._planning():
                self._roster.beside.discard(new)
                self._roster.load_failures += 1
            raise
        with self._planning() as todo:
            self._roster.beside.discard(new)
            if self._roster.residents.get(version) is old:
                todo.extend(self._leave(old))
                todo.extend(self._install(new, methods))
            else:
                # The old one went while the new one loaded: whoever needs the version next loads it.
                todo.extend(self._leave(new))
        new.settle(None)

    def _swap_after(self, version: str) -> None:
        with self._planning() as todo:
            old = self._roster.residents.get(version)
            if self._closing or old is None or old.state is not State.READY:
                return
            todo.extend(self._leave(old))
            new = Resident(version, old.size_bytes, self._make_lane, self._make_home)
            new.wanted = 1
            self._roster.arrive(new)
            self._roster.queue(new, first=True)
        new.settled.wait()
        if new.error is not None:
            raise again(new.error)

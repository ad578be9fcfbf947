"""The pool: finds a call the instance of its version, and loads, swaps and disposes of instances.

Rules of this file:

- ``_lock`` guards the roster. No user code, no disk and no reply under it: what a decision entails is put on a list of
  actions, and :meth:`Pool._planning` does them when the lock is gone. Order of locks: the pool's, then a lane's.
- A warm call takes no lock of the pool: it reads the roster once and goes into the lane. If the lane is closed by then,
  the call comes back and enters by the slow way.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from cachetools import LRUCache

from aipod.clock import Clock
from aipod.config import Settings
from aipod.engine.barring import Bars
from aipod.engine.call import Call
from aipod.engine.chores import Chores
from aipod.engine.failures import Failures
from aipod.engine.lane import Lane
from aipod.engine.refusals import draining, no_hope, no_place, stopped
from aipod.engine.resident import Methods, Resident, State
from aipod.engine.roster import Roster
from aipod.engine.statistics import PoolStatistics
from aipod.engine.timers import Action, Timers
from aipod.errors import AipodError, DeadlineExceeded, Overloaded, again
from aipod.model.base import AIModelBase
from aipod.model.store import Store

__all__ = ["Pool"]

_log = logging.getLogger("aipod.engine")

# Callers may invent names; so many versions may wait for a place at a time.
_MAX_NEWCOMERS = 256


class Pool:
    """Instances of one class.

    Args:
        model_class: The user's class.
        store: Where the versions' data lies.
        settings: Capacity, policies, limits.
        new_lane: Makes the lane of a version, given what to call when it is idle.
        limit: How many calls, or batches, of one instance may run at a time, given how many instances are ready.
        chores: For loads and disposals.
        clock: For what waits.

    Attributes:
        bars: Which versions may not be loaded now.
    """

    def __init__(
        self,
        model_class: type[AIModelBase],
        store: Store,
        settings: Settings,
        new_lane: Callable[[str, Callable[[Lane], None]], Lane],
        limit: Callable[[int], int],
        chores: Chores,
        clock: Clock,
    ) -> None:
        self._model_class = model_class
        self._store = store
        self._settings = settings
        self._new_lane = new_lane
        self._limit = limit
        self._chores = chores
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._roster = Roster(settings.model_pool_size, settings.model_pool_bytes)
        self._timers = Timers(clock, self._roster, self._planning, self._leave, settings.model_idle_ttl)
        self._failures = Failures(settings.load_pause)
        self._swapping: set[str] = set()
        self.bars = Bars()
        self._sizes: LRUCache[str, int] = LRUCache(1024)
        self._closing = False

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

    @contextmanager
    def _planning(self) -> Iterator[list[Action]]:
        """Change the roster under the lock, then decide what follows from it, then, without the lock, do it."""
        todo: list[Action] = []
        try:
            with self._lock:
                try:
                    yield todo
                finally:
                    plan = self._roster.plan()
                    todo += [partial(self._chores.run, "load", partial(self._load, one)) for one in plan.admitted]
                    todo += [partial(self._on_idle, one) for one in plan.retired]
                    todo += [partial(self._give_up, one, no_hope(one.version)) for one in plan.hopeless]
                    if plan.retired:
                        self._share()
                    self._changed.notify_all()
        finally:
            for action in todo:
                try:
                    action()
                except Exception:
                    # One that fails must not keep the others from being done.
                    _log.exception("a change of the pool was not carried out")

    def _newcomer(self, version: str, todo: list[Action]) -> Resident:
        if self._closing:
            raise draining()
        self.bars.check(version)
        remembered = self._failures.recall(version)
        if remembered is not None:
            raise remembered
        if len(self._roster.residents) - len(self._roster.ready()) >= _MAX_NEWCOMERS:
            raise Overloaded(f"{_MAX_NEWCOMERS} versions wait for a place in the pool already; try again later")
        resident = Resident(version, 0, self._make_lane)
        self._roster.arrive(resident)
        if self._settings.strict_versions or self._settings.model_pool_bytes:
            # On a thread of its own: the disk may be slow, and a warm call must never wait for it.
            todo.append(partial(self._chores.run, "look", partial(self._look, resident)))
        else:
            self._roster.queue(resident)
            self._timers.watch_newcomer(resident)
        return resident

    def _look(self, resident: Resident) -> None:
        try:
            resident.look(self._store, self._settings.strict_versions)
        except AipodError as error:
            with self._planning():
                self._roster.remove(resident)
            self._give_up(resident, error)
            return
        with self._planning():
            if resident.state is State.WAITING:
                # What it took the last time tells more than its files do.
                resident.size_bytes = self._sizes.get(resident.version, resident.size_bytes)
                self._roster.queue(resident)
                self._timers.watch_newcomer(resident)

    def _restore(self, displaced: list[Resident]) -> None:
        """A load has failed: whom it had displaced comes back, unless others need the place."""
        if self._closing or self._roster.waiting:
            return
        for old in displaced:
            if old.version not in self._roster.residents and old.version not in self.bars:
                back = Resident(old.version, old.size_bytes, self._make_lane)
                back.wanted = 1
                self._roster.arrive(back)
                self._roster.queue(back)

    def _make_lane(self, resident: Resident) -> Lane:
        return self._new_lane(resident.version, partial(self._on_idle, resident))

    def _leave(self, resident: Resident) -> list[Action]:
        self._roster.leave(resident)
        self._share()
        return [partial(self._on_idle, resident)]

    def _share(self) -> None:
        """No version may take the last worker from another."""
        ready = self._roster.ready()
        for resident in ready:
            resident.lane.set_limit(self._limit(len(ready)))

    def _install(self, resident: Resident, methods: Methods) -> list[Action]:
        """A resident has loaded: from here on its calls run."""
        self._roster.loads += 1
        self._failures.forget(resident.version)
        self._sizes[resident.version] = resident.size_bytes
        self._roster.residents[resident.version] = resident
        resident.cancel_timers()
        resident.displaced.clear()
        resident.state = State.READY
        resident.lane.open(methods, self._limit(len(self._roster.ready())))
        self._share()
        self._timers.watch_idle(resident)
        return self._leave(resident) if self._closing else []

    def _load(self, resident: Resident) -> None:
        try:
            methods = resident.bring_up(self._model_class, self._store, self._settings)
        except AipodError as error:
            there = [old for old in resident.displaced if not old.revision or self._store.current(old.version)]
            with self._planning():
                self._roster.load_failures += 1
                self._failures.note(resident.version, again(error))
                self._roster.remove(resident)
                self._restore(there)
            self._give_up(resident, again(error))
            return
        with self._planning() as todo:
            todo.extend(self._install(resident, methods))
        resident.settle(None)

    def _give_up(self, resident: Resident, error: AipodError) -> None:
        resident.lane.fail_all(lambda: again(error))
        resident.settle(error)

    def _on_idle(self, resident: Resident, _lane: Lane | None = None) -> None:
        """A lane that is watched or closed may be idle now; comes from any thread, perhaps twice."""
        with self._planning() as todo:
            if resident.state is State.DRAINING and resident.lane.idle and not resident.disposing:
                resident.disposing = True
                todo.append(partial(self._chores.run, "dispose", partial(self._dispose, resident)))

    def _dispose(self, resident: Resident) -> None:
        resident.take_down()
        with self._planning():
            self._roster.leaving.discard(resident)
        resident.gone.set()

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
            new = Resident(version, old.size_bytes, self._make_lane)
            self._roster.beside.add(new)
        try:
            methods = new.bring_up(self._model_class, self._store, self._settings)
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
            new = Resident(version, old.size_bytes, self._make_lane)
            new.wanted = 1
            self._roster.arrive(new)
            self._roster.queue(new, first=True)
        new.settled.wait()
        if new.error is not None:
            raise again(new.error)

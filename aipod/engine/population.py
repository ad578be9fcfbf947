"""Who is in the pool, and how that changes. The verbs on it are :class:`~aipod.engine.pool.Pool`'s.

Rules of this file:

- ``_lock`` guards the roster. No user code, no disk and no reply under it: what a decision entails is put on a list of
  actions, and :meth:`Population._planning` does them when the lock is gone. Order of locks: the pool's, then a lane's.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from cachetools import LRUCache

from aipod.clock import Clock
from aipod.config import Settings
from aipod.engine.barring import Bars
from aipod.engine.chores import Chores
from aipod.engine.failures import Failures
from aipod.engine.home import Home, Methods
from aipod.engine.lane import Lane
from aipod.engine.refusals import draining, no_hope
from aipod.engine.resident import Resident, State
from aipod.engine.roster import Roster
from aipod.engine.timers import Action, Timers
from aipod.errors import AipodError, Overloaded, again
from aipod.model.store import Store

__all__ = ["Population"]

_log = logging.getLogger("aipod.engine")

# Callers may invent names; so many versions may wait for a place at a time.
_MAX_NEWCOMERS = 256


class Population:
    """Instances of one class.

    Args:
        make_home: Makes what an instance is going to live in.
        store: Where the versions' data lies.
        settings: Capacity, policies, limits.
        new_lane: Makes the lane of a version, given what to call when it is idle.
        limit: How many calls, or batches, of one instance may run at a time, given how many instances are ready, and
            how many copies it has.
        chores: For loads and disposals.
        clock: For what waits.

    Attributes:
        bars: Which versions may not be loaded now.
    """

    def __init__(
        self,
        make_home: Callable[[], Home],
        store: Store,
        settings: Settings,
        new_lane: Callable[[str, Callable[[Lane], None]], Lane],
        limit: Callable[[int, int], int],
        chores: Chores,
        clock: Clock,
    ) -> None:
        self._make_home = make_home
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
        resident = Resident(version, 0, self._make_lane, self._make_home)
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
                back = Resident(old.version, old.size_bytes, self._make_lane, self._make_home)
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
            resident.lane.set_limit(self._limit(len(ready), resident.home.width))

    def _widened(self) -> None:
        """An instance has more copies, or fewer, than before."""
        with self._lock:
            self._share()

    def _lost(self, resident: Resident, error: AipodError) -> None:
        """An instance is gone, and did not come back."""
        with self._planning() as todo:
            self._failures.note(resident.version, again(error))
            if resident.state is State.READY:
                todo.extend(self._leave(resident))
        resident.lane.fail_all(lambda: again(error))
        self._on_idle(resident)

    def _install(self, resident: Resident, methods: Methods) -> list[Action]:
        """A resident has loaded: from here on its calls run."""
        self._roster.loads += 1
        self._failures.forget(resident.version)
        self._sizes[resident.version] = resident.size_bytes
        self._roster.residents[resident.version] = resident
        resident.cancel_timers()
        resident.displaced.clear()
        resident.state = State.READY
        resident.lane.open(methods, self._limit(len(self._roster.ready()), resident.home.width))
        # Only now: before, nobody could say of whom it is told.
        resident.home.watch(self._widened, partial(self._lost, resident))
        self._share()
        self._timers.watch_idle(resident)
        return self._leave(resident) if self._closing else []

    def _load(self, resident: Resident) -> None:
        try:
            methods = resident.bring_up(self._store, self._settings)
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

"""The roster: who is in the pool, who waits outside, who is on the way out. Bookkeeping and decisions, guarded by the
pool's lock.

- ``residents`` holds one resident a version: waiting, loading or ready. No lane in it is closed.
- One that must go leaves ``residents`` first, then its lane is closed, and when the lane is idle its instance is
  disposed of. It takes up room until that is done.
- Room is taken when a load begins. A swap's new instance is in ``beside`` while it loads and may exceed the count by
  one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from aipod.engine.admission import Decision, Occupant, decide
from aipod.engine.resident import Resident, State
from aipod.engine.statistics import PoolStatistics
from aipod.errors import Cancelled

__all__ = ["Plan", "Roster"]


@dataclass
class Plan:
    """What a plan comes to.

    Attributes:
        admitted: Who begins to load now.
        retired: Who was taken out to make room.
        hopeless: Who was taken from the queue, since all that is in the way is pinned.
    """

    admitted: list[Resident] = field(default_factory=list)
    retired: list[Resident] = field(default_factory=list)
    hopeless: list[Resident] = field(default_factory=list)


class Roster:
    """Who is where.

    Args:
        max_count: How many instances may be in; 0 for any number.
        max_bytes: How much memory they may take; 0 for any amount.
    """

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self.max_count = max_count
        self.max_bytes = max_bytes
        self.residents: dict[str, Resident] = {}
        self.waiting: list[Resident] = []
        self.leaving: set[Resident] = set()
        self.beside: set[Resident] = set()
        self.pinned: set[str] = set()
        self.loads = 0
        self.load_failures = 0
        self.evictions = 0

    @property
    def empty(self) -> bool:
        return not (self.residents or self.leaving or self.beside)

    def ready(self) -> list[Resident]:
        return [one for one in self.residents.values() if one.state is State.READY]

    def statistics(self) -> PoolStatistics:
        occupants = self._occupants()
        taken = sum(one.size_bytes for one in occupants)
        limits = {"capacity": self.max_count, "capacity_bytes": self.max_bytes, "waiting": len(self.waiting)}
        counts = {"loads": self.loads, "load_failures": self.load_failures, "evictions": self.evictions}
        return PoolStatistics(size=len(occupants), size_bytes=taken, **limits, **counts)

    def arrive(self, resident: Resident) -> None:
        """A version appears: its calls may gather, but it does not stand in the queue for a place yet."""
        resident.lane.watched = True
        self.residents[resident.version] = resident

    def queue(self, resident: Resident, first: bool = False) -> None:
        """It enters the queue for a place."""
        self.waiting.insert(0 if first else len(self.waiting), resident)

    def remove(self, resident: Resident) -> None:
        """Forget one that never got an instance."""
        if self.residents.get(resident.version) is resident:
            del self.residents[resident.version]
        if resident in self.waiting:
            self.waiting.remove(resident)
        resident.state = State.FAILED
        resident.cancel_timers()

    def leave(self, resident: Resident) -> None:
        """Take one out: from here on no call reaches it, those inside finish."""
        if self.residents.get(resident.version) is resident:
            del self.residents[resident.version]
        resident.state = State.DRAINING
        resident.cancel_timers()
        self.leaving.add(resident)
        resident.lane.close()

    def retire(self, resident: Resident) -> bool:
        """Take an idle, unpinned one out; False if it is none of that (a call may come in at any moment)."""
        if not self.is_evictable(resident) or not resident.lane.close(only_if_idle=True):
            return False
        self.evictions += 1
        self.leave(resident)
        return True

    def is_evictable(self, resident: Resident) -> bool:
        """Whether it may go for others: it idles, it is not pinned, and no swap is about to replace it anyway."""
        swapping = any(one.version == resident.version for one in self.beside)
        return resident.state is State.READY and resident.lane.idle and not swapping and not self.is_pinned(resident)

    def is_pinned(self, resident: Resident) -> bool:
        return resident.version in self.pinned

    def plan(self) -> Plan:
        """Decide what there is to decide."""
        for resident in [one for one in self.waiting if one.lane.idle and not one.wanted]:
            # All who asked for it have given up.
            self.remove(resident)
            resident.lane.close()
            resident.settle(Cancelled())
        plan = Plan()
        raced = True
        while raced:
            self._watch()
            heavy = self._too_heavy()
            decision = self._decide() if heavy is None else self._relieve(heavy)
            admitted = self.waiting[: decision.admit]
            del self.waiting[: decision.admit]
            for resident in admitted:
                resident.state = State.LOADING
            victims = [self.residents[version] for version in decision.evict]
            gone = [one for one in victims if self.retire(one)]
            if self.waiting and heavy is None:
                self.waiting[0].displaced += gone
            plan.admitted += admitted
            plan.retired += gone
            raced = len(gone) < len(victims)
        if decision.stuck and all(map(self.is_pinned, [*self._inside(), *self.beside])):
            plan.hopeless = list(self.waiting)
            for resident in plan.hopeless:
                self.remove(resident)
        return plan

    def streams(self, since: float) -> Iterator[Resident]:
        """Those whom nothing but new calls has kept busy since an instant: no call runs that is older."""
        for resident in self.ready():
            if not self.is_pinned(resident) and not resident.lane.started_before(since):
                yield resident

    def _decide(self) -> Decision:
        # What a swap loads takes the place of the one it replaces, not one more.
        max_count = self.max_count + len(self.beside) if self.max_count else 0
        sizes = [resident.size_bytes for resident in self.waiting]
        return decide(self._occupants(), sizes, max_count, self.max_bytes)

    def _relieve(self, heavy: Resident) -> Decision:
        """Nobody is admitted while all together are too heavy; where the others cannot go, the last one goes itself."""
        others = [one for one in self._occupants() if one.version != heavy.version]
        decision = decide(others, [heavy.size_bytes], 0, self.max_bytes)
        itself = decision.stuck and self.is_evictable(heavy)
        return Decision(evict=(heavy.version,) if itself else decision.evict, stuck=decision.stuck and not itself)

    def _watch(self) -> None:
        # Before the look at who is idle: one that becomes idle after it tells the pool.
        watched = bool(self.waiting) or self._too_heavy() is not None
        for resident in self.ready():
            resident.lane.watched = watched

    def _too_heavy(self) -> Resident | None:
        """The one loaded last, if all together weigh more than they may: until then its size was a guess."""
        if not self.max_bytes:
            return None
        staying = sum(one.size_bytes for one in self._occupants() if not one.leaving)
        return max(self.ready(), key=lambda one: one.loaded_at, default=None) if staying > self.max_bytes else None

    def _inside(self) -> list[Resident]:
        return [one for one in self.residents.values() if one.state is not State.WAITING]

    def _occupants(self) -> list[Occupant]:
        inside = self._inside()
        return [
            *(Occupant(one.version, one.size_bytes, one.lane.last_used, self.is_evictable(one)) for one in inside),
            *(Occupant(one.version, one.size_bytes, one.lane.last_used) for one in self.beside),
            *(Occupant(one.version, one.size_bytes, one.lane.last_used, leaving=True) for one in self.leaving),
        ]

"""Who may take a place in the pool, and who must leave for it: a decision, with no lock and no thread in sight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Decision", "Occupant", "decide"]


@dataclass(frozen=True)
class Occupant:
    """One instance that takes up room: it loads, it serves, or it is on its way out."""

    version: str
    size_bytes: int
    last_used: float
    evictable: bool = False
    leaving: bool = False


@dataclass(frozen=True)
class Decision:
    """What to do now.

    Attributes:
        admit: How many of the newcomers, from the head of the queue, may begin to load.
        evict: Versions whose idle instances must go, the least recently used first; newcomers wait until they are gone.
        stuck: Whether a newcomer waits although nobody is on the way out: everything else is busy or pinned.
    """

    admit: int = 0
    evict: tuple[str, ...] = ()
    stuck: bool = False


class _Room:
    """What is taken, against what there is; 0 means no limit."""

    def __init__(self, occupants: Sequence[Occupant], max_count: int, max_bytes: int) -> None:
        self.count = len(occupants)
        self.size = sum(one.size_bytes for one in occupants)
        self._max_count = max_count
        self._max_bytes = max_bytes

    def fits(self, size: int, gone: Sequence[Occupant] = ()) -> bool:
        count = self.count + 1 - len(gone)
        total = self.size + size - sum(one.size_bytes for one in gone)
        # What is larger than everything may try alone: the estimate may be wrong, and the load will tell.
        fits_bytes = not self._max_bytes or total <= self._max_bytes or count == 1
        return fits_bytes and (not self._max_count or count <= self._max_count)

    def take(self, size: int, gone: Sequence[Occupant] = ()) -> None:
        self.count += 1 - len(gone)
        self.size += size - sum(one.size_bytes for one in gone)


def decide(occupants: Sequence[Occupant], newcomers: Sequence[int], max_count: int, max_bytes: int) -> Decision:
    """Decide for all newcomers at once, in the order in which they came; nobody overtakes the first that waits.

    Args:
        occupants: Who is in.
        newcomers: The size in bytes that each newcomer is expected to take.
        max_count: How many may be in; 0 for any number.
        max_bytes: How many bytes they may take together; 0 for any number.
    """
    now = _Room(occupants, max_count, max_bytes)
    staying = [one for one in occupants if not one.leaving]
    soon = _Room(staying, max_count, max_bytes)
    idle = sorted((one for one in staying if one.evictable), key=lambda one: one.last_used)
    admit = 0
    evict: list[str] = []
    behind = False
    for size in newcomers:
        if not behind and now.fits(size):
            admit += 1
            now.take(size)
            soon.take(size)
            continue
        victims: list[Occupant] = []
        while idle[len(victims) :] and not soon.fits(size, victims):
            victims.append(idle[len(victims)])
        if not soon.fits(size, victims):
            return Decision(admit, tuple(evict), stuck=not evict and len(staying) == len(occupants))
        soon.take(size, victims)
        evict += [one.version for one in victims]
        del idle[: len(victims)]
        behind = True
    return Decision(admit, tuple(evict))

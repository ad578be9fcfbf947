"""What one process lends to one other: slices of its region, recycled as the other one is done with them.

A page of the data is *used* while a slice has it, *warm* while it has memory that no slice uses, and *cold* otherwise.
Warm pages are taken first, from the lowest on: to write to one that both sides have touched before costs no page fault.
Nothing here waits for the other side: what does not fit is not lent.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from bisect import bisect_right, insort
from collections import deque
from dataclasses import dataclass

import numpy as np

from aipod.errors import InvalidArgument
from aipod.shm.budget import Budget
from aipod.shm.ranges import Ranges
from aipod.shm.region import PAGE, SLOTS, Bytes, Place, Region

__all__ = ["Arena", "Loan"]


@dataclass(eq=False)
class _Slice:
    """Pages that are used: for as long as they are held here, or a loan of them is out."""

    start: int
    end: int
    held: bool = False
    loans: int = 0


class Loan:
    """One lending of bytes.

    Attributes:
        place: What the other side needs to find them. It is good for one message: once that has been read, the slot may
            stand for something else.
        view: The bytes, writable. Write them before the place is sent; the view of a slice that is not reserved is to
            be dropped then.
    """

    __slots__ = ("_arena", "_part", "place", "view")

    def __init__(self, arena: Arena, part: _Slice, place: Place, view: memoryview) -> None:
        self._arena = arena
        self._part = part
        self.place = place
        self.view = view

    def take_back(self) -> None:
        """End it from this side: the place was not sent, and will not be. Once it has ended this does nothing."""
        self._arena._take_back(self)


class Arena:
    """Lends a region. Its methods may be called from any thread.

    Args:
        region: What is lent; closed with the arena.
        marks: What the borrower says about our slots, as its region shows it.
        budget: Where the memory behind the slices is taken from; None for as much as the region has.
    """

    def __init__(self, region: Region, marks: Bytes, budget: Budget | None = None) -> None:
        self._region = region
        self._marks: Bytes | None = marks  # None once closed
        self._budget = budget or Budget(region.size)
        self._pid = os.getpid()
        self._lock = threading.Lock()
        # A page of the data is in _free or in a slice. It has memory if it is in a slice or in _warm, which is a part
        # of _free. _recent are the pages that some slice has had since the last trim.
        self._free = Ranges((0, region.size))
        self._warm = Ranges()
        self._recent = Ranges()
        # A slot is in _idle, or it is out and _out has its loan. Its mark was as _seen has it when it was lent.
        self._idle = list(range(SLOTS))
        self._out: dict[int, Loan] = {}
        self._seen = marks.copy()
        # The slices that are held, by their starts, and those in order.
        self._held: dict[int, _Slice] = {}
        self._starts: list[int] = []
        # Finalizers run on any thread and in the middle of anything, of what is done under the lock too: they only
        # append here.
        self._dropped: deque[int] = deque()

    def __repr__(self) -> str:
        return f"<Arena {' '.join(f'{name}={value}' for name, value in self.statistics().items())}>"

    def lend(self, nbytes: int) -> Loan | None:
        """Lend a new slice of so many bytes, which the caller fills and the other side reads.

        It begins at a page, and is free again once the other side is done with it. None says that there is no room now,
        or that the arena is closed: send the bytes in another way.

        Raises:
            InvalidArgument: The number is negative.
        """
        with self._lock:
            part = self._take(nbytes) if self._collect() and self._idle else None
            return None if part is None else self._loan(part, part.start, nbytes)

    def reserve(self, nbytes: int) -> memoryview | None:
        """Give a new slice to keep and fill at leisure, and to lend by :meth:`find` as often as one likes.

        It is free again once nothing here refers to that memory, and no loan of it is out. None, and errors, as with
        :meth:`lend`.
        """
        with self._lock:
            part = self._take(nbytes) if self._collect() else None
            if part is None:
                return None
            part.held = True
            self._held[part.start] = part
            insort(self._starts, part.start)
            memory = self._region.slice(part.start, nbytes)
            weakref.finalize(memory, self._dropped.append, part.start)
            return memory.data

    def find(self, address: int, nbytes: int) -> Loan | None:
        """Lend bytes that lie in a slice which :meth:`reserve` gave; None if they do not, or as with :meth:`lend`.

        Args:
            address: Where they begin in the memory of this process. The caller has a reference to what lies there.
            nbytes: How many there are.
        """
        offset = address - self._region.address
        with self._lock:
            ready = self._collect() and self._idle
            index = bisect_right(self._starts, offset) - 1
            if not ready or index < 0:
                return None
            part = self._held[self._starts[index]]
            return self._loan(part, offset, nbytes) if offset + nbytes <= part.end else None

    def trim(self) -> int:
        """Give back the memory that no slice has had since the last time, and say how many bytes that was.

        To be called now and then: what a steady load needs stays.
        """
        with self._lock:
            if not self._collect():
                return 0
            given = self._cool(self._warm.without(self._recent))
            self._recent = Ranges((0, self._region.size)).without(self._free)
            return given

    def close(self) -> None:
        """Lend nothing more, and let go of the memory; again is fine.

        What is held or lent stays as it is while anybody can see it, on this side or the other.
        """
        with self._lock:
            if self._collect():
                self._cool(self._warm)
                self._budget.give(self._region.size - self._free.total + self._warm.total)
            self._marks = None
            self._region.close()
            self._free, self._warm = Ranges((0, self._region.size)), Ranges()
            self._out.clear()
            self._held.clear()
            self._starts.clear()

    def statistics(self) -> dict[str, int]:
        """Count the bytes that slices use, those that have memory, slices that are held, and loans that are out."""
        with self._lock:
            self._collect()
            used = self._region.size - self._free.total
            return {
                "used_bytes": used,
                "backed_bytes": used + self._warm.total,
                "held": len(self._held),
                "lent": len(self._out),
            }

    def _collect(self) -> bool:
        """Take in what has come back since the last time; False if nothing may be lent any more."""
        # A process that was forked from ours sees the memory, but must not hand it out a second time.
        if self._marks is None or os.getpid() != self._pid:
            return False
        while self._dropped:
            start = self._dropped.popleft()
            self._starts.remove(start)
            part = self._held.pop(start)
            part.held = False
            self._release(part)
        # Looked at once, since the other side may change them at any time and as it likes.
        seen, self._seen = self._seen, self._marks.copy()
        for slot in np.flatnonzero(seen != self._seen).tolist():
            self._end(slot)
        return True

    def _take(self, nbytes: int) -> _Slice | None:
        if nbytes < 0:
            raise InvalidArgument(f"there is no memory of {nbytes} bytes; ask for 0 or more")
        length = max(PAGE, -(-nbytes // PAGE) * PAGE)
        start = self._warm.first(length)
        if start is None:
            start = self._free.first(length)
            if start is None or not self._warm_up(start, start + length):
                return None
        part = _Slice(start, start + length)
        self._free.remove(part.start, part.end)
        self._warm.remove(part.start, part.end)
        self._recent.add(part.start, part.end)
        return part

    def _warm_up(self, start: int, end: int) -> bool:
        for cold_start, cold_end in Ranges((start, end)).without(self._warm):
            if not self._budget.take(cold_end - cold_start):
                return False
            try:
                self._region.back(cold_start, cold_end)
            except OSError:
                self._budget.give(cold_end - cold_start)
                return False
            self._warm.add(cold_start, cold_end)
        return True

    def _cool(self, idle: Ranges) -> int:
        given = 0
        for start, end in idle:
            # A process may have locked all of its memory, and then that stays.
            with contextlib.suppress(OSError):
                self._region.unback(start, end)
                self._warm.remove(start, end)
                self._budget.give(end - start)
                given += end - start
        return given

    def _loan(self, part: _Slice, offset: int, nbytes: int) -> Loan:
        slot = self._idle.pop()
        loan = Loan(self, part, Place(offset, nbytes, slot), self._region.slice(offset, nbytes).data)
        self._out[slot] = loan
        part.loans += 1
        return loan

    def _take_back(self, loan: Loan) -> None:
        with self._lock:
            # The slot may stand for another loan by now.
            if self._out.get(loan.place.slot) is loan:
                self._end(loan.place.slot)

    def _end(self, slot: int) -> None:
        # The other side may say anything of slots that are not out.
        loan = self._out.pop(slot, None)
        if loan is not None:
            self._idle.append(slot)
            loan._part.loans -= 1
            self._release(loan._part)

    def _release(self, part: _Slice) -> None:
        if not part.held and not part.loans:
            self._free.add(part.start, part.end)
            self._warm.add(part.start, part.end)

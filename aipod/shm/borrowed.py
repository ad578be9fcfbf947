"""What the other side lends to this process: views of its region, and the word that they are gone."""

from __future__ import annotations

import os
import weakref

from aipod.errors import InvalidArgument
from aipod.shm.region import SLOTS, PeerRegion, Place

__all__ = ["Borrowed"]


class Borrowed:
    """Finds what was lent. Its methods may be called from any thread.

    Args:
        region: The lender's.
        marks: Ours, in which the lender looks for what is over.
    """

    def __init__(self, region: PeerRegion, marks: memoryview) -> None:
        self._region = region
        self._marks: memoryview | None = marks  # None once closed
        self._pid = os.getpid()
        self._open: set[int] = set()

    def __repr__(self) -> str:
        return f"<Borrowed {len(self._open)} loans of {self._region.size} bytes>"

    def borrow(self, place: Place) -> memoryview:
        """Give a read-only view of what lies there.

        The loan lasts until nothing refers to that memory any more: no view, and no array that was made of one. The
        lender can write to it at any time, so whoever has to be sure of what he has read copies it first.

        Raises:
            InvalidArgument: There is no such place, or it was borrowed before and is not back yet.
        """
        offset, nbytes, slot = place
        if not all(type(number) is int for number in place) or not 0 <= slot < SLOTS:
            raise InvalidArgument(f"{_short(place)} is no place in shared memory; send one that was lent")
        if offset < 0 or nbytes < 0 or offset + nbytes > self._region.size:
            raise InvalidArgument(
                f"{_short(place)} lies outside the {self._region.size} bytes of shared memory; send one that was lent"
            )
        if slot in self._open:
            raise InvalidArgument(f"loan {slot} of shared memory is in use; lend once for each message")
        self._open.add(slot)
        memory = self._region.slice(offset, nbytes)
        weakref.finalize(memory, self._end, slot)
        return memory.data

    def close(self) -> None:
        """Tell the lender nothing more; what is borrowed stays, and so does :meth:`borrow`."""
        self._marks = None

    def _end(self, slot: int) -> None:
        # On any thread, and in the middle of anything. In a process that was forked from ours the view that dies is a
        # copy: ours may still be there.
        if os.getpid() != self._pid:
            return
        # In this order, since the lender may lend the slot again as soon as it sees the mark.
        self._open.discard(slot)
        marks = self._marks
        if marks is not None:
            marks[slot] = (marks[slot] + 1) & 0xFF


def _short(place: Place) -> str:
    text = repr(tuple(place))
    return text if len(text) <= 80 else text[:80] + "…"

"""Large parts of one message in memory that its writer shares with its reader."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from aipod.shm.arena import Loan
from aipod.shm.link import Link
from aipod.shm.region import Place

__all__ = ["SHARED_FROM_BYTES", "Lender"]

# From here on two looks at shared memory cost less than the way through the socket.
SHARED_FROM_BYTES = 64 * 1024


class Lender:
    """Puts the large segments of one message into shared memory; a ``Lend`` of :mod:`aipod.codec`.

    Args:
        link: Gives the memory shared with whoever reads the message, if there is any; not asked while all is small.
        write: Makes of a place what the message says of it.
    """

    __slots__ = ("_link", "_loans", "_write")

    def __init__(self, link: Callable[[], Link | None], write: Callable[[Place], bytes]) -> None:
        self._link = link
        self._write = write
        self._loans: list[Loan] = []

    def __call__(self, segment: memoryview) -> bytes | None:
        size = len(segment)
        link = self._link() if size >= SHARED_FROM_BYTES else None
        if link is None:
            return None
        data = np.frombuffer(segment, np.uint8)
        loan = link.arena.find(data.ctypes.data, size)
        if loan is None:
            loan = link.arena.lend(size)
            if loan is None:
                return None
            np.copyto(np.frombuffer(loan.view, np.uint8), data)
        self._loans.append(loan)
        return self._write(loan.place)

    @property
    def lent_bytes(self) -> int:
        """How much of the message lies in shared memory."""
        return sum(loan.place.nbytes for loan in self._loans) if self._loans else 0

    def take_back(self) -> None:
        """The message was not sent, and will not be."""
        while self._loans:
            self._loans.pop().take_back()

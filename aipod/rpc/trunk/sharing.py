"""Segments in memory that both ends of a trunk share: how they get there, and how they are found."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from google.protobuf.message import DecodeError

from aipod.errors import SerializationError
from aipod.rpc.v1 import model_pb2
from aipod.shm import Link, Loan, Place

__all__ = ["SHARED_FROM_BYTES", "Lender", "borrow"]

# From here on two looks at shared memory cost less than the way through the socket.
SHARED_FROM_BYTES = 64 * 1024


class Lender:
    """Puts the large segments of one message into shared memory; a ``Lend`` of :mod:`aipod.codec`.

    Args:
        link: Gives the memory shared with whoever reads the message, if there is any; not asked while all is small.
    """

    __slots__ = ("_link", "_loans")

    def __init__(self, link: Callable[[], Link | None]) -> None:
        self._link = link
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
        offset, nbytes, slot = loan.place
        return bytes(model_pb2.Lent(offset=offset, size=nbytes, slot=slot).SerializeToString())

    @property
    def lent_bytes(self) -> int:
        """How much of the message lies in shared memory."""
        return sum(loan.place.nbytes for loan in self._loans) if self._loans else 0

    def take_back(self) -> None:
        """The message was not sent, and will not be."""
        while self._loans:
            self._loans.pop().take_back()


def borrow(link: Link, record: memoryview) -> memoryview:
    """Find a segment that the other side lent; what it says is trusted in nothing.

    Raises:
        SerializationError: There is no such place.
        InvalidArgument: It is none that was lent.
    """
    try:
        lent = model_pb2.Lent.FromString(bytes(record))
    except DecodeError:
        raise SerializationError("message", "a Lent in it cannot be read; see model.proto") from None
    return link.borrowed.borrow(Place(lent.offset, lent.size, lent.slot))

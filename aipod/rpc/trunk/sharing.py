"""Segments in memory that both ends of a trunk share: what is written of them, and how they are found."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import DecodeError

from aipod import shm
from aipod.errors import SerializationError
from aipod.rpc.v1 import model_pb2
from aipod.shm import Link, Place

__all__ = ["Lender", "borrow"]


class Lender(shm.Lender):
    """Lends on the memory of a trunk, as model.proto has it."""

    __slots__ = ()

    def __init__(self, link: Callable[[], Link | None]) -> None:
        super().__init__(link, _written)


def _written(place: Place) -> bytes:
    offset, nbytes, slot = place
    return model_pb2.Lent(offset=offset, size=nbytes, slot=slot).SerializeToString()


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

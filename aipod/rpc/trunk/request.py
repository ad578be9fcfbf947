"""A call on its way by a trunk, and who waits for it."""

from __future__ import annotations

from typing import Protocol

from aipod.codec import Message
from aipod.errors import AipodError, Unavailable
from aipod.rpc.trunk.sharing import Lender
from aipod.rpc.v1 import trunk_pb2 as pb

__all__ = ["NeverSent", "Reply", "Request", "Waiter"]

_METHODS: dict[str, int] = {name.lower(): number for name, number in pb.Method.items()}
# One that refers to shared memory has been taken apart already, so that what it borrows goes back whoever drops it.
Reply = bytes | memoryview | Message


class NeverSent(Unavailable):
    """The trunk ended, and the call had not left: whoever has another way sends it there."""


class Waiter(Protocol):
    """Who waits for an answer."""

    def settle(self, reply: Reply | None, error: AipodError | None) -> None:
        """Take the answer, on the trunk's thread: leave it for whoever waits, and wake him."""


class Request:
    """A call on its way.

    Args:
        method: The model's.
        message: The request.
        deadline: Instant on the monotonic clock; None for ever.
        waiter: Who waits for the answer.
        lender: What the request lends.
    """

    __slots__ = ("_lender", "deadline", "message", "method", "number", "size_bytes", "waiter")

    def __init__(
        self,
        method: str,
        message: bytes | memoryview,
        deadline: float | None,
        waiter: Waiter,
        lender: Lender | None = None,
    ) -> None:
        self.method = _METHODS[method]
        self.message = message
        self._lender = lender
        self.deadline = deadline
        self.waiter: Waiter | None = waiter
        self.number = 0
        # What it lends is held on the other side like what it brings.
        self.size_bytes = len(message) + (lender.lent_bytes if lender is not None else 0)

    def take_back(self) -> None:
        """It is not going to be sent."""
        if self._lender is not None:
            self._lender.take_back()

    def settle(self, reply: Reply | None, error: AipodError | None) -> None:
        """Hand the answer over, unless the call was given up."""
        waiter, self.waiter = self.waiter, None
        if waiter is not None:
            waiter.settle(reply, error)

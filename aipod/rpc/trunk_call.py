"""A call that came by a trunk: to the services, one like any other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import grpc

from aipod.codec import Room
from aipod.rpc.front import Loans
from aipod.rpc.front.end import OUT_OF_TIME, End
from aipod.rpc.trunk import chunks
from aipod.rpc.v1 import trunk_pb2 as pb
from aipod.shm import Link

__all__ = ["CANCELLED", "Answer", "Failed", "LentReply", "TrunkCall", "cost", "write_failure"]

_STATUS_NUMBERS: dict[str, int] = {code.name: code.value[0] for code in grpc.StatusCode}

# gRPC's own words.
CANCELLED = End("CANCELLED", "Cancelled")
_LATE = End("DEADLINE_EXCEEDED", "Deadline Exceeded")

Trailing = Sequence[tuple[str, str | bytes]]


class LentReply(NamedTuple):
    """A reply that refers to shared memory."""

    message: bytes | memoryview
    loans: Loans


class Failed(NamedTuple):
    """The status' name, the details and the trailing metadata."""

    status: str
    details: str
    trailing: Trailing


Answer = bytes | memoryview | LentReply | Failed


class Carrier(Protocol):
    """The trunk, as far as its calls care."""

    @property
    def peer(self) -> str: ...

    @property
    def metadata(self) -> Trailing: ...

    @property
    def identities(self) -> Sequence[str]: ...

    @property
    def link(self) -> Link | None: ...

    @property
    def room(self) -> Room: ...

    def answer(self, call: TrunkCall, answer: Answer) -> None: ...


class TrunkCall:
    """See :class:`~aipod.rpc.front.RawCall`.

    Args:
        carrier: The trunk.
        number: Its own on the trunk.
        method: The full name.
        timeout: Seconds that the caller allows; None if it leaves that to the server.
        default: Seconds that the server allows then; None for ever.
        size_bytes: Of the request.
    """

    __slots__ = (
        "_carrier",
        "_gone",
        "_on_gone",
        "_unanswered",
        "deadline",
        "late",
        "message",
        "method",
        "number",
        "size_bytes",
    )

    def __init__(
        self, carrier: Carrier, number: int, method: str, timeout: float | None, default: float | None, size_bytes: int
    ) -> None:
        self._carrier = carrier
        self.number = number
        self.method = method
        seconds = default if timeout is None else timeout
        self.deadline = None if seconds is None else time.monotonic() + seconds
        # How it ends at its deadline.
        self.late = OUT_OF_TIME if timeout is None else _LATE
        self.size_bytes = size_bytes
        self.message = b""
        self._gone = False
        self._on_gone: Callable[[], None] | None = None
        # list.pop is one step under the interpreter's lock: it decides who answers.
        self._unanswered = [True]

    @property
    def peer(self) -> str:
        return self._carrier.peer

    @property
    def metadata(self) -> Trailing:
        return self._carrier.metadata

    @property
    def identities(self) -> Sequence[str]:
        return self._carrier.identities

    @property
    def link(self) -> Link | None:
        return self._carrier.link

    @property
    def room(self) -> Room:
        return self._carrier.room

    def reply(self, message: bytes | memoryview, loans: Loans | None = None) -> None:
        if not self._answer(message if loans is None else LentReply(message, loans)) and loans is not None:
            loans.take_back()

    def fail(self, status: str, details: str, trailing: Trailing) -> None:
        self._answer(Failed(status, details, trailing))

    def on_gone(self, action: Callable[[], None]) -> None:
        self._on_gone = action
        # end() sets this first and looks at the action then: one of the two runs it, or both do.
        if self._gone:
            self._on_gone = None
            action()

    def end(self, end: End) -> None:
        """Nobody waits for the answer any more, or it cannot come."""
        self._gone = True
        action = self._on_gone
        # Answered first, for what the engine says of a call that was cancelled would be the answer otherwise.
        self.fail(end.status.name, end.details, end.trailing)
        if action is not None:
            action()

    def _answer(self, answer: Answer) -> bool:
        try:
            self._unanswered.pop()
        except IndexError:
            return False
        # It refers to the call of the engine, which refers to us: megabytes would wait for the cycle collector.
        self._on_gone = None
        self._carrier.answer(self, answer)
        return True


def cost(answer: Answer) -> int:
    """What an answer takes in memory, and in a frame, about."""
    if isinstance(answer, (bytes, memoryview)):
        return chunks.OVERHEAD_BYTES + len(answer)
    if isinstance(answer, LentReply):
        return chunks.OVERHEAD_BYTES + len(answer.message)
    _, details, trailing = answer
    return chunks.OVERHEAD_BYTES + len(details) + sum(len(value) for _, value in trailing)


def write_failure(failure: pb.Failure, status: str, details: str, trailing: Trailing) -> None:
    """Write a failure down for the trunk."""
    failure.status = _STATUS_NUMBERS[status]
    failure.details = details
    for _, value in trailing:
        if isinstance(value, bytes):
            # There is one entry, the serialized Error of model.proto.
            failure.error.ParseFromString(value)

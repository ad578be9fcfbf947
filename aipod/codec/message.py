"""A call or a reply as one message: what the wire's two ends write and read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from aipod.codec.decoder import unpack
from aipod.codec.encoder import pack
from aipod.codec.limits import Limits
from aipod.codec.wire import (
    DETACH,
    JOB,
    LENT,
    PRIORITY,
    REQUEST_ID,
    TIMED,
    TIMINGS,
    Borrow,
    Parts,
    Room,
    join,
    number,
    split,
    text,
)
from aipod.errors import SerializationError

__all__ = [
    "Lend",
    "Message",
    "decode_reply",
    "encode_call",
    "encode_reply",
    "read_call",
    "read_reply",
    "with_job",
    "with_timings",
]

_DEFAULT = Limits()

# Puts a segment into memory that both ends share, and says where, as a serialized Lent; None: it travels as it is.
Lend = Callable[[memoryview], "bytes | None"]


class Message:
    """What arrived, taken apart as far as its fields; its value is decoded on demand, on whatever thread asks.

    Attributes:
        version: The version that was asked for; ``""`` if none was named, and in a reply.
    """

    __slots__ = ("_bytes", "body", "limits", "more", "segments", "version")

    def __init__(self, parts: Parts, limits: Limits, size: int) -> None:
        self.version, self.body, self.segments, self.more = parts
        self.limits = limits
        self._bytes = size

    @property
    def size_bytes(self) -> int:
        """What it holds in memory, with what it borrows."""
        return self._bytes + sum(map(len, self.segments)) if LENT in self.more else self._bytes

    @property
    def priority(self) -> int:
        """What the caller wants to be run before others; 0 is the usual."""
        priority = self.more.get(PRIORITY, 0)
        return priority if isinstance(priority, int) else 0

    @property
    def timed(self) -> bool:
        """Whether the reply is to say where the time went."""
        return bool(self.more.get(TIMED, False))

    @property
    def detach(self) -> bool:
        """Whether the reply to a train is to be the job, and to come at once."""
        return bool(self.more.get(DETACH, False))

    @property
    def request_id(self) -> str:
        """What makes a train that comes again the same one; ``""`` if it has none.

        Raises:
            SerializationError: It is no text.
        """
        return self._name(REQUEST_ID, "request_id")

    @property
    def job(self) -> str:
        """A reply's job, as :attr:`request_id` is a call's; ``""`` if no job was started."""
        return self._name(JOB, "job")

    @property
    def timings(self) -> memoryview | None:
        """A reply's ``Timings`` as they came, if it has them."""
        timings = self.more.get(TIMINGS)
        return timings if isinstance(timings, memoryview) else None

    def kwargs(self) -> dict[str, Any]:
        """Decode a call's arguments; none sent is ``{}``.

        Arrays are read-only views of the message and keep it alive.

        Raises:
            SerializationError: They cannot be read, or are no map.
        """
        if self._is_empty():
            return {}
        kwargs = self._unpack("kwargs")
        if type(kwargs) is not dict:
            raise SerializationError("kwargs", f"a {type(kwargs).__name__} is no map of names to values; send a map")
        return kwargs

    def value(self) -> Any:
        """Decode a reply's value, as :meth:`kwargs` does a call's arguments; an absent one is None."""
        return None if self._is_empty() else self._unpack("result")

    def _name(self, field: int, place: str) -> str:
        data = self.more.get(field, b"")
        try:
            return str(data, "utf-8") if not isinstance(data, int) else ""
        except UnicodeDecodeError:
            raise SerializationError(place, "it is not UTF-8; send it as UTF-8") from None

    def _unpack(self, root: str) -> Any:
        return unpack(self.body, self.segments, self.limits, root, is_shared=LENT in self.more)

    def _is_empty(self) -> bool:
        return not self.body and not self.segments


def encode_call(
    version: str,
    kwargs: dict[str, Any],
    priority: int = 0,
    timed: bool = False,
    lend: Lend | None = None,
    room: Room | None = None,
    request_id: str = "",
    detach: bool = False,
) -> bytes | memoryview:
    """Write a call; the data of arrays is copied once.

    Args:
        version: The version's name, or an alias.
        kwargs: The arguments.
        priority: See :attr:`Message.priority`.
        timed: See :attr:`Message.timed`.
        lend: Takes what need not travel; None where no memory is shared.
        room: Gives memory for the message if there are arrays or large bytes in it; None: it is bytes.
        request_id: See :attr:`Message.request_id`.
        detach: See :attr:`Message.detach`.

    Raises:
        SerializationError: A value cannot travel; the error names its place.
    """
    if not isinstance(kwargs, dict):
        raise SerializationError("kwargs", f"a {type(kwargs).__name__} is no dict of names to values; send a dict")
    more = number(PRIORITY, priority) + number(TIMED, timed) if priority or timed else b""
    if request_id or detach:
        more += text(REQUEST_ID, request_id.encode()) + number(DETACH, detach)
    body, segments = pack(kwargs, "kwargs")
    return join(version, body, _lent(segments, lend), more, room)


def read_call(message: bytes | memoryview, limits: Limits = _DEFAULT, borrow: Borrow | None = None) -> Message:
    """Take a call apart without decoding its arguments: a few microseconds, whatever its size.

    Args:
        message: The call.
        limits: What it is held against.
        borrow: Finds what was lent; None where no memory is shared.

    Raises:
        SerializationError: It is no message, or breaks the limits.
    """
    return _read(message, limits, "kwargs", borrow)


def encode_reply(
    value: object, limits: Limits | None = None, lend: Lend | None = None, room: Room | None = None
) -> bytes | memoryview:
    """Write a reply; see :func:`encode_call`.

    Args:
        value: What the model returned.
        limits: What the reader is going to hold it against: an answer that is too large fails where it was made.
        lend: See :func:`encode_call`.
        room: See :func:`encode_call`.
    """
    body, segments = pack(value, "result")
    if limits is not None:
        _check_size(len(body), limits, "result")
    return join("", body, _lent(segments, lend), room=room)


def with_timings(reply: bytes | memoryview, timings: bytes) -> bytes:
    """A reply with its ``Timings`` added, which :func:`encode_reply` could not know."""
    return b"".join((reply, text(TIMINGS, timings)))


def with_job(reply: bytes | memoryview, job: str) -> bytes:
    """A reply with the id of the job that the call started."""
    return b"".join((reply, text(JOB, job.encode())))


def read_reply(message: bytes | memoryview, limits: Limits = _DEFAULT, borrow: Borrow | None = None) -> Message:
    """Take a reply apart; see :func:`read_call`."""
    return _read(message, limits, "result", borrow)


def decode_reply(message: bytes | memoryview, limits: Limits = _DEFAULT) -> Any:
    """Read a reply's value; see :meth:`Message.value`."""
    return _read(message, limits, "result", None).value()


def _lent(segments: list[memoryview], lend: Lend | None) -> Sequence[memoryview | bytes]:
    return segments if lend is None else [lend(segment) or segment for segment in segments]


def _read(message: bytes | memoryview, limits: Limits, root: str, borrow: Borrow | None) -> Message:
    parts = split(message, limits.max_segments, borrow)
    _check_size(len(parts.body), limits, root)
    return Message(parts, limits, len(message))


def _check_size(size: int, limits: Limits, root: str) -> None:
    if size > limits.max_value_bytes:
        raise SerializationError(
            root,
            f"{size} bytes besides arrays and large bytes are more than the {limits.max_value_bytes} allowed; "
            "send large data as numpy arrays or bytes",
        )

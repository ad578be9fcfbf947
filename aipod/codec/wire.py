"""The protobuf message around a value, written and read by hand.

::

    message CallRequest { string version = 1; bytes kwargs = 2; repeated bytes segments = 3; bytes padding = 15;
                          sint32 priority = 4; bool timed = 5; repeated Lent lent = 7; string request_id = 8;
                          bool detach = 9; }
    message CallReply   {                     bytes value  = 2; repeated bytes segments = 3; bytes padding = 15;
                          Timings timings = 6; repeated Lent lent = 7; string job = 8; }

Any protobuf library reads and writes it. This one does without protobuf's own runtime, which copies a bytes field
whenever it is touched, and cannot place one: here a segment starts at a multiple of 64 bytes from the start of the
message, by padding before it, and is read as a view. Nobody may rely on that; what other libraries write lies where
it lies.

Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from aipod.errors import SerializationError

__all__ = [
    "ALIGNMENT",
    "DETACH",
    "JOB",
    "LENT",
    "MAX_WHOLE_BYTES",
    "PRIORITY",
    "REQUEST_ID",
    "TIMED",
    "TIMINGS",
    "Borrow",
    "Parts",
    "Room",
    "check_whole",
    "join",
    "number",
    "split",
    "text",
]

ALIGNMENT = 64

More = Mapping[int, "int | memoryview"]

# A tag is a field's number, and in its last three bits how the value is written.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VERSION, _BODY, _SEGMENT, _PADDING = (number << 3 | _BYTES for number in (1, 2, 3, 15))
# Fields of which most messages have none.
PRIORITY, TIMED, TIMINGS, LENT, DETACH = 4, 5, 6, 7, 9
# One number, since no message is both a call and a reply.
REQUEST_ID = JOB = 8
_TRUTHS = frozenset({TIMED, DETACH})
_NUMBERS = {field << 3 | _VARINT: field for field in (PRIORITY, TIMED, DETACH)}
_RARE = frozenset(field << 3 | _BYTES for field in (TIMINGS, LENT, REQUEST_ID))
_KNOWN = frozenset({1, 2, 3, PRIORITY, TIMED, TIMINGS, LENT, REQUEST_ID, DETACH})
_MAX_TAG = 2**32 - 1

# Numbers are written seven bits at a time, each but the last with this bit on top.
_MORE = 0x80
_MAX_VARINT_BYTES = 10

# Padding that fills a gap of so many bytes; a gap of 1 is filled to the next boundary, since tag and length take two.
_GAPS = [
    bytes((_PADDING, gap - 2)) + bytes(gap - 2) if gap else b"" for gap in (0, ALIGNMENT + 1, *range(2, ALIGNMENT))
]

_SIGN = 63
_NOTHING: More = {}

# What gRPC and protobuf carry of one message at most. What is larger goes in chunks, and only we can read it.
MAX_WHOLE_BYTES = 2**31 - 1


# From a Lent to the memory that it says.
Borrow = Callable[[memoryview], memoryview]
# Gives memory for a message of so many bytes; None: the message is bytes.
Room = Callable[[int], "memoryview | None"]


class Parts(NamedTuple):
    """A message taken apart; what it does not have is empty."""

    version: str
    body: memoryview
    segments: list[memoryview]
    # The rare fields, by their number; LENT is among them if some of the segments are borrowed.
    more: More


def number(field: int, value: int) -> bytes:
    """Write a field that is a signed number or a truth value, for :func:`join`; 0 is left out.

    A signed one has its sign in the last bit: 1 is 2, -1 is 1.
    """
    if not value:
        return b""
    written = int(value) if field in _TRUTHS else value << 1 ^ value >> _SIGN
    return bytes((field << 3 | _VARINT,)) + _varint(written)


def text(field: int, data: bytes) -> bytes:
    """Write a field that is bytes or another message."""
    return bytes((field << 3 | _BYTES,)) + _varint(len(data)) + data


def join(
    version: str, body: bytes, segments: Sequence[memoryview | bytes], more: bytes = b"", room: Room | None = None
) -> bytes | memoryview:
    """Write a message; the segments are copied once, into it.

    Args:
        version: Field 1, left out if it is ``""``.
        body: Field 2.
        segments: Field 3, one-dimensional views of bytes; or, where one was lent, its ``Lent`` as bytes.
        more: Other fields, written already.
        room: Where a message with segments is to lie, and may be larger than others.

    Raises:
        SerializationError: The message would be too large, or ``version`` is no Unicode.
    """
    parts: list[bytes | memoryview] = []
    if version:
        try:
            name = version.encode()
        except UnicodeEncodeError:
            raise SerializationError("version", "half a surrogate pair is in the name; send another name") from None
        parts += (b"\x0a", _varint(len(name)), name)
    parts += (b"\x12", _varint(len(body)), body, more)
    if segments:
        at = sum([len(part) for part in parts])
        for segment in segments:
            if isinstance(segment, bytes):
                parts.append(text(LENT, segment))
                at += len(parts[-1])
                continue
            head = b"\x1a" + _varint(len(segment))
            fill = _GAPS[-(at + len(head)) % ALIGNMENT]
            parts += (fill, head, segment)
            at += len(fill) + len(head) + len(segment)
        memory = room(at) if room is not None else None
        if memory is not None:
            return _fill(memory, parts)
        check_whole(at)
    return b"".join(parts)


def split(message: bytes | memoryview, max_segments: int, borrow: Borrow | None = None) -> Parts:
    """Take a message apart; what is bytes in it comes back as read-only views of it.

    Of several fields that can be there once the last one counts, and unknown fields are passed over.

    Args:
        message: A message, or one inside a larger buffer.
        max_segments: How many of them it may have.
        borrow: Finds those that were lent; None where nothing can have been.

    Raises:
        SerializationError: It is no such message.
    """
    view = memoryview(message).toreadonly()
    name = body = view[:0]
    segments: list[memoryview] = []
    more = _NOTHING
    at, end = 0, len(view)
    try:
        # Bounded, since a field takes two bytes and a thread's microsecond: each segment may have its padding.
        for _ in range(2 * max_segments + ALIGNMENT):
            if at >= end:
                break
            tag, at = message[at], at + 1
            if tag >= _MORE:
                tag, at = _read_varint(message, at - 1)
            if tag & 7 != _BYTES or not _VERSION <= tag <= _MAX_TAG:
                start, at = at, _skip(message, at, tag)
                more = _with_number(more, tag, message, start)
                continue
            size, at = message[at], at + 1
            if size >= _MORE:
                size, at = _read_varint(message, at - 1)
            start, at = at, at + size
            if tag == _BODY:
                body = view[start:at]
            elif tag == _SEGMENT:
                segments.append(view[start:at])
            elif tag == _VERSION:
                name = view[start:at]
            elif tag in _RARE and at <= end:
                more = _with_rare(more, tag, view[start:at], segments, borrow)
    except IndexError:
        raise _broken("it ends inside a field") from None
    if at > end:
        raise _broken("it ends inside a field")
    if at < end or len(segments) > max_segments:
        raise SerializationError("message", f"it has more than {max_segments} segments; stack arrays into fewer")
    return Parts(_text(name), body, segments, more)


def check_whole(size: int) -> None:
    """See that a message of so many bytes can travel whole.

    Raises:
        SerializationError: It has to go in chunks, or not at all.
    """
    if size > MAX_WHOLE_BYTES:
        raise SerializationError(
            "message",
            f"{size} bytes are more than the {MAX_WHOLE_BYTES} of a call that goes alone; send them in parts, or on a"
            " trunk, which connect() opens, within the server's AIPOD_MAX_MESSAGE_BYTES",
        )


def _fill(memory: memoryview, parts: Sequence[bytes | memoryview]) -> memoryview:
    whole, at = np.frombuffer(memory, np.uint8), 0
    for part in filter(len, parts):
        end = at + len(part)
        # Unlike an assignment to the view, this lets other threads of Python's run.
        np.copyto(whole[at:end], np.frombuffer(part, np.uint8))
        at = end
    return memory.toreadonly()


def _with_number(more: More, tag: int, message: bytes | memoryview, at: int) -> More:
    if tag not in _NUMBERS:
        return more
    digits, field = _read_varint(message, at)[0], _NUMBERS[tag]
    return {**more, field: digits if field in _TRUTHS else digits >> 1 ^ -(digits & 1)}


def _with_rare(more: More, tag: int, data: memoryview, segments: list[memoryview], borrow: Borrow | None) -> More:
    if tag >> 3 != LENT:
        return {**more, tag >> 3: data}
    if borrow is None:
        raise SerializationError("message", "no memory is shared on this way; send the segment itself")
    segments.append(borrow(data))
    return {**more, LENT: len(segments)}


def _text(name: memoryview) -> str:
    try:
        return str(name, "utf-8")
    except UnicodeDecodeError:
        raise SerializationError("version", "the name is not UTF-8; send it as UTF-8") from None


def _varint(number: int) -> bytes:
    if number < _MORE:
        return bytes((number,))
    digits = []
    while number >= _MORE:
        digits.append(number & 0x7F | _MORE)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def _read_varint(message: bytes | memoryview, at: int) -> tuple[int, int]:
    """Return a number and where it ends; behind the end of the message is an IndexError."""
    number = 0
    for shift in range(0, 7 * _MAX_VARINT_BYTES, 7):
        digit = message[at]
        at += 1
        number |= (digit & 0x7F) << shift
        if digit < _MORE:
            return number, at
    raise _broken(f"a number in it is longer than {_MAX_VARINT_BYTES} bytes")


def _skip(message: bytes | memoryview, at: int, tag: int) -> int:
    """Return where a field's value ends that has no length, and refuse what cannot be a field."""
    field, kind = tag >> 3, tag & 7
    if field == 0 or tag > _MAX_TAG:
        raise _broken(f"no field can have the number {field}")
    if kind == _VARINT and (tag in _NUMBERS or field not in _KNOWN):
        return _read_varint(message, at)[1]
    if field in _KNOWN:
        raise _broken(f"field {field} is not written as {'a number' if tag & ~7 in _NUMBERS else 'bytes'}")
    if kind == _FIXED64:
        return at + 8
    if kind == _FIXED32:
        return at + 4
    raise _broken(f"field {field} is a group or of an unknown kind")


def _broken(problem: str) -> SerializationError:
    return SerializationError("message", f"{problem}; send one as aipod/v1/model.proto describes it")

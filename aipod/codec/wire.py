"""The protobuf message around a value, written and read by hand.

::

    message CallRequest { string version = 1; bytes kwargs = 2; repeated bytes segments = 3; bytes padding = 15; }
    message CallReply   {                     bytes value  = 2; repeated bytes segments = 3; bytes padding = 15; }

Any protobuf library reads and writes it. This one does without protobuf's own runtime, which copies a bytes field
whenever it is touched, and cannot place one: here a segment starts at a multiple of 64 bytes from the start of the
message, by padding before it, and is read as a view. Nobody may rely on that; what other libraries write lies where
it lies.

Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Sequence

from aipod.errors import SerializationError

__all__ = ["ALIGNMENT", "join", "split"]

ALIGNMENT = 64

# A tag is a field's number, and in its last three bits how the value is written.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VERSION, _BODY, _SEGMENT, _PADDING = (number << 3 | _BYTES for number in (1, 2, 3, 15))
_KNOWN = frozenset({1, 2, 3})
_MAX_TAG = 2**32 - 1

# Numbers are written seven bits at a time, each but the last with this bit on top.
_MORE = 0x80
_MAX_VARINT_BYTES = 10

# Padding that fills a gap of so many bytes; a gap of 1 is filled to the next boundary, since tag and length take two.
_FILL = [
    bytes((_PADDING, gap - 2)) + bytes(gap - 2) if gap else b"" for gap in (0, ALIGNMENT + 1, *range(2, ALIGNMENT))
]

# The largest message that protobuf allows.
_MAX_MESSAGE_BYTES = 2**31 - 1


def join(version: str, body: bytes, segments: Sequence[memoryview]) -> bytes:
    """Write a message; the segments are copied once, into it.

    Args:
        version: Field 1, left out if it is ``""``.
        body: Field 2.
        segments: Field 3, one-dimensional views of bytes.

    Raises:
        SerializationError: The message would be larger than protobuf allows, or ``version`` is no Unicode.
    """
    parts: list[bytes | memoryview] = []
    if version:
        try:
            name = version.encode()
        except UnicodeEncodeError:
            raise SerializationError("version", "half a surrogate pair is in the name; send another name") from None
        parts += (b"\x0a", _varint(len(name)), name)
    parts += (b"\x12", _varint(len(body)), body)
    if segments:
        at = sum([len(part) for part in parts])
        for segment in segments:
            head = b"\x1a" + _varint(len(segment))
            fill = _FILL[-(at + len(head)) % ALIGNMENT]
            parts += (fill, head, segment)
            at += len(fill) + len(head) + len(segment)
        if at > _MAX_MESSAGE_BYTES:
            problem = f"{at} bytes are more than the {_MAX_MESSAGE_BYTES} that one message can hold; send it in parts"
            raise SerializationError("message", problem)
    return b"".join(parts)


def split(message: bytes | memoryview, max_segments: int) -> tuple[str, memoryview, list[memoryview]]:
    """Return version, body and segments of a message; the last two are read-only views of it.

    What is absent is empty, of several versions or bodies the last one counts, and unknown fields are passed over.

    Args:
        message: A message, or one inside a larger buffer.
        max_segments: How many of them it may have.

    Raises:
        SerializationError: It is no such message.
    """
    view = memoryview(message).toreadonly()
    name = body = view[:0]
    segments: list[memoryview] = []
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
                at = _skip(message, at, tag)
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
    except IndexError:
        raise _broken("it ends inside a field") from None
    if at > end:
        raise _broken("it ends inside a field")
    if at < end or len(segments) > max_segments:
        raise SerializationError("message", f"it has more than {max_segments} segments; stack arrays into fewer")
    return _text(name), body, segments


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
    number, kind = tag >> 3, tag & 7
    if number == 0 or tag > _MAX_TAG:
        raise _broken(f"no field can have the number {number}")
    if number in _KNOWN:
        raise _broken(f"field {number} is not written as bytes")
    if kind == _VARINT:
        return _read_varint(message, at)[1]
    if kind == _FIXED64:
        return at + 8
    if kind == _FIXED32:
        return at + 4
    raise _broken(f"field {number} is a group or of an unknown kind")


def _broken(problem: str) -> SerializationError:
    return SerializationError("message", f"{problem}; send one as aipod/v1/model.proto describes it")

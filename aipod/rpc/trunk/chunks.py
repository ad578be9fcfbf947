"""Large messages in pieces: one that leaves, one that arrives, and the frame in which a piece travels.

A frame with a chunk has nothing else in it. It is written and read by hand: protobuf's own runtime would copy the bytes
twice more. What other libraries write, in whatever order, :func:`read` leaves to them.
"""

from __future__ import annotations

__all__ = ["CHUNK_BYTES", "LARGE_BYTES", "MAX_FRAME_BYTES", "OVERHEAD_BYTES", "Arriving", "Leaving", "read"]

# Above this a message goes apart. Below, what it costs others to wait behind it is less than a chunk's.
LARGE_BYTES = 64 * 1024
# No frame is larger, whoever writes it.
MAX_FRAME_BYTES = 1024 * 1024
# With its head, a whole frame: each costs both sides a few wake-ups, and small ones wait for one at most.
CHUNK_BYTES = MAX_FRAME_BYTES - 64
# What a call or a reply takes in a frame besides its message, more or less; an empty one is not free.
OVERHEAD_BYTES = 128

# Field 3 of a frame, and the two fields of a chunk.
_CHUNK_TAG, _NUMBER_TAG, _DATA_TAG = 0x1A, 0x08, 0x12
_MORE = 0x80
_MAX_VARINT_BYTES = 10


class Leaving:
    """A message on its way out, piece by piece.

    Args:
        number: Of its call.
        message: All of it.
    """

    __slots__ = ("_at", "_message", "number")

    def __init__(self, number: int, message: bytes | memoryview) -> None:
        self.number = number
        self._message = memoryview(message)
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that have not left yet."""
        return len(self._message) - self._at

    def frame(self) -> bytes:
        """The frame with the next piece."""
        data = self._message[self._at : self._at + CHUNK_BYTES]
        self._at += len(data)
        head = bytes((_NUMBER_TAG,)) + _varint(self.number) + bytes((_DATA_TAG,)) + _varint(len(data))
        return b"".join((bytes((_CHUNK_TAG,)), _varint(len(head) + len(data)), head, data))


class Arriving:
    """A message on its way in.

    Args:
        size: Its bytes, as its sender announced them.
        memory: For so many bytes; None if nobody wants it, and it is only counted.
    """

    __slots__ = ("_at", "_message", "_size")

    def __init__(self, size: int, memory: memoryview | None) -> None:
        self._size = size
        self._message = memory
        self._at = 0

    def add(self, data: memoryview) -> bool:
        """Put the next piece in its place; says whether that was the last one.

        Raises:
            ValueError: There is more than was announced.
        """
        end = self._at + len(data)
        if end > self._size:
            raise ValueError("a chunk goes beyond the size that was announced")
        if self._message is not None:
            self._message[self._at : end] = data
        self._at = end
        return end == self._size

    def message(self) -> memoryview:
        """All of it, when the last piece has come."""
        return memoryview(b"") if self._message is None else self._message.toreadonly()


def read(frame: bytes) -> tuple[int, memoryview] | None:
    """Take apart a frame that holds a chunk as we write it: the number, and the bytes as a view; None for any other."""
    if frame[:1] != b"\x1a":
        return None
    try:
        size, at = _read_varint(frame, 1)
        if at + size != len(frame) or frame[at] != _NUMBER_TAG:
            return None
        number, at = _read_varint(frame, at + 1)
        if frame[at] != _DATA_TAG:
            return None
        size, at = _read_varint(frame, at + 1)
    except IndexError:
        return None
    return (number, memoryview(frame)[at:]) if at + size == len(frame) else None


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number >= _MORE:
        digits.append(number & 0x7F | _MORE)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def _read_varint(frame: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 7 * _MAX_VARINT_BYTES, 7):
        digit = frame[at]
        at += 1
        number |= (digit & 0x7F) << shift
        if digit < _MORE:
            return number, at
    raise IndexError

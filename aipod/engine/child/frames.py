"""What a parent and its child say to each other: frames on a socket, large arrays in memory that both share.

A frame is a word, the number of what it is about, an instant, and any number of messages, each of them a call or a
reply of :mod:`aipod.codec`. On the socket it is a head, the lengths of the messages, and the messages; a negative
length is that of an error, which is a reply, too.
"""

from __future__ import annotations

import math
import socket
import struct
import threading
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from aipod.codec import Limits, Message, encode_call, encode_reply, read_call, read_reply
from aipod.errors import AipodError, ModelError, SerializationError, describe, rebuild
from aipod.shm import Lender, Link, Place
from aipod.shm.link import TOKEN_BYTES

__all__ = [
    "TOKEN",
    "Frame",
    "Piece",
    "Talk",
    "Word",
    "call_piece",
    "error_of_piece",
    "outcome_piece",
    "read_piece",
    "value_of_piece",
]

# What comes was held against the server's own limits on its way in, and is on its way out.
_LIMITS = Limits(max_value_bytes=2**31 - 1)

# Said by both before they share memory; nobody else has the sockets.
TOKEN = bytes(TOKEN_BYTES)

_HEAD = struct.Struct("<BIQd")
_LENGTH = struct.Struct("<q")
_PLACE = struct.Struct("<QQI")
_READ_BYTES = 64 * 1024
# The system takes so many parts of one message at a time.
_MAX_PARTS = 512


class Word(IntEnum):
    """What a frame is about; the first of them go to the child."""

    MAKE = 1
    LOAD = 2
    CALL = 3
    BATCH = 4
    CANCEL = 5
    WISH = 6
    END = 7
    ANSWER = 8
    BEAT = 9
    LOG = 10


class Piece(NamedTuple):
    """One message.

    Attributes:
        data: A call or a reply.
        failed: Whether it is an error.
        lender: What of it lies in shared memory.
    """

    data: bytes | memoryview
    failed: bool = False
    lender: Lender | None = None


class Frame(NamedTuple):
    """One frame.

    Attributes:
        number: Of the request that it makes, or is about.
        pieces: Its messages.
        instant: The deadline of a call, on the monotonic clock, which the two share; infinity without one.
    """

    word: Word
    number: int = 0
    pieces: Sequence[Piece] = ()
    instant: float = math.inf


class Talk:
    """One end of the conversation. Any thread may send, one receives.

    Args:
        sock: Connected, of streams; the talk's from now on.
        link: The memory that the two share, if they do.
    """

    def __init__(self, sock: socket.socket, link: Link | None) -> None:
        self.link = link
        self._sock = sock
        self._sending = threading.Lock()
        self._buffer = memoryview(b"")

    def lender(self) -> Lender | None:
        """For what the next message lends."""
        link = self.link
        return None if link is None else Lender(lambda: link, lambda place: _PLACE.pack(*place))

    def borrow(self, record: memoryview) -> memoryview:
        """Find what the other end lent.

        Raises:
            SerializationError: It did not.
        """
        if self.link is None or len(record) != _PLACE.size:
            raise SerializationError("message", "it lends memory that is not shared")
        return self.link.borrowed.borrow(Place(*_PLACE.unpack(record)))

    def send(self, frame: Frame) -> None:
        """Send a frame; waits while the other end does not read.

        Raises:
            OSError: The other end is gone; nothing is lent then.
        """
        lengths = [_LENGTH.pack(-len(one.data) - 1 if one.failed else len(one.data)) for one in frame.pieces]
        head = _HEAD.pack(frame.word, len(frame.pieces), frame.number, frame.instant)
        parts = [memoryview(b"".join((head, *lengths))), *(memoryview(one.data) for one in frame.pieces)]
        try:
            with self._sending:
                self._send(parts)
        except OSError:
            for piece in frame.pieces:
                if piece.lender is not None:
                    piece.lender.take_back()
            raise

    def _send(self, parts: list[memoryview]) -> None:
        while parts:
            sent = self._sock.sendmsg(parts[:_MAX_PARTS])
            while parts and sent >= len(parts[0]):
                sent -= len(parts.pop(0))
            if sent:
                parts[0] = parts[0][sent:]

    def receive(self) -> Frame:
        """The next frame.

        Raises:
            OSError: The other end is gone.
        """
        word, count, number, instant = _HEAD.unpack(self._take(_HEAD.size))
        sizes = [length for (length,) in _LENGTH.iter_unpack(self._take(_LENGTH.size * count))]
        pieces = [Piece(self._message(-size - 1 if size < 0 else size), size < 0) for size in sizes]
        return Frame(Word(word), number, pieces, instant)

    def close(self) -> None:
        """End the conversation, whatever the other end is doing; again is fine."""
        self._sock.close()
        if self.link is not None:
            self.link.close()

    def hang_up(self) -> None:
        """The other end is gone: whoever receives gets what has come, and then hears of it."""
        try:
            self._sock.shutdown(socket.SHUT_RD)
        except OSError:
            # It is closed.
            return

    def _message(self, nbytes: int) -> bytes | memoryview:
        # A small one is copied: a model that keeps what was in it must not keep all that came with it.
        return self._take(nbytes) if nbytes >= _READ_BYTES else bytes(self._take(nbytes))

    def _take(self, nbytes: int) -> memoryview:
        there = self._buffer
        if len(there) >= nbytes:
            self._buffer = there[nbytes:]
            return there[:nbytes]
        if nbytes < _READ_BYTES:
            room = bytearray(_READ_BYTES)
            end = len(there)
            room[:end] = there
            whole = memoryview(room)
            while end < nbytes:
                end += self._read(whole[end:])
            self._buffer = whole[nbytes:end]
            return whole[:nbytes]
        whole = memoryview(bytearray(nbytes))
        whole[: len(there)] = there
        end, self._buffer = len(there), memoryview(b"")
        while end < nbytes:
            end += self._read(whole[end:])
        return whole

    def _read(self, room: memoryview) -> int:
        count = self._sock.recv_into(room)
        if not count:
            raise ConnectionResetError("the other end is gone")
        return count


def call_piece(talk: Talk, method: str, arguments: dict[str, Any]) -> Piece:
    """A call of a method, to be sent.

    Raises:
        SerializationError: An argument cannot travel.
    """
    lender = talk.lender()
    return Piece(encode_call(method, arguments, lend=lender), lender=lender)


def read_piece(talk: Talk, piece: Piece) -> Message:
    """Take a call apart that has come."""
    return read_call(piece.data, _LIMITS, talk.borrow)


def outcome_piece(talk: Talk, outcome: object, method: str = "") -> Piece:
    """What a method returned, or the error that it ended with, to be sent; never raises."""
    if isinstance(outcome, AipodError):
        return _error_piece(outcome)
    lender = talk.lender()
    try:
        return Piece(encode_reply(outcome, lend=lender), lender=lender)
    except SerializationError as error:
        unsent = ModelError(f"{method}() returned what cannot travel: {error}")
    except Exception as error:  # What a model returns can fail in any way while it is looked at.
        unsent = ModelError(f"{method}() returned what cannot be read ({type(error).__name__})")
    if lender is not None:
        lender.take_back()
    # Told from what the method raised: it ran to its end.
    unsent.returned = True
    return _error_piece(unsent)


def _error_piece(error: AipodError) -> Piece:
    return Piece(encode_reply({**describe(error), "traceback": error.traceback}), failed=True)


def value_of_piece(talk: Talk, piece: Piece) -> Any:
    """What came as an outcome.

    Raises:
        AipodError: It is an error.
    """
    if piece.failed:
        raise error_of_piece(piece)
    return read_reply(piece.data, _LIMITS, talk.borrow).value()


def error_of_piece(piece: Piece) -> AipodError:
    """The error that came as an outcome."""
    description = read_reply(piece.data, _LIMITS).value()
    error = rebuild(description)
    error.traceback = str(description.get("traceback", ""))
    return error

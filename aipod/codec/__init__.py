"""Values to bytes and back: the one description of what a call and a reply look like on the wire.

A call or a reply is a protobuf message (``protos/aipod/v1/model.proto``) of three things: the version's name (calls
only), a msgpack part, and segments. The msgpack part is the map of a call's arguments, or a reply's value. Arrays and
large bytes lie outside it, each as a segment of raw memory, so that they are copied once when they are sent and not at
all when they are received. An absent or empty msgpack part is no arguments in a call, and None in a reply.

What travels, and as what:

===================================  ===================================================================================
None, bool, float, str               msgpack's own; a str must be Unicode
int                                  msgpack's own, from -2**63 to 2**64 - 1
dict                                 a map whose keys are strs, each there once
list, tuple                          an array; a tuple arrives as a list
bytes, bytearray, memoryview         bin if shorter than 1024 bytes, else extension type 1; they arrive as bytes
``numpy.ndarray``                    extension type 2; it arrives as a read-only view of the message
numpy scalars                        extension type 3; they arrive as what they were
``datetime.datetime``                extension type 4; a time zone arrives as its offset
subclasses of int, float, str,       as what they are subclasses of
list, tuple and dict
===================================  ===================================================================================

Anything else is refused on the sending side, by the place it has in the value. Nesting ends at 64 levels.

The data of the extension types:

1. Large bytes: the index of their segment, a msgpack int. A receiver copies them, since models expect ``bytes``.
2. An array: a msgpack array of the index of its segment, its dtype, ``"C"`` or ``"F"`` for row-major or column-major
   order, and the array of its lengths. The segment is as long as dtype and lengths make it.
3. A scalar: a msgpack array of its dtype, and its element as bin; for ``numpy.str_`` of ``"U"`` and a str, for
   ``numpy.bytes_`` of ``"S"`` and bin.
4. A date and time: ``YYYY-MM-DDTHH:MM:SS[.ffffff][+HH:MM[:SS[.ffffff]]]`` in ASCII; without an offset it is naive.

msgpack's own timestamp (type -1) is read too, as a UTC datetime of microseconds. Dtypes are named in
:mod:`aipod.codec.dtypes`. Each segment is referred to exactly once. A writer should let the data of an array begin
at a multiple of 64 bytes from the start of the message, by a ``padding`` field before it that every reader passes over;
an array that does not lie well in memory is copied, and is the same otherwise.

What arrives is read within :class:`Limits`, and whatever is wrong with it is a ``SerializationError``.
"""

from __future__ import annotations

from aipod.codec.limits import Limits
from aipod.codec.message import (
    Lend,
    Message,
    decode_reply,
    encode_call,
    encode_reply,
    read_call,
    read_reply,
    with_job,
    with_timings,
)
from aipod.codec.wire import MAX_WHOLE_BYTES, Room, check_whole

__all__ = [
    "MAX_WHOLE_BYTES",
    "Lend",
    "Limits",
    "Message",
    "Room",
    "check_whole",
    "decode_reply",
    "encode_call",
    "encode_reply",
    "read_call",
    "read_reply",
    "with_job",
    "with_timings",
]

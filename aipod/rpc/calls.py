"""What the two clients have in common: what a call is on the wire, what its errors are, and when it is tried again.

``predict`` and ``log`` are tried again when the server is away or went away, since running them twice does no harm;
switch it off with ``options(retry=0)``. So is ``train``, since it carries an id by which a server that gets it twice
knows it; and what is asked about a job. ``initialize`` is sent once, whatever happens.
"""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from aipod.codec import MAX_WHOLE_BYTES, Lend, Limits, Message, Room, check_whole, encode_call, read_reply
from aipod.errors import (
    AipodError,
    SerializationError,
    Unavailable,
)
from aipod.rpc.keepalive import PING_SECONDS, client_options
from aipod.rpc.v1 import model_pb2

__all__ = [
    "MAX_MESSAGE_BYTES",
    "REPLY_LIMITS",
    "Attempts",
    "ClientClosed",
    "Content",
    "RemoteTraceback",
    "Timed",
    "Timings",
    "channel_options",
    "decode",
    "raising",
]

MAX_MESSAGE_BYTES = 100 * 1024 * 1024
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 0.5
_REPEATABLE = frozenset({"predict", "log", "train", "job"})
# A reply comes from a server that was chosen, so more is taken from it than a server takes from anybody.
REPLY_LIMITS = Limits(max_value_bytes=64 * 1024 * 1024)


class ClientClosed(Unavailable):
    """This client was closed: there is nothing to wait for. To callers, an ``Unavailable`` like any other."""

    def told(self) -> Unavailable:
        return Unavailable(str(self), may_have_run=self.may_have_run)


class RemoteTraceback(Exception):
    """The cause of an error that came from a server: shows its traceback there."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class Attempts:
    """The tries of one call: how much time each has, and which pause comes before the next.

    Args:
        method: The model's method; ``"job"`` for what is asked about a job.
        timeout: Seconds for all of them together; None for ever.
        retry: How many more there may be after the first.
    """

    __slots__ = ("_allowed", "_began", "_number", "_timeout")

    def __init__(self, method: str, timeout: float | None, retry: int) -> None:
        self._timeout = timeout
        self._began = time.monotonic()
        self._allowed: float = retry if method in _REPEATABLE else 0
        self._number = 0

    def insist(self) -> None:
        """Have as many tries as the time allows, unless there is to be one; the next pause is the shortest again."""
        self._allowed, self._number = math.inf if self._allowed else 0, 0

    def timeout(self) -> float | None:
        """What is left of the time."""
        return None if self._timeout is None else max(0.0, self._began + self._timeout - time.monotonic())

    def pause(self, error: AipodError) -> float:
        """Seconds to wait before another try.

        Raises:
            AipodError: The error, if there is no other try after it.
        """
        pause: float = min(_FIRST_PAUSE * 2 ** min(self._number, 16), _LONGEST_PAUSE)
        left = self.timeout()
        try:
            # What the model itself raised would be raised again, after one more run.
            may_pass = isinstance(error, Unavailable) and not error.by_model
            if isinstance(error, ClientClosed):
                raise error.told() from None
            if not may_pass or self._number == self._allowed or (left is not None and left <= pause):
                raise raising(error)
        finally:
            # Its traceback holds this frame, and with it the request, until the cycle collector comes.
            del error
        self._number += 1
        return pause


def channel_options(
    ping_seconds: float = PING_SECONDS, max_message_bytes: int = MAX_MESSAGE_BYTES
) -> list[tuple[str, Any]]:
    return [
        *client_options(ping_seconds),
        ("grpc.max_receive_message_length", min(max_message_bytes, MAX_WHOLE_BYTES)),
        ("grpc.max_send_message_length", -1),
        # A server that comes back is found again within half a second, not within two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 500),
        # In spite of its name, how long one attempt to connect may take.
        ("grpc.min_reconnect_backoff_ms", 5000),
    ]


class Timings(NamedTuple):
    """Seconds that a call took on the server; what it took beyond ``total``, the way took.

    Attributes:
        queue: From its arrival until its turn came.
        decode: To read the arguments.
        predict: In the model; of a batch, the whole of it.
        encode: To write the result.
        total: From its arrival until its reply was ready.
    """

    queue: float = 0.0
    decode: float = 0.0
    predict: float = 0.0
    encode: float = 0.0
    total: float = 0.0


class Timed(NamedTuple):
    """What a call made with ``options(timed=True)`` returns."""

    value: Any
    timings: Timings


class Content:
    """What a call says, to be written for the way that it goes.

    Args:
        version: The version that it goes to.
        kwargs: The model's arguments.
        priority: See ``options``.
        timed: See ``options``.
        request_id: Of a train that is to go on without its caller; ``""`` for any other call.
    """

    __slots__ = ("_kwargs", "_options", "_plain", "_train", "_version")

    def __init__(self, version: str, kwargs: dict[str, Any], priority: int, timed: bool, request_id: str = "") -> None:
        self._version = version
        self._kwargs = kwargs
        self._options = (priority, timed)
        self._train = (request_id, True) if request_id else ()
        self._plain: bytes | memoryview | None = None

    @property
    def is_written(self) -> bool:
        """Whether the arguments are not needed any more: the plain request is there."""
        return self._plain is not None

    def keep(self, message: bytes | memoryview) -> None:
        """The request was written, and nothing was left out."""
        self._plain = message

    def message(self, lend: Lend | None = None, room: Room | None = None) -> bytes | memoryview:
        """The request, with what ``lend`` takes left out; the plain one is written once, and where ``room`` says.

        Raises:
            SerializationError: An argument cannot travel.
        """
        if lend is not None and self._plain is None:
            return encode_call(self._version, self._kwargs, *self._options, lend, room, *self._train)
        if self._plain is None:
            self._plain = encode_call(self._version, self._kwargs, *self._options, None, room, *self._train)
        return self._plain

    def whole(self) -> bytes:
        """The plain request, for a call that goes alone.

        Raises:
            SerializationError: An argument cannot travel, or not all of them in one piece.
        """
        message = self.message()
        check_whole(len(message))
        return bytes(message)


def decode(reply: bytes | memoryview | Message, timed: bool = False) -> Any:
    """The value of a reply; with ``timed`` a :class:`Timed`."""
    message = reply if isinstance(reply, Message) else read_reply(reply, REPLY_LIMITS)
    return Timed(message.value(), _timings(message.timings)) if timed else message.value()


def _timings(data: memoryview | None) -> Timings:
    try:
        sent = model_pb2.Timings.FromString(bytes(data or b""))
    except DecodeError:
        raise SerializationError("result", "its timings cannot be read; is the server an AIPOD?") from None
    return Timings(*(getattr(sent, name) for name in Timings._fields))


def raising(error: AipodError) -> AipodError:
    """An error made ready to be raised: the server's traceback shows above it."""
    if error.remote_traceback:
        error.__cause__ = RemoteTraceback(error.remote_traceback)
    error.__suppress_context__ = True
    return error

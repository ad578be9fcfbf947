"""What the two clients have in common: what a call is on the wire, what its errors are, and when it is tried again.

``predict`` and ``log`` are tried again when the server is away or went away, since running them twice does no harm;
switch it off with ``options(retry=0)``. So is ``train``, since it carries an id by which a server that gets it twice
knows it; and what is asked about a job. ``initialize`` is sent once, whatever happens.
"""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from aipod.codec import MAX_WHOLE_BYTES, Lend, Limits, Message, Room, check_whole, encode_call, read_reply
from aipod.codec.dtypes import MAX_DIMENSIONS, DType, describe
from aipod.config import check_address
from aipod.errors import (
    AipodError,
    BadVersionName,
    ConfigError,
    InvalidArgument,
    SerializationError,
    Unavailable,
)
from aipod.rpc.keepalive import PING_SECONDS, client_options
from aipod.rpc.v1 import model_pb2

__all__ = [
    "DEFAULT_RETRY",
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
    "take_addresses",
    "take_bytes",
    "take_dtype",
    "take_flag",
    "take_ping",
    "take_priority",
    "take_request_id",
    "take_retry",
    "take_shape",
    "take_timeout",
    "take_version",
]

# Eight tries more bridge about three seconds: a server that restarts is back by then.
DEFAULT_RETRY = 8
MAX_MESSAGE_BYTES = 100 * 1024 * 1024
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 0.5
_LONGEST_TIMEOUT = 365 * 86_400.0
# A server allows no more pings, and gRPC counts their milliseconds in 31 bits.
_LEAST_PING, _LONGEST_PING = 0.2, 86_400.0
# As for a server.
_LEAST_BYTES, _MOST_BYTES = 1024, 2**40
_SHOWN = 64
MAX_PRIORITY = 60
MAX_REQUEST_ID_BYTES = 200
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


def take_addresses(address: str | Sequence[str]) -> list[str]:
    """Each of one or several addresses, once.

    Raises:
        ConfigError: One is none, or there is none at all.
    """
    several: list[Any] = list(address) if isinstance(address, (list, tuple)) else [address]
    if not several:
        raise ConfigError(["the list of addresses is empty; name a server, as in localhost:50051"])
    return list(dict.fromkeys(check_address(one) for one in several))


def take_timeout(timeout: object) -> float | None:
    """Seconds, None for ever.

    Raises:
        InvalidArgument: It is neither.
    """
    if timeout is None or timeout == math.inf:
        return None
    if isinstance(timeout, (int, float)) and not isinstance(timeout, bool) and timeout > 0:
        # gRPC counts nanoseconds in 64 bits.
        return min(float(timeout), _LONGEST_TIMEOUT)
    raise InvalidArgument(f"timeout is {timeout!r}; give seconds above 0, or None for ever")


def take_retry(retry: object) -> int:
    """How many more tries there may be; True is as many as without the option.

    Raises:
        InvalidArgument: It is no number of tries.
    """
    if isinstance(retry, bool):
        return DEFAULT_RETRY if retry else 0
    if isinstance(retry, int) and retry >= 0:
        return retry
    raise InvalidArgument(f"retry is {retry!r}; give the number of further tries, 0 for none")


def take_priority(priority: object) -> int:
    """What is run before what, where calls wait.

    Raises:
        InvalidArgument: It is no such number.
    """
    if isinstance(priority, int) and not isinstance(priority, bool) and abs(priority) <= MAX_PRIORITY:
        return priority
    allowed = f"from {-MAX_PRIORITY} to {MAX_PRIORITY}"
    raise InvalidArgument(f"priority is {_shown(priority)}; give a whole number {allowed}, 0 for the usual")


def take_request_id(request_id: object) -> str:
    """What makes a train that is sent twice the same one; ``""`` for None: each gets one of its own.

    Raises:
        InvalidArgument: It is no text, or too long.
    """
    if request_id is None:
        return ""
    if (
        isinstance(request_id, str)
        and request_id.isprintable()
        and 0 < len(request_id.encode()) <= MAX_REQUEST_ID_BYTES
    ):
        return request_id
    allowed = f"printable text of 1 to {MAX_REQUEST_ID_BYTES} bytes"
    raise InvalidArgument(f"request_id is {_shown(request_id)}; give {allowed}, or None for one of its own")


def take_flag(name: str, value: object) -> bool:
    """Yes or no, and no text that says so.

    Raises:
        InvalidArgument: It is neither.
    """
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise InvalidArgument(f"{name} is {_shown(value)}; give True or False")


def take_ping(seconds: object) -> float:
    """Seconds between two pings while a call runs.

    Raises:
        InvalidArgument: It is no such number.
    """
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and _LEAST_PING <= seconds <= _LONGEST_PING:
        return float(seconds)
    allowed = f"from {_LEAST_PING} to {_LONGEST_PING:.0f}"
    raise InvalidArgument(f"ping_seconds is {_shown(seconds)}; give seconds {allowed}")


def take_bytes(size: object) -> int:
    """The largest reply.

    Raises:
        InvalidArgument: It is no such size.
    """
    if isinstance(size, int) and not isinstance(size, bool) and _LEAST_BYTES <= size <= _MOST_BYTES:
        return size
    allowed = f"from {_LEAST_BYTES} to {_MOST_BYTES}"
    raise InvalidArgument(f"max_message_bytes is {_shown(size)}; give a whole number of bytes {allowed}")


def take_shape(shape: object) -> tuple[int, ...]:
    """The lengths of an array's axes; a number is that of a single one.

    Raises:
        InvalidArgument: It is no shape.
    """
    try:
        axes = tuple(map(operator.index, shape if isinstance(shape, Iterable) else (shape,)))
    except TypeError:
        axes = (-1,)
    if len(axes) <= MAX_DIMENSIONS and all(length >= 0 for length in axes):
        return axes
    allowed = f"a whole number, or a tuple of {MAX_DIMENSIONS} at most, none below 0"
    raise InvalidArgument(f"shape is {_shown(shape)}; give {allowed}")


def take_dtype(dtype: Any) -> DType:
    """A dtype whose arrays can travel.

    Raises:
        InvalidArgument: It is none. In shared memory, which holds whatever it held before, an array of Python objects
            would be one of wild pointers.
    """
    try:
        kind: DType = np.dtype(dtype)
        describe(kind)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"dtype is {_shown(dtype)}; give one that can travel ({error})") from None
    return kind


def take_version(version: object) -> str:
    """The version's name; whether there can be one of that name is for the server to say.

    Raises:
        BadVersionName: It is no text.
    """
    if version is None:
        return "default"
    if isinstance(version, str):
        return version or "default"
    raise BadVersionName(repr(version), "a name is text")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def raising(error: AipodError) -> AipodError:
    """An error made ready to be raised: the server's traceback shows above it."""
    if error.remote_traceback:
        error.__cause__ = RemoteTraceback(error.remote_traceback)
    error.__suppress_context__ = True
    return error

"""What a user gives a client, checked before anything is sent."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from aipod.codec.dtypes import MAX_DIMENSIONS, DType, describe
from aipod.config import check_address
from aipod.errors import BadVersionName, ConfigError, InvalidArgument

__all__ = [
    "DEFAULT_RETRY",
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
_LONGEST_TIMEOUT = 365 * 86_400.0
# A server allows no more pings, and gRPC counts their milliseconds in 31 bits.
_LEAST_PING, _LONGEST_PING = 0.2, 86_400.0
# As for a server.
_LEAST_BYTES, _MOST_BYTES = 1024, 2**40
_SHOWN = 64
MAX_PRIORITY = 60
MAX_REQUEST_ID_BYTES = 200


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

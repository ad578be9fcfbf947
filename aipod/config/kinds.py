"""The kinds of values that settings take: each reads texts and values alike, and says what it allows.

Strict on purpose: a number has no underscores and is never a boolean, ``bool("false")`` happens nowhere, and an empty
text is a value only where nothing can be meant (a list of names). White space around a text is dropped, since files and
shells leave it there.
"""

from __future__ import annotations

import ipaddress
import math
import operator
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

__all__ = [
    "GIB",
    "KIB",
    "MIB",
    "Kind",
    "address",
    "choice",
    "flag",
    "host",
    "names",
    "path",
    "seconds",
    "size",
    "whole",
]

T = TypeVar("T")

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
# Longer than any pause makes sense, and short enough for the clocks and locks of every system.
_YEAR = 365 * 24 * 3600.0

_INTEGER = re.compile(r"-?[0-9]+")
_NUMBER = re.compile(r"-?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_SIZE = re.compile(r"([0-9]+) ?(KiB|MiB|GiB)?")
_HOST_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_SUFFIXES = {"GiB": GIB, "MiB": MIB, "KiB": KIB}
_WORDS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
# gRPC's own spellings of a target; what follows them is gRPC's business.
_SCHEMES = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:")


@dataclass(frozen=True)
class Kind(Generic[T]):
    """What values a setting takes.

    Attributes:
        allowed: The values in words, with their unit; it completes "it must be …".
        read: From a text or a value to the setting's type; ``ValueError``, ``TypeError`` or ``OverflowError`` mean that
            the value is not allowed.
        write: Back to a text that ``read`` understands.
    """

    allowed: str
    read: Callable[[object], T]
    write: Callable[[T], str] = str


def whole(low: int, high: int | None = None) -> Kind[int]:
    """Whole numbers; ``3.0`` is none."""
    bounds = f"from {low} to {high}" if high is not None else f"of at least {low}"
    return Kind(f"a whole number {bounds}", lambda value: _within(_integer(value), low, high))


def size(low: int, high: int | None = None) -> Kind[int]:
    """Bytes, as a whole number or with a binary suffix."""
    bounds = f"from {_size_text(low)} to {_size_text(high)}" if high is not None else f"of at least {_size_text(low)}"
    allowed = f"a whole number of bytes {bounds}, with KiB, MiB or GiB behind it or without"
    return Kind(allowed, lambda value: _within(_bytes(value), low, high), _size_text)


def seconds(high: float = _YEAR) -> Kind[float]:
    return Kind(f"a number of seconds from 0 to {high:.0f}", lambda value: _within(_number(value), 0.0, high))


def choice(*words: str) -> Kind[Any]:
    """One of a few words; capitals do not matter."""
    known = {word.casefold(): word for word in words}
    return Kind(f"one of {', '.join(words)}", lambda value: _look_up(known, value))


def flag() -> Kind[bool]:
    def read(value: object) -> bool:
        return value if isinstance(value, bool) else _look_up(_WORDS, value)

    return Kind("true or false (1 or 0, yes or no, on or off)", read, lambda value: "true" if value else "false")


def path() -> Kind[Path]:
    def read(value: object) -> Path:
        return Path(_text(os.fspath(cast("str | os.PathLike[str]", value))))

    return Kind("the path of a directory", read)


def names() -> Kind[tuple[str, ...]]:
    """Names with commas between them, or a list of names; to say one twice is to say it once."""

    def read(value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            value = value.split(",") if value.strip() else ()
        if not isinstance(value, (list, tuple)):
            raise TypeError(value)
        return tuple(dict.fromkeys(map(_text, value)))

    return Kind("names with commas between them", read, ",".join)


def host() -> Kind[str]:
    """A place to listen; an IPv6 address gets the brackets that it needs next to a port."""
    return Kind("the name or the IP address of a network interface, without a port", _host)


def address() -> Kind[str]:
    """A place to connect to."""

    def read(value: object) -> str:
        text = _text(value)
        if text.startswith(_SCHEMES):
            return text
        where, _, port = text.rpartition(":")
        # Without its brackets nobody could tell where an IPv6 address ends and the port begins.
        if ":" in where and not (where.startswith("[") and where.endswith("]")):
            raise ValueError(value)
        return f"{_host(where)}:{_within(_integer(port), 1, 65535)}"

    return Kind("host:port with a port from 1 to 65535, and brackets around an IPv6 address", read)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    text = value.strip()
    if not text or not text.isprintable():
        raise ValueError(value)
    return text


def _look_up(words: Mapping[str, T], value: object) -> T:
    word = _text(value).casefold()
    if word not in words:
        raise ValueError(value)
    return words[word]


def _within(value: T, low: Any, high: Any) -> T:
    if value < low or (high is not None and value > high):
        raise ValueError(value)
    return value


def _integer(value: object) -> int:
    if isinstance(value, bool):
        raise TypeError(value)
    if not isinstance(value, str):
        return operator.index(cast("Any", value))
    if not _INTEGER.fullmatch(value.strip()):
        raise ValueError(value)
    return int(value)


def _number(value: object) -> float:
    if isinstance(value, bool):
        raise TypeError(value)
    if isinstance(value, str) and not _NUMBER.fullmatch(value.strip()):
        raise ValueError(value)
    if not isinstance(value, (str, int, float)):
        raise TypeError(value)
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(value)
    return number


def _bytes(value: object) -> int:
    if not isinstance(value, str):
        return _integer(value)
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError(value)
    return int(match[1]) * _SUFFIXES.get(match[2], 1)


def _size_text(value: int) -> str:
    for suffix, unit in _SUFFIXES.items():
        if value and value % unit == 0:
            return f"{value // unit}{suffix}"
    return str(value)


def _host(value: object) -> str:
    text = _text(value)
    if ":" in text or text.startswith("["):
        inside = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        return f"[{ipaddress.IPv6Address(inside)}]"
    if not _HOST_NAME.fullmatch(text):
        raise ValueError(value)
    return text

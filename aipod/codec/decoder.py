"""A msgpack body and raw segments to values; nothing here trusts who wrote them."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import msgpack

from aipod.codec.arrays import load_array, load_scalar, pick
from aipod.codec.encoder import ARRAY, DATETIME, LARGE_BYTES, SCALAR
from aipod.codec.limits import Limits
from aipod.codec.places import walk, written
from aipod.errors import SerializationError

__all__ = ["unpack"]

_DATETIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{6})?"
    r"([+-][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{6})?)?)?"
)
_CONTAINERS = (dict, list)
_TEXT = frozenset({str})
_TOO_DEEP = "its lists and maps are nested more than {} deep; flatten it"

# All that msgpack raises for bytes that are not its own, or that ask for too much.
_MSGPACK_ERRORS = (ValueError, TypeError, OverflowError, RecursionError, MemoryError, msgpack.UnpackException)


def unpack(body: memoryview, segments: list[memoryview], limits: Limits, root: str, is_shared: bool = False) -> Any:
    """Make the value again that :func:`aipod.codec.encoder.pack` was given.

    Args:
        body: The msgpack part; its size has been checked.
        segments: What its extension types refer to, each of them once; arrays are read-only views of them.
        limits: Of which ``max_depth`` is meant here.
        root: What the value is called where an error names a place in it.
        is_shared: Whether somebody else may still write to segments.

    Raises:
        SerializationError: Something in it cannot be read, or nothing refers to one of the segments.
    """
    decoder = _Decoder(segments, is_shared)
    try:
        value = msgpack.unpackb(
            body,
            timestamp=3,
            ext_hook=decoder.extension,
            list_hook=decoder.sequence,
            object_pairs_hook=decoder.mapping,
        )
    except msgpack.StackError:
        raise SerializationError(root, _TOO_DEEP.format(limits.max_depth)) from None
    except _MSGPACK_ERRORS as error:
        raise SerializationError(root, f"its msgpack cannot be read ({error}); send a complete, valid one") from None
    # As many containers as may lie inside each other cannot be too deep, and nearly every message has no more.
    if decoder.containers > limits.max_depth and _is_deeper(value, limits.max_depth):
        raise SerializationError(root, _TOO_DEEP.format(limits.max_depth))
    if decoder.fault is not None:
        place = next((where for where, found in walk(value, (None, root)) if found is decoder.fault), (None, root))
        raise SerializationError(written(place), decoder.fault.problem)
    if decoder.unused:
        raise SerializationError(root, f"nothing refers to {decoder.unused} of the message's segments; leave them out")
    return value


class _Fault:
    """Stands in the value where something could not be read, so that its place can be told."""

    __slots__ = ("problem",)

    def __init__(self, problem: str) -> None:
        self.problem = problem


class _Decoder:
    """What msgpack asks while it reads one value.

    Only the first fault is kept: what comes after it must not cost memory.
    """

    __slots__ = ("containers", "fault", "is_shared", "segments", "unused")

    def __init__(self, segments: list[memoryview], is_shared: bool) -> None:
        self.is_shared = is_shared
        # A segment is None here once it has been used.
        self.segments: list[memoryview | None] = list(segments)
        self.unused = len(segments)
        self.containers = 0
        self.fault: _Fault | None = None

    def sequence(self, items: list[Any]) -> list[Any]:
        self.containers += 1
        return items

    def mapping(self, pairs: list[tuple[Any, Any]]) -> Any:
        self.containers += 1
        value = dict(pairs)
        if len(value) == len(pairs) and _TEXT.issuperset(map(type, value)):
            return value
        keys = set()
        for key, _ in pairs:
            if type(key) is not str:
                return self._fail(f"a key of type {type(key).__name__} is not supported; make every key a str")
            if key in keys:
                return self._fail(f"the key {key[:64]!r} is there twice; send it once")
            keys.add(key)
        return value

    def extension(self, code: int, data: bytes) -> Any:
        if self.fault is not None:
            return None
        try:
            return self._read(code, data)
        except _MSGPACK_ERRORS as error:
            return self._fail(f"{error or type(error).__name__}; see the wire's description in aipod.codec")

    def _read(self, code: int, data: bytes) -> Any:
        if code == DATETIME:
            return _read_time(data)
        if code not in (LARGE_BYTES, ARRAY, SCALAR):
            raise ValueError(f"there is no extension type {code}")
        header = msgpack.unpackb(data)
        if code == SCALAR:
            return load_scalar(header)
        if code == ARRAY:
            index, array = load_array(header, self.segments, self.is_shared)
            self._use(index)
            return array
        large = bytes(pick(header, self.segments))
        self._use(header)
        return large

    def _use(self, index: int) -> None:
        self.segments[index] = None
        self.unused -= 1

    def _fail(self, problem: str) -> _Fault | None:
        if self.fault is not None:
            return None
        self.fault = _Fault(problem)
        return self.fault


def _read_time(data: bytes) -> datetime:
    text = str(data, "ascii")
    if _DATETIME.fullmatch(text) is None:
        raise ValueError(f"{text[:40]!r} is no date and time as isoformat() writes it")
    return datetime.fromisoformat(text)


def _is_deeper(value: Any, depth: int) -> bool:
    # Level by level, since this runs on what may be nested deeper than Python can recurse.
    level = [value]
    for _ in range(depth):
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) in _CONTAINERS
        ]
        if not level:
            return False
    return True

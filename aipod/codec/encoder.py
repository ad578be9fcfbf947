"""Values to a msgpack body and raw segments, with everything that cannot travel refused here, on the sending side."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgpack
import numpy as np

from aipod.codec.arrays import dump_array, dump_scalar
from aipod.codec.limits import Limits
from aipod.codec.places import Place, walk, written
from aipod.errors import SerializationError

__all__ = ["ARRAY", "DATETIME", "LARGE_BYTES", "SCALAR", "SEGMENT_FROM_BYTES", "pack"]

# The extension types of msgpack that stand for what it has no type for.
LARGE_BYTES = 1
ARRAY = 2
SCALAR = 3
DATETIME = 4

SEGMENT_FROM_BYTES = 1024

_LEAVES = frozenset({type(None), bool, int, float, str})
_TEXT = frozenset({str})
_LIMITS = Limits()
_CARRIED = "None, bool, int, float, str, bytes, list, dict, datetime, or numpy arrays and scalars"
_ADVICE = {
    "set": "make it a list",
    "frozenset": "make it a list",
    "generator": "make it a list",
    "complex": "make it a numpy.complex128",
    "Decimal": "make it a str or a float",
    "date": "make it a datetime.datetime or a str",
    "time": "make it a str",
    "timedelta": "make it a float of seconds or a numpy.timedelta64",
    "Timestamp": "make it a datetime.datetime or a numpy.datetime64",
    "DataFrame": "send its to_numpy()",
    "Series": "send its to_numpy()",
    "Tensor": "send its numpy()",
}


def pack(value: object, root: str) -> tuple[bytes, list[memoryview]]:
    """Turn a value into msgpack, and the segments that its extension types refer to.

    The segments are views of the value's own memory: it must not change before they were copied.

    Args:
        value: What to send.
        root: What the value is called where an error names a place in it: ``kwargs`` or ``result``.

    Raises:
        SerializationError: Something in it cannot travel.
    """
    encoder = _Encoder()
    tree = encoder.prepare(value, (None, root), 1)
    if len(encoder.segments) > _LIMITS.max_segments:
        raise SerializationError(
            root, f"{len(encoder.segments)} arrays and large bytes are more than {_LIMITS.max_segments}; stack them"
        )
    try:
        return msgpack.packb(tree), encoder.segments
    except (OverflowError, UnicodeEncodeError, ValueError) as error:
        raise _blame(tree, root, error) from None


class _Encoder:
    """One value on its way into msgpack's types."""

    __slots__ = ("segments",)

    def __init__(self) -> None:
        self.segments: list[memoryview] = []

    def prepare(self, value: Any, place: Place, depth: int) -> Any:
        """Return the value in types that msgpack knows; a container of plain leaves is returned as it is, unread."""
        kind = type(value)
        if kind in _LEAVES:
            return value
        if kind is dict:
            return self._mapping(value, place, depth)
        if kind is list or kind is tuple:
            return self._sequence(value, place, depth)
        if kind is bytes and len(value) < SEGMENT_FROM_BYTES:
            return value
        try:
            return self._other(value, place, depth)
        except ValueError as error:
            raise SerializationError(written(place), str(error)) from None

    def _mapping(self, value: dict[Any, Any], place: Place, depth: int) -> Any:
        if depth > _LIMITS.max_depth:
            raise _too_deep(place)
        if not _TEXT.issuperset(map(type, value)):
            value = _with_plain_keys(value, place)
        if _LEAVES.issuperset(map(type, value.values())):
            return value
        return {key: self.prepare(item, (place, key), depth + 1) for key, item in value.items()}

    def _sequence(self, value: list[Any] | tuple[Any, ...], place: Place, depth: int) -> Any:
        if depth > _LIMITS.max_depth:
            raise _too_deep(place)
        if _LEAVES.issuperset(map(type, value)):
            return value
        return [self.prepare(item, (place, index), depth + 1) for index, item in enumerate(value)]

    def _other(self, value: Any, place: Place, depth: int) -> Any:
        if isinstance(value, np.ndarray):
            header, data = dump_array(value, len(self.segments))
            return self._segment(data, ARRAY, header)
        # Before the builtins, since some of numpy's scalars are subclasses of them.
        if isinstance(value, np.generic):
            return msgpack.ExtType(SCALAR, msgpack.packb(dump_scalar(value)))
        if isinstance(value, (bytes, bytearray, memoryview)):
            return self._bytes(value)
        if type(value) is datetime:
            return msgpack.ExtType(DATETIME, _iso(value))
        return self._subclass(value, place, depth)

    def _subclass(self, value: Any, place: Place, depth: int) -> Any:
        # The base's own methods, whatever the subclass made of them.
        if isinstance(value, int):
            return int.__index__(value)
        if isinstance(value, float):
            return float.__float__(value)
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, dict):
            return self._mapping(dict(value), place, depth)
        if isinstance(value, (list, tuple)):
            return self._sequence(list(value), place, depth)
        raise ValueError(_refusal(value))

    def _bytes(self, value: bytes | bytearray | memoryview) -> Any:
        view = memoryview(value)
        if view.nbytes < SEGMENT_FROM_BYTES:
            return view.tobytes()
        # Only a contiguous view of one native type can be seen as bytes where it lies.
        view = view.cast("B") if view.c_contiguous and len(view.format) == 1 else memoryview(view.tobytes())
        return self._segment(view, LARGE_BYTES, len(self.segments))

    def _segment(self, data: memoryview, code: int, header: object) -> Any:
        reference = msgpack.ExtType(code, msgpack.packb(header))
        self.segments.append(data)
        return reference


def _with_plain_keys(value: dict[Any, Any], place: Place) -> dict[str, Any]:
    for key in value:
        if not isinstance(key, str):
            raise SerializationError(
                written(place), f"a key of type {type(key).__name__} is not supported; make every key a str"
            )
    plain = {str.__str__(key): item for key, item in value.items()}
    if len(plain) != len(value):
        raise SerializationError(written(place), "two of its keys are the same text; rename one")
    return plain


def _iso(value: datetime) -> bytes:
    try:
        return value.isoformat().encode()
    except Exception as error:  # a tzinfo is the caller's code and raises what it likes
        raise ValueError(f"its time zone does not work ({type(error).__name__}); use one of zoneinfo") from None


def _refusal(value: object) -> str:
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"type {name} is not supported; {_ADVICE.get(kind.__name__, f'send {_CARRIED}')}"


def _too_deep(place: Place) -> SerializationError:
    while place[0] is not None:
        place = place[0]
    return SerializationError(
        place[1],
        f"its lists and dicts are nested more than {_LIMITS.max_depth} deep; flatten it, or is it part of itself?",
    )


def _blame(tree: object, root: str, error: Exception) -> SerializationError:
    """Find what msgpack refused; slow, and only here."""
    for place, value in walk(tree, (None, root)):
        for leaf in (*value,) if type(value) is dict else (value,):
            if type(leaf) is int and not -(2**63) <= leaf < 2**64:
                problem = "an int of more than 64 bits is not supported; send a float or a str"
                return SerializationError(written(place), problem)
            if type(leaf) is str and not _is_unicode(leaf):
                problem = "a str with half a surrogate pair is not supported; send bytes, or replace what is broken"
                return SerializationError(written(place), problem)
    return SerializationError(root, f"it cannot be packed ({error}); send less, or in parts")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

"""One field of all messages of a window, as one array."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from aipod.errors import InvalidArgument
from aipod.stream.errors import Unreadable
from aipod.stream.tasks.fields import getter

__all__ = ["Column"]

_NUMBERS = "biufc"
# What arrays are made of that can travel: numbers, text, and numpy's times.
_KINDS = frozenset(_NUMBERS + "UMm")
_SCALARS = frozenset({bool, int, float})

Array = np.ndarray[Any, Any]


class Column:
    """Turns a window's values into one array.

    Numbers make a 1-D array of numpy's own choice of dtype: int64, float64, or bool. Lists and arrays of one shape are
    stacked, the messages first.

    Args:
        name: The model's argument.
        path: The field; ``.`` is the value itself.

    Raises:
        ConfigError: That is no path.
    """

    def __init__(self, name: str, path: str) -> None:
        self._name = name
        self._path = path
        self._get = getter(path)

    def take(self, values: Sequence[Any]) -> Array:
        """Make the array.

        Raises:
            InvalidArgument: A message does not fit; it is named, counted from 0.
        """
        found: list[Any] = []
        get = self._get
        try:
            for value in values:
                found.append(get(value))
        except Unreadable as error:
            raise self._wrong(len(found), len(values), str(error)) from None
        if _SCALARS.issuperset(map(type, found)):
            array = _array(found)
            if array is not None and array.dtype.kind in _NUMBERS:
                return array
        return self._stack(found)

    def _stack(self, found: list[Any]) -> Array:
        arrays = []
        for at, value in enumerate(found):
            array = _array(value)
            if array is None or array.dtype.kind not in _KINDS or (array.dtype.kind == "U" and not _is_text(value)):
                raise self._wrong(at, len(found), f"{self._path!r} is {_what(value)}, which is no part of an array")
            arrays.append(array)
        # What most messages have is right: one odd message is to be found, wherever it is.
        sorts = [(_sort(array), array.shape) for array in arrays]
        [(usual, _)] = Counter(sorts).most_common(1)
        for at, sort in enumerate(sorts):
            if sort != usual:
                raise self._wrong(at, len(found), f"{self._path!r} is {_said(*sort)}; the others have {_said(*usual)}")
        return np.stack(arrays)

    def _wrong(self, at: int, count: int, problem: str) -> InvalidArgument:
        return InvalidArgument(f"column {self._name!r}: message {at} of {count}: {problem}")


def _array(value: Any) -> Array | None:
    try:
        return np.asarray(value)
    # Ragged, too deep, a text with half a character, an integer out of numpy's range.
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None


def _is_text(value: Any) -> bool:
    """Whether all of it is text: numpy makes texts of numbers that stand among texts."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_text, value))
    return isinstance(value, (str, np.ndarray))


def _sort(array: Array) -> str:
    kind = array.dtype.kind
    return "number" if kind in _NUMBERS else "text" if kind == "U" else array.dtype.name


def _what(value: Any) -> str:
    if value is None:
        return "null"
    return "a list of unlike things" if isinstance(value, (list, tuple)) else type(value).__name__


def _said(sort: str, shape: tuple[int, ...]) -> str:
    return f"{sort}s of shape {list(shape)}" if shape else f"a {sort}"

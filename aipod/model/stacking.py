"""The inputs of several calls as one stack, and the outputs of a stack as those of its calls.

Arrays, numbers and lists of numbers are stacked along a new first axis. Everything else (text, bytes, None, dates,
dictionaries, lists of those) is handed over as a list with one item per call.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeGuard

import numpy

from aipod.errors import InvalidArgument

__all__ = ["arrays", "signature", "split", "stack"]

# bool, signed and unsigned integers, floats, complex numbers
_NUMBERS = "biufc"


def arrays(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of one call, with an array for each that can be stacked.

    Raises:
        InvalidArgument: A list is no rectangle, so that no array can hold it.
    """
    return {name: _array(name, value) for name, value in kwargs.items()}


def signature(values: Mapping[str, Any], any_shape: bool) -> Hashable:
    """What calls have in common that may share a stack: names, dtypes and shapes, or with ``any_shape`` their axes.

    Dtypes count although numpy could unite them: no caller's result may depend on who else is in the stack.
    """
    return tuple(
        (name, value.dtype, value.ndim if any_shape else value.shape) if _is_array(value) else (name,)
        for name, value in sorted(values.items())
    )


def stack(inputs: Sequence[Mapping[str, Any]], pad_value: float = 0) -> dict[str, Any]:
    """Calls of one signature as one dictionary of arrays, the calls along the first axis, and of lists.

    Where shapes differ, each array is filled up behind its end with ``pad_value``, to the largest along every axis.
    """
    columns = {name: [values[name] for values in inputs] for name in inputs[0]}
    return {name: _stacked(column, pad_value) if _is_array(column[0]) else column for name, column in columns.items()}


def split(outputs: object, count: int) -> list[Any] | None:
    """One output for each of ``count`` calls, or None if there are not as many.

    An array or a list has one along its first axis; in a dictionary or a tuple every value has one.
    """
    if isinstance(outputs, Mapping):
        rows = _rows(list(outputs.values()), count)
        return None if rows is None else [dict(zip(outputs, row, strict=True)) for row in rows]
    if isinstance(outputs, tuple):
        return _rows(outputs, count)
    if _is_array(outputs) and outputs.ndim == 0:
        return None
    if isinstance(outputs, list) or _is_array(outputs):
        return list(outputs) if len(outputs) == count else None
    return None


def _rows(columns: Sequence[object], count: int) -> list[Any] | None:
    parts = [split(column, count) for column in columns]
    whole = [part for part in parts if part is not None]
    return list(zip(*whole, strict=True)) if whole and len(whole) == len(parts) else None


def _is_array(value: object) -> TypeGuard[numpy.ndarray[Any, Any]]:
    return isinstance(value, numpy.ndarray)


def _array(name: str, value: Any) -> Any:
    if not isinstance(value, (int, float, complex, numpy.generic, list, tuple)):
        return value
    try:
        array = numpy.asarray(value)
    except ValueError:
        raise InvalidArgument(f"{name}: its rows differ in length or depth; send rows of one length") from None
    return array if array.dtype.kind in _NUMBERS else value


def _stacked(column: Sequence[Any], pad_value: float) -> Any:
    shapes = {array.shape for array in column}
    if len(shapes) == 1:
        return numpy.stack(column)
    largest = tuple(map(max, zip(*shapes, strict=True)))
    padded = numpy.full((len(column), *largest), pad_value, column[0].dtype)
    for row, array in zip(padded, column, strict=True):
        row[tuple(map(slice, array.shape))] = array
    return padded

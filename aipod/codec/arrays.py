"""numpy arrays and scalars: a header of plain values, and the elements' memory as it is.

An array is ``[segment, dtype, order, shape]``: the index of the segment that holds its elements, a descriptor of
:mod:`aipod.codec.dtypes`, ``"C"`` or ``"F"`` for the order of its elements in memory, and the lengths of its axes.
A scalar is ``[dtype, data]`` with the bytes of its one element; ``numpy.str_`` is ``["U", text]`` and ``numpy.bytes_``
is ``["S", bytes]``.

Problems are ValueErrors whose text our callers put a place to.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from aipod.codec.dtypes import MAX_DIMENSIONS, DType, describe, resolve

__all__ = ["dump_array", "dump_scalar", "load_array", "load_scalar"]

# What a subclass adds to an array (a mask, a unit, another meaning of ``*``) would be lost on the way without a word.
_PLAIN_ARRAYS = (np.ndarray, np.memmap)
_LAST_CODE_POINT = 0x10FFFF
_LONGEST_TEXT = 80

# Thousands of fields over the same bytes would have them looked at thousands of times.
_MAX_OVERLAP = 4


def dump_array(array: np.ndarray[Any, Any], segment: int) -> tuple[list[Any], memoryview]:
    """Return an array's header, and its elements; they are a view unless they lay scattered.

    Raises:
        ValueError: It cannot travel as what it is.
    """
    if type(array) not in _PLAIN_ARRAYS:
        raise ValueError(
            f"type {_name(array)} would lose its meaning; send numpy.asarray(…) of it, and a mask by itself"
        )
    descriptor = describe(array.dtype)
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    flat = np.ascontiguousarray(array.T if order == "F" else array).reshape(-1)
    return [segment, descriptor, order, list(array.shape)], flat.view(np.uint8).data


def load_array(
    header: Any, segments: Sequence[memoryview | None], is_shared: bool = False
) -> tuple[int, np.ndarray[Any, Any]]:
    """Return the index of an array's segment, and a read-only view of it.

    It is a copy only where the segment does not lie at an address that the dtype can be read from; or where it is
    shared, and its content is to be looked at, which must not change behind the look.

    Raises:
        ValueError: The header makes no sense, or does not fit its segment.
    """
    match header:
        case [index, descriptor, ("C" | "F") as order, list(shape)]:
            segment = pick(index, segments)
        case _:
            raise ValueError("an array is not [segment, dtype, order, shape]")
    dtype = resolve(descriptor)
    if len(shape) > MAX_DIMENSIONS or any(type(length) is not int or length < 0 for length in shape):
        raise ValueError(f"an array's shape is not a list of at most {MAX_DIMENSIONS} lengths")
    if prod(shape) * dtype.itemsize != len(segment):
        raise ValueError(
            f"an array of shape {_short(shape)} of {dtype.itemsize} bytes each does not fit its {len(segment)} bytes"
        )
    return index, _view(shape, dtype, segment, order, is_shared)


def dump_scalar(scalar: np.generic) -> list[Any]:
    """Return what :func:`load_scalar` makes an equal scalar of.

    Raises:
        ValueError: It cannot travel as what it is.
    """
    # Their dtypes have the length in them, which cannot say "" nor trailing zeros.
    if isinstance(scalar, np.str_):
        return ["U", str(scalar)]
    if isinstance(scalar, np.bytes_):
        return ["S", bytes(scalar)]
    return [describe(scalar.dtype), scalar.tobytes()]


def load_scalar(header: Any) -> Any:
    """Return the scalar.

    Raises:
        ValueError: The header makes no sense.
    """
    match header:
        case ["U", str(text)]:
            return np.str_(text)
        case ["S", bytes(text)]:
            return np.bytes_(text)
        case [descriptor, bytes(data)]:
            dtype = resolve(descriptor)
        case _:
            raise ValueError("a numpy scalar is not [dtype, bytes]")
    if len(data) != dtype.itemsize:
        raise ValueError(f"a numpy scalar of {dtype.itemsize} bytes comes with {len(data)}")
    return _view([], dtype, memoryview(data), "C")[()]


def pick(index: object, segments: Sequence[memoryview | None]) -> memoryview:
    """Return a segment that nothing referred to before.

    Raises:
        ValueError: There is none of that index.
    """
    if type(index) is not int or not 0 <= index < len(segments):
        raise ValueError(f"a reference to segment {_short(index)} where the message has {len(segments)}")
    segment = segments[index]
    if segment is None:
        raise ValueError(f"segment {index} is referred to twice")
    return segment


def _view(
    shape: list[int], dtype: DType, data: memoryview, order: Any, is_shared: bool = False
) -> np.ndarray[Any, Any]:
    try:
        array: np.ndarray[Any, Any] = np.ndarray(shape, dtype, data, order=order)
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError(f"an array of shape {_short(shape)} makes no sense to numpy ({error})") from None
    if not array.flags.aligned or (is_shared and dtype.kind in "bUV"):
        array = array.copy(order="K")
        array.flags.writeable = False
    if dtype.kind in "bUV":
        if _suspect_bytes(dtype) > _MAX_OVERLAP * dtype.itemsize:
            raise ValueError("the fields of a structured dtype lie over each other too often; send them one by one")
        _check_content(array.reshape(-1, order="A"))
    return array


def _suspect_bytes(dtype: DType) -> int:
    """Count the bytes of one element that have to be looked at, as often as fields lie over them."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return prod(shape) * _suspect_bytes(base)
    if dtype.names is not None:
        return sum(_suspect_bytes(dtype[name]) for name in dtype.names)
    return dtype.itemsize if dtype.kind in "bU" else 0


def _check_content(array: np.ndarray[Any, Any]) -> None:
    """Refuse, in an array of one dimension, the bit patterns that numpy takes for granted it never sees."""
    if not array.size:
        return
    dtype = array.dtype
    if dtype.names is not None:
        for name in dtype.names:
            if _suspect_bytes(dtype[name]):
                _check_content(array[name].reshape(-1))
    elif dtype.kind == "b" and array.view(np.uint8).max() > 1:
        raise ValueError("a boolean array has bytes other than 0 and 1")
    elif dtype.kind == "U" and _code_points(array).max() > _LAST_CODE_POINT:
        raise ValueError("an array of text has code points that Unicode has not")


def _code_points(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    # A last axis of length 1 can be split whatever the stride of the other.
    return array[:, np.newaxis].view(np.dtype("u4").newbyteorder(array.dtype.byteorder))


def _name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…"

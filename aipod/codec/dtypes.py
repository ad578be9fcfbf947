"""numpy dtypes by name: what a message may say about an array's elements, and nothing else.

A descriptor is a string, or a list for a structured dtype:

* ``"|b1"``, ``"<i4"``, ``">f8"``, ``"<c16"`` …: byte order, kind and bytes, as in numpy's array interface.
* ``"|S5"``, ``"<U5"``, ``"|V5"``: bytes, text of UCS-4 code points, and raw memory, of a fixed length of at least 1.
* ``"<M8[25s]"``, ``"<m8[ns]"``, ``"<M8"``: instants and durations with their unit, as int64; the smallest one is NaT.
* ``"<f16:63"``: a C long double, with the bits of its mantissa; only a platform with the same one can read it.
* ``"bfloat16"``, ``"float8_e4m3fn"``, ``"int4"`` …: those of the package ml_dtypes, in little-endian byte order.
* ``[itemsize, [[name, offset, descriptor, shape], …]]``: structured; ``shape`` is ``[]`` but for a subarray.

No descriptor that arrives reaches ``numpy.dtype`` before it was matched here: numpy's own parser knows dtypes of Python
objects, and takes a fifth of a second for a long enough string. Problems are ValueErrors whose text our callers put a
place to.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

__all__ = ["MAX_DIMENSIONS", "DType", "describe", "resolve"]

DType = np.dtype[Any]

# numpy 2's; an older one refuses more than 32 itself.
MAX_DIMENSIONS = 64

_NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
_PLAIN: dict[str, DType] = {
    dtype.str: dtype
    for code in _NUMBERS
    for dtype in (np.dtype(code).newbyteorder("<"), np.dtype(code).newbyteorder(">"))
}
_SIZED = re.compile(r"\|[SV]([1-9][0-9]{0,9})|[<>]U([1-9][0-9]{0,8})")
_TIME = re.compile(r"[<>][Mm]8(\[([1-9][0-9]{0,9})?(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?")
_LONG = re.compile(r"[<>](f|c)[0-9]{1,2}:[0-9]{1,3}")
_LONGEST_NAME = 32
_LONGEST_TEXT = 80

# Named one by one, since a name that arrives becomes an attribute of that module.
_ML_DTYPES = frozenset(
    {"bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz"}
    | {"float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn"}
    | {"int1", "int2", "int4", "uint1", "uint2", "uint4", "complex32", "bcomplex32"}
)

_MAX_FIELDS = 4096
_MAX_NESTING = 16
_MAX_ITEMSIZE = 2**31 - 1


def describe(dtype: DType, nesting: int = 0) -> str | list[Any]:
    """Return the descriptor that :func:`resolve` makes an equal dtype of.

    Raises:
        ValueError: There is none; the text says why.
    """
    text = dtype.str
    if text in _PLAIN and _PLAIN[text] == dtype:
        return text
    if dtype.hasobject or dtype.kind == "T":
        raise ValueError(f"dtype {_short(dtype)} holds objects; use one of numbers, or of text of a fixed length ('U')")
    if not dtype.itemsize:
        raise ValueError(f"dtype {_short(dtype)} has no bytes; use one of at least one byte")
    if dtype.names is not None:
        return _describe_fields(dtype, nesting)
    if dtype.type.__module__ == "ml_dtypes":
        return _describe_ml_dtype(dtype)
    if dtype.type in (np.longdouble, np.clongdouble):
        return f"{text}:{np.finfo(np.longdouble).nmant}"
    if (dtype.type is np.void or dtype.kind in "SUMm") and (_SIZED.fullmatch(text) or _TIME.fullmatch(text)):
        return text
    raise ValueError(f"dtype {_short(dtype)} is not supported; use one of numpy's own")


def _short(dtype: DType) -> str:
    text = str(dtype)
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…"


def resolve(descriptor: object, nesting: int = 0) -> DType:
    """Return the dtype for a descriptor that may have been written by anybody.

    Raises:
        ValueError: It is none, or this machine has no such type; the text says which.
    """
    if isinstance(descriptor, list):
        return _resolve_fields(descriptor, nesting)
    if not isinstance(descriptor, str):
        raise ValueError("a dtype is neither a string nor a list")
    if descriptor in _PLAIN:
        return _PLAIN[descriptor]
    if descriptor in _ML_DTYPES:
        return _resolve_ml_dtype(descriptor)
    if len(descriptor) <= _LONGEST_NAME:
        if sized := _SIZED.fullmatch(descriptor):
            return _resolve_sized(descriptor, int(sized[1] or 0) + 4 * int(sized[2] or 0))
        if _TIME.fullmatch(descriptor):
            return _checked(descriptor)
        if _LONG.fullmatch(descriptor):
            return _resolve_long_double(descriptor)
    raise ValueError(f"there is no dtype {descriptor[:_LONGEST_NAME]!r}")


def _checked(definition: Any) -> DType:
    """Ask numpy for a dtype whose definition was matched; what remains for it to refuse are sizes and names."""
    try:
        dtype: DType = np.dtype(definition)
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError(f"a dtype makes no sense to numpy ({error})") from None
    return dtype


def _resolve_sized(descriptor: str, itemsize: int) -> DType:
    # numpy 1.26 makes something else of a size that it cannot hold.
    if itemsize > _MAX_ITEMSIZE:
        raise ValueError(f"dtype {descriptor!r} is larger than {_MAX_ITEMSIZE} bytes")
    return _checked(descriptor)


def _resolve_long_double(descriptor: str) -> DType:
    code, mantissa = descriptor.split(":")
    for native in (np.dtype(np.longdouble), np.dtype(np.clongdouble)):
        for dtype in (native.newbyteorder("<"), native.newbyteorder(">")):
            if dtype.str == code and mantissa == str(np.finfo(np.longdouble).nmant):
                return dtype
    raise ValueError(f"{descriptor!r} is the long double of another platform; send float64 or complex128")


def _describe_ml_dtype(dtype: DType) -> str:
    if dtype.name not in _ML_DTYPES:
        raise ValueError(f"dtype {dtype} of ml_dtypes is not known here; send a view as unsigned integers")
    if not _is_little(dtype):
        raise ValueError(f"dtype {dtype} in big-endian byte order is not supported; use its little-endian one")
    return dtype.name


def _resolve_ml_dtype(name: str) -> DType:
    try:
        dtype: DType = np.dtype(getattr(importlib.import_module("ml_dtypes"), name))
    except ImportError:
        raise ValueError(f"dtype {name!r} needs the package ml_dtypes, which is not installed here") from None
    except AttributeError:
        raise ValueError(f"dtype {name!r} needs a newer ml_dtypes than is installed here") from None
    if not _is_little(dtype):
        raise ValueError(f"dtype {name!r} cannot be read on a big-endian machine; send float32")
    return dtype


def _is_little(dtype: DType) -> bool:
    order = dtype.byteorder
    return dtype.itemsize == 1 or order == "<" or (order in "=|" and sys.byteorder == "little")


def _describe_fields(dtype: DType, nesting: int) -> list[Any]:
    if nesting >= _MAX_NESTING:
        raise ValueError(f"a structured dtype is nested more than {_MAX_NESTING} deep; flatten it")
    if len(dtype.names or ()) > _MAX_FIELDS:
        raise ValueError(f"a structured dtype has more than {_MAX_FIELDS} fields; use a subarray")
    known: Mapping[str, Any] = dtype.fields or {}
    fields = []
    for name in dtype.names or ():
        field, offset, *title = known[name]
        if title:
            raise ValueError(f"field {name!r} of a structured dtype has a title; rename it without one")
        base, shape = field.subdtype or (field, ())
        if 0 in shape:
            raise ValueError(f"field {name!r} of a structured dtype has no bytes; leave it out")
        fields.append([name, offset, describe(base, nesting + 1), list(shape)])
    return [dtype.itemsize, fields]


def _resolve_fields(descriptor: list[Any], nesting: int) -> DType:
    if nesting >= _MAX_NESTING:
        raise ValueError(f"a structured dtype is nested more than {_MAX_NESTING} deep")
    match descriptor:
        case [int(itemsize), list(fields)] if 1 <= itemsize <= _MAX_ITEMSIZE and len(fields) <= _MAX_FIELDS:
            pass
        case _:
            raise ValueError("a structured dtype is not [itemsize, fields], or has an impossible size")
    names, formats, offsets = [], [], []
    for field in fields:
        match field:
            case [str(name), int(offset), base, list(shape)] if offset >= 0:
                dtype = resolve(base, nesting + 1)
            case _:
                raise ValueError("a field of a structured dtype is not [name, offset, dtype, shape]")
        if len(shape) > MAX_DIMENSIONS or any(type(length) is not int or length < 1 for length in shape):
            raise ValueError(f"field {name[:_LONGEST_NAME]!r} of a structured dtype has an impossible shape")
        if offset + dtype.itemsize * prod(shape) > itemsize:
            raise ValueError(f"field {name[:_LONGEST_NAME]!r} of a structured dtype ends behind its item")
        names.append(name)
        formats.append((dtype, tuple(shape)) if shape else dtype)
        offsets.append(offset)
    return _checked({"names": names, "formats": formats, "offsets": offsets, "itemsize": itemsize})

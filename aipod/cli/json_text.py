"""A model's answer as JSON, for people and for ``jq``."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import Any

import numpy as np

__all__ = ["to_json"]

# The kinds of elements that tolist() turns into what JSON has; a long double it leaves as it is.
_PLAIN_KINDS = frozenset("biufU")


def to_json(value: object) -> str:
    """One line of JSON for anything that the codec carries.

    Arrays become nested lists and their records objects, bytes ``{"base64": …}``, times ISO 8601, complex numbers
    ``[real, imaginary]``, and the numbers that JSON lacks ``NaN``, ``Infinity`` and ``-Infinity``.
    """
    return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: Any) -> Any:
    # numpy's before Python's, since some of its scalars are subclasses of those.
    if isinstance(value, np.ndarray):
        return _plain_array(value)
    if isinstance(value, np.generic):
        return _plain(_unboxed(value))
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return _plain_leaf(value)


def _plain_leaf(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, complex):
        return [value.real, value.imag]
    return value


def _plain_array(array: Any) -> Any:
    if array.dtype.kind in _PLAIN_KINDS and array.dtype.type is not np.longdouble:
        return array.tolist()
    return [_plain(item) for item in array] if array.ndim else _plain(array[()])


def _unboxed(scalar: Any) -> Any:
    """A scalar of numpy's as one of Python's, a record as a dictionary."""
    if scalar.dtype.names is not None:
        return {name: scalar[name] for name in scalar.dtype.names}
    if isinstance(scalar, np.datetime64):
        # Without a unit it is no time, but a number.
        dated = np.isnat(scalar) or np.datetime_data(scalar.dtype)[0] != "generic"
        return str(scalar) if dated else int(scalar.astype(np.int64))
    if isinstance(scalar, np.timedelta64):
        return str(scalar)
    if isinstance(scalar, np.longdouble):
        return float(scalar)
    if isinstance(scalar, np.clongdouble):
        return complex(scalar)
    return scalar.item()

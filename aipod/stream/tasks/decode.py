"""Payloads to values.

=====================  =================================================================================================
``json``               JSON in UTF-8, UTF-16 or UTF-32; NaN and infinities pass
``msgpack``            strict: one value, maps with texts as keys, no extension types but timestamps
``raw``                the bytes themselves
``npy``                one array in numpy's own format, without pickle; a read-only view of the payload
``module:function``    what the user's function makes of the bytes
=====================  =================================================================================================

A decoder raises :class:`Unreadable` and nothing else. It runs on the event loop, for every message: it must be cheap,
and it must not block.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np

from aipod.errors import ConfigError
from aipod.stream.errors import Unreadable
from aipod.stream.tasks import functions
from aipod.stream.tasks.items import nearest

__all__ = ["WHOLE", "Decoder", "decoder"]

Decoder = Callable[[bytes], Any]

# Decoded, many small values take up to 90 times their bytes; arrays and raw bytes take none.
MAX_NESTED_BYTES = 8 << 20
# Formats whose values have no fields.
WHOLE = ("raw", "npy")
_MAGIC = b"\x93NUMPY"
_SCAN = json.JSONDecoder().raw_decode


def decoder(name: str) -> Decoder:
    """Build a decoder.

    Raises:
        ConfigError: There is none of that name.
    """
    if name in _DECODERS:
        return _DECODERS[name]
    if ":" in name:
        return functions.for_messages(name)
    raise ConfigError([f"there is no format {name!r}; {nearest(name, _DECODERS)}, or write module:function"])


def _json(data: bytes) -> Any:
    if len(data) > MAX_NESTED_BYTES:
        raise _too_large(data)
    try:
        # The usual payload: UTF-8 with nothing around it. loads() spends more on finding that out than on the value.
        text = str(data, "utf-8")
        value, end = _SCAN(text)
        if end == len(text):
            return value
    except (ValueError, RecursionError):
        pass
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"the payload is no JSON: {_reason(error, data)}") from None


def _msgpack(data: bytes) -> Any:
    if len(data) > MAX_NESTED_BYTES:
        raise _too_large(data)
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=True, timestamp=3, ext_hook=_no_extension)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise Unreadable(f"the payload is no msgpack: {_reason(error, data)}") from None


def _no_extension(code: int, data: bytes) -> Any:
    raise ValueError(f"extension type {code} is not supported")


def _raw(data: bytes) -> Any:
    return data


def _npy(data: bytes) -> Any:
    try:
        return _array(data)
    # The header is a Python literal, which can fail in as many ways as there are literals.
    except Exception as error:
        raise Unreadable(f"the payload is no .npy array: {_reason(error, data)}") from None


def _array(data: bytes) -> np.ndarray[Any, Any]:
    """Read by hand what numpy would: it would make room for whatever the header claims before it looks for it."""
    if not data.startswith(_MAGIC):
        raise ValueError("it does not begin as one")
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"version {version[0]}.{version[1]} of the format is not supported")
    shape, fortran, dtype = _HEADERS[version](file)
    if dtype.hasobject or dtype.kind == "V":
        raise ValueError("its elements are no plain numbers, texts or times")
    count, rest = math.prod(shape), len(data) - file.tell()
    if any(length < 0 for length in shape) or count * dtype.itemsize != rest:
        raise ValueError(f"shape {shape} of {dtype} does not fit {rest} bytes")
    if not rest:
        return np.empty(shape, dtype)
    flat = np.frombuffer(data, dtype, count, file.tell())
    return flat.reshape(shape, order="F" if fortran else "C")


def _too_large(data: bytes) -> Unreadable:
    return Unreadable(
        f"the payload has {len(data)} bytes, and at most {MAX_NESTED_BYTES} are decoded; send arrays as npy"
    )


def _reason(error: BaseException, data: bytes) -> str:
    if not data:
        return "it is empty"
    return "it is nested too deeply" if isinstance(error, RecursionError) else (str(error) or type(error).__name__)


_HEADERS: dict[tuple[int, int], Callable[..., Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_DECODERS: dict[str, Decoder] = {"json": _json, "msgpack": _msgpack, "raw": _raw, "npy": _npy}

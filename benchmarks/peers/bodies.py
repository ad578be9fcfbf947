"""Bodies for servers that leave them to their users: JSON for small values, raw bytes for arrays.

An array travels as its bytes, and its sum behind it as eight more: neither as JSON nor as base64.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.order import Order

__all__ = ["pack_sum", "sides", "unpack_array"]

_SUM = struct.Struct("<d")


def unpack_array(body: bytes) -> Any:
    return np.frombuffer(body, dtype=np.float32)


def pack_sum(data: Any, total: float) -> bytes:
    return b"".join((data.data, _SUM.pack(total)))


def _unpack_sum(body: bytes) -> tuple[Any, float]:
    (total,) = _SUM.unpack_from(body, len(body) - _SUM.size)
    return np.frombuffer(body, dtype=np.float32, count=(len(body) - _SUM.size) // 4), total


def sides(order: Order, listed: bool = False) -> tuple[Callable[[], bytes], Callable[[bytes], Any]]:
    """What makes a body, and what takes the answer from one.

    Args:
        order: What to ask.
        listed: Whether a server with batches wants its number in a list, and answers with one.
    """
    kwargs = order.question()
    if order.work == "sum":
        return kwargs["data"].tobytes, _unpack_sum
    if order.work == "batch" and listed:
        return (lambda: json.dumps({"x": [kwargs["x"]]}).encode()), lambda body: json.loads(body)[0]
    return (lambda: json.dumps(kwargs).encode()), json.loads

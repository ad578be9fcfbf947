"""What the servers are asked, and what is right as an answer. Needs nothing but numpy: every peer's environment has it.

========  ==============================================  ========================================
work      question                                        answer
========  ==============================================  ========================================
``echo``  three small values                              all of them
``tiny``  the same                                        the first
``batch`` one number, of a model that runs batches        the number
``array`` a float32 array                                 the array
``sum``   the same                                        the array and its sum
``none``  nothing                                         a number
========  ==============================================  ========================================
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

TINY = {"x": 1.5, "name": "abc", "values": [1, 2, 3]}
BATCH_SIZE = 32
_BATCH_SECONDS, _ITEM_SECONDS = 0.005, 0.0001
BATCH_SECONDS = _BATCH_SECONDS + BATCH_SIZE * _ITEM_SECONDS


def predict(x: float, name: str, values: list[int]) -> float:
    """The model of ``tiny``."""
    return x


def predict_batch(numbers: Sequence[float]) -> list[float]:
    """The model of ``batch``: it takes its time like a device, which leaves the interpreter to others."""
    time.sleep(_BATCH_SECONDS + len(numbers) * _ITEM_SECONDS)
    return list(numbers)


def predict_sum(data: Any) -> tuple[Any, float]:
    """The model of ``sum``."""
    return data, float(data.sum())


def question(work: str, array_bytes: int) -> dict[str, Any]:
    """The arguments of every call."""
    if work in ("array", "sum"):
        return {"data": np.random.default_rng(1).random(array_bytes // 4, dtype=np.float32)}
    if work == "none":
        return {}
    return {"x": TINY["x"]} if work == "batch" else TINY


def is_right(work: str, asked: dict[str, Any], answer: Any) -> bool:
    """Whether a server has done the work. A bare one hands bytes back, which say nothing."""
    if isinstance(answer, bytes):
        return bool(answer)
    if work == "none":
        return isinstance(answer, float)
    if work in ("tiny", "batch"):
        return bool(answer == asked["x"])
    if work == "echo":
        return bool(answer == asked)
    data, total = answer if work == "sum" else (answer, asked["data"].sum())
    return bool(np.isclose(total, asked["data"].sum(), rtol=1e-3)) and np.array_equal(data, asked["data"])

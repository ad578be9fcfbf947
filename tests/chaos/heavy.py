"""Serves a model that takes and makes arrays of any size."""

from __future__ import annotations

from typing import Any

import numpy as np

from aipod.model import AIModelBase
from aipod.rpc.server import serve

STEP = 1 << 20


class Heavy(AIModelBase):
    def predict(self, x: Any = None, size: int = 0) -> Any:
        return samples(x) if x is not None else pattern(size)


def pattern(size: int) -> np.ndarray[Any, Any]:
    """So many bytes, each megabyte of which says which one it is."""
    array = np.zeros(size, np.uint8)
    starts = array[: size // STEP * STEP].reshape(-1, STEP)
    starts[:, :8].view(np.uint64)[:, 0] = np.arange(1, len(starts) + 1)
    array[-1] = 255
    return array


def samples(array: np.ndarray[Any, Any]) -> list[int]:
    """The megabytes' numbers, the last byte, and the sum of a few bytes between."""
    starts = array[: len(array) // STEP * STEP].reshape(-1, STEP)
    return [*starts[:, :8].view(np.uint64)[:, 0].tolist(), int(array[-1]), int(array[8::4099].sum())]


if __name__ == "__main__":
    serve(Heavy)

"""Anomalies in what a pump's sensors say: how far is a window of readings from what healthy pumps do?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from aipod.errors import InvalidArgument
from aipod.model import AIModelBase

# Between readings that are all the same, so that their logarithm is low, not infinite.
_STILLNESS = 1e-3


class Anomalies(AIModelBase):
    """Mahalanobis distance of a window's features from those of healthy windows.

    ``initialize`` takes ``size`` (readings in a window) and ``margin`` (how many times as far as the farthest healthy
    window is an anomaly).
    """

    def train(self, readings: ArrayLike) -> dict[str, Any]:
        """Learn what is healthy.

        Args:
            readings: Of shape (pumps, n, 2): temperature in °C and vibration in mm/s, n at least the window's size.
        """
        array = np.asarray(readings, dtype=np.float64)
        size = self.model_info.get("size", 32)
        if array.ndim != 3 or array.shape[1] < size or array.shape[2] != 2:
            raise InvalidArgument(f"readings has the shape {array.shape}; it must be (pumps, {size} or more, 2)")
        windows = sliding_window_view(array, size, axis=1).reshape(-1, 2, size)
        self.training_log.append(progress=10, stage="windows", data={"windows": len(windows)})
        found = features(windows)
        mean, precision = found.mean(axis=0), np.linalg.inv(np.cov(found, rowvar=False))
        farthest = float(distance(found, mean, precision).max())
        limit = self.model_info.get("margin", 1.25) * farthest
        self.training_log.append(progress=100, stage="fitted", data={"limit": limit})
        np.savez(self.model_dir() / "healthy.npz", mean=mean, precision=precision, limit=limit)
        return {"windows": len(windows), "limit": limit}

    def load(self) -> None:
        with np.load(self.model_dir() / "healthy.npz") as file:
            self.mean, self.precision, self.limit = file["mean"], file["precision"], float(file["limit"])

    def predict(self, temperature: ArrayLike, vibration: ArrayLike, window: Any = None) -> dict[str, Any]:
        """Judge one window.

        Args:
            temperature: Of shape (n,), in °C, n at least 3.
            vibration: Of the same shape, in mm/s.
            window: What the stream says of the window; not needed here.

        Returns:
            ``score``, above 1 for an anomaly, and ``anomalous``.
        """
        try:
            pair = np.array([temperature, vibration], dtype=np.float64)
        except (TypeError, ValueError):
            raise InvalidArgument("temperature and vibration must be two equally long lists of numbers") from None
        if pair.ndim != 2 or pair.shape[1] < 3 or not np.isfinite(pair).all():
            raise InvalidArgument("temperature and vibration must be finite numbers, three of each or more")
        score = float(distance(features(pair[None]), self.mean, self.precision)[0]) / self.limit
        return {"score": round(score, 3), "anomalous": score > 1}


def features(windows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Say of windows of shape (m, 2, n) how they lean, how rough they are, and how far they jump: shape (m, 6)."""
    jumps = np.abs(np.diff(windows, axis=2))
    size = windows.shape[2]
    ramp = (np.arange(size) - (size - 1) / 2) / size
    lean = windows @ ramp
    rough = np.log(jumps.mean(axis=2) + _STILLNESS)
    farthest = np.log(jumps.max(axis=2) + _STILLNESS)
    return np.concatenate([lean, rough, farthest], axis=1)


def distance(
    found: NDArray[np.float64], mean: NDArray[np.float64], precision: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mahalanobis distance of each row of ``found`` from ``mean``."""
    away = found - mean
    return np.sqrt(np.einsum("ij,jk,ik->i", away, precision, away))

"""The models that are served. ``python -m benchmarks.models NAME``"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

from aipod.model import AIModelBase
from aipod.rpc.server import serve
from benchmarks import work

# What an initialize of Loading leaves behind for its load to read.
_WEIGHTS = 16 * 1024 * 1024


class Tiny(AIModelBase):
    def predict(self, x: float, name: str, values: list[int]) -> dict[str, Any]:
        return {"x": x, "name": name, "values": values}


class Arrays(AIModelBase):
    def predict(self, data: Any, total: bool = False) -> dict[str, Any]:
        return {"data": data, "total": float(data.sum())} if total else {"data": data}


class First(AIModelBase):
    def predict(self, x: float, name: str, values: list[int]) -> float:
        return work.predict(x, name, values)


class Batch(AIModelBase):
    max_batch_size = work.BATCH_SIZE

    def predict_batch(self, inputs: list[dict[str, Any]]) -> list[float]:
        return work.predict_batch([one["x"] for one in inputs])


class Mean(AIModelBase):
    def predict(self, values: Any, window: Any = None) -> dict[str, Any]:
        return {"mean": float(np.mean(values))}


class Busy(AIModelBase):
    """Computes in the interpreter, without ever letting go of its lock, for 2 ms of its own CPU."""

    max_concurrency = 1

    def predict(self, x: float, name: str, values: list[int]) -> float:
        end = time.thread_time() + 0.002
        while time.thread_time() < end:
            sum(range(50))
        return x


class Trained(AIModelBase):
    """Answers with the instant at which its training ended."""

    def train(self, seconds: float = 0.0) -> float:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sum(range(1000))
        ended = time.time()
        (self.model_dir() / "ended").write_text(repr(ended), encoding="utf-8")
        return ended

    def load(self) -> None:
        path = self.model_dir(mkdir=False) / "ended"
        self.ended = float(path.read_text(encoding="utf-8")) if path.exists() else 0.0

    def predict(self) -> float:
        return self.ended


class Loading(Tiny):
    """A version's name says how its load spends how many seconds: ``sleep-10``, ``python-10`` or ``numpy-10``."""

    def initialize(self, **kwargs: Any) -> Any:
        np.save(self.model_dir() / "weights.npy", np.random.default_rng(1).standard_normal(_WEIGHTS, dtype=np.float32))
        return True

    def load(self) -> None:
        how, _, seconds = self.version.partition("-")
        end = time.monotonic() + float(seconds or 0)
        if how == "sleep":
            time.sleep(float(seconds))
        while how == "python" and time.monotonic() < end:
            self._half_python()
        while how == "numpy" and time.monotonic() < end:
            self._read_weights()

    def _half_python(self) -> None:
        """50 ms in the interpreter, without ever letting go of its lock, then 50 ms of waiting."""
        end = time.monotonic() + 0.05
        while time.monotonic() < end:
            sum(range(200))
        time.sleep(0.05)

    def _read_weights(self) -> None:
        """What loading is like: read, convert, normalise."""
        weights = np.load(self.model_dir() / "weights.npy").astype(np.float64)
        self.weights = (weights - weights.mean()) / weights.std()


if __name__ == "__main__":
    serve(globals()[sys.argv[1]])

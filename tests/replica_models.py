"""Models that live in processes of their own."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from aipod.model import AIModelBase
from aipod.model.call import current_call


class Pids(AIModelBase):
    def predict(self) -> int:
        return os.getpid()


class Loaded(Pids):
    """Insists on having been loaded, with its scratch directory there."""

    def load(self) -> None:
        self.directory = self.model_dir()

    def predict(self) -> int:
        assert self.directory.is_dir()
        return super().predict()


class Crashing(AIModelBase):
    def load(self) -> None:
        if (Path(self.datapath) / "unloadable").exists():
            raise RuntimeError("it is not to be")

    def predict(self, value: Any) -> Any:
        if value == "die" or (value == "sometimes" and (Path(self.datapath) / "deadly").exists()):
            os._exit(3)
        return value


class Slow(AIModelBase):
    def predict(self, seconds: float = 0.0) -> int:
        time.sleep(seconds)
        return os.getpid()


class Gated(AIModelBase):
    """Answers when so many of its copies have a call at a time."""

    def predict(self, together: int, what: str = "pid") -> Any:
        here = Path(self.datapath) / f"in-{os.getpid()}"
        here.touch()
        end = time.monotonic() + 20
        while len(list(here.parent.glob("in-*"))) < together:
            assert time.monotonic() < end
            time.sleep(0.002)
        return os.getpid() if what == "pid" else [self.device, os.environ.get("CUDA_VISIBLE_DEVICES")]


class Keyed(AIModelBase):
    stacked = True

    def batch_key(self, kwargs: dict[str, Any]) -> int:
        return int(kwargs["kind"])

    def predict_batch(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if (inputs["x"] < 0).any():
            raise ValueError("negative")
        kinds = np.tile(inputs["kind"].reshape(1, -1), (len(inputs["kind"]), 1))
        return {"sum": inputs["x"].sum(axis=1), "kinds": kinds}


class Unloadable(AIModelBase):
    def load(self) -> None:
        if self.version == "dies":
            os._exit(9)
        raise RuntimeError("no weights")

    def predict(self) -> None:
        pass


class Awaiting(AIModelBase):
    _here = 0

    async def predict(self, value: int, together: int) -> int:
        self._here += 1
        end = time.monotonic() + 20
        while self._here < together:
            assert time.monotonic() < end
            await asyncio.sleep(0.001)
        return value


class Waiting(AIModelBase):
    def predict(self) -> None:
        end = time.monotonic() + 20
        while not current_call().cancelled:
            assert time.monotonic() < end
            time.sleep(0.001)
        (Path(self.datapath) / "gave up").touch()

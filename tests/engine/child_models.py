"""Models for tests of child processes: another process must be able to import them."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from aipod.errors import InvalidArgument
from aipod.model import AIModelBase
from aipod.model.call import current_call


class Echo(AIModelBase):
    def load(self) -> None:
        self.loaded = True

    def memory_bytes(self) -> int:
        return 12345

    def predict(self, value: Any = None) -> Any:
        return value

    def about(self) -> dict[str, Any]:
        """For tests: what this instance is."""
        return {"version": self.version, "pid": os.getpid(), "loaded": getattr(self, "loaded", False)}

    def fail(self, kind: str) -> Any:
        if kind == "ours":
            raise InvalidArgument("value must be positive")
        if kind == "any":
            raise ValueError("no such luck")
        if kind == "local":

            class Odd(Exception):
                def __init__(self) -> None:
                    super().__init__(lambda: None)

            raise Odd
        if kind == "exit":
            sys.exit(4)
        if kind == "set":
            return {1, 2}
        raise AssertionError(kind)

    def die(self, kind: str) -> None:
        if kind == "segfault":
            ctypes.string_at(0)
        elif kind == "exit":
            os._exit(3)
        elif kind == "memory":
            resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
            np.ones(2**31)

    def wait(self) -> str:
        call, end = current_call(), time.monotonic() + 20
        while not call.cancelled:
            assert time.monotonic() < end
            time.sleep(0.001)
        return "cancelled"

    def left(self) -> float | None:
        return current_call().remaining

    def hang(self) -> None:
        # In C, with the interpreter's lock.
        re.match(r"(a+)+$", "a" * 60 + "b")

    def start_another(self) -> int:
        return subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]).pid

    def speak(self) -> None:
        print("printed", flush=True)
        os.write(2, b"written\n")
        logging.getLogger("of.the.model").warning("logged %d", 7)

    def dispose(self) -> None:
        (Path(self.datapath) / "disposed").touch()
        super().dispose()


class Awaited(AIModelBase):
    async def predict(self, value: Any = None, wait: bool = False) -> Any:
        if wait:
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                (Path(self.datapath) / "cancelled").touch()
                raise
        return value


class Halves(AIModelBase):
    def predict_batch(self, inputs: list[dict[str, Any]]) -> list[Any]:
        if any(one["value"] is None for one in inputs) and len(inputs) > 1:
            raise ValueError("None among them")
        return [ValueError("odd") if one["value"] % 2 else one["value"] // 2 for one in inputs]


class Stacked(AIModelBase):
    stacked = True

    def predict_batch(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"sum": inputs["x"].sum(axis=1), "rows": np.full(len(inputs["x"]), len(inputs["x"]))}


class Unmade(AIModelBase):
    def __init__(self) -> None:
        raise RuntimeError("no such device")


class Trained(AIModelBase):
    def train(self, steps: int = 0) -> dict[str, Any]:
        self.training_log.append(progress=0)
        while steps < 0 and not self.cancelled and not self.stopping:
            time.sleep(0.001)
        if self.cancelled:
            self.training_log.append(progress=50)
        return {"stopping": self.stopping, "resumed": self.resume_from is not None}

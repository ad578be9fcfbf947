"""A model that keeps account of itself, served: ``python ledger.py``.

Every write brings a number. ``ran`` in the data path has a line for each that began; what a write publishes says the
number twice, in files that are written one after the other, so that half a write shows.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from aipod.errors import NotInitialized
from aipod.model import AIModelBase
from aipod.rpc.server import serve

_HALVES = ("first", "second")


class Ledger(AIModelBase):
    """``predict`` says which number it serves, and whether both halves agreed."""

    def initialize(self, number: int, kilobytes: int = 64) -> Any:
        self._write(number, kilobytes)
        return super().initialize(number=number)

    def train(self, number: int, kilobytes: int = 64, seconds: float = 0.0) -> int:
        self.training_log.append(progress=0, message="训练")
        time.sleep(seconds)
        self._write(number, kilobytes)
        return number

    def load(self) -> None:
        try:
            self._read = [(self.model_dir() / half).read_text() for half in _HALVES]
        except FileNotFoundError:
            raise NotInitialized(self.version) from None

    def predict(self, x: Any = None, seconds: float = 0.0, fail: bool = False) -> dict[str, Any]:
        time.sleep(seconds)
        if fail:
            raise ValueError("as it was told")
        first, second = self._read
        return {"x": x, "number": int(first.split()[0]), "whole": first == second}

    def _write(self, number: int, kilobytes: int) -> None:
        line = f"{self.version} {number}\n".encode()
        ran = os.open(Path(self.datapath) / "ran", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.write(ran, line)
        os.close(ran)
        for half in _HALVES:
            (self.model_dir() / half).write_text(f"{number} " * (kilobytes * 1024 // len(f"{number} ")))


if __name__ == "__main__":
    serve(Ledger)

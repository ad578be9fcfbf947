"""Models whose trainings the tests of jobs watch, hold up and kill; in a module, so that another process finds them."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from aipod.errors import InvalidArgument
from aipod.model import AIModelBase

# Longer than any test waits: what still holds up a training then was forgotten.
_PATIENCE = 60.0


class Trained(AIModelBase):
    """Writes what it is told, and waits for a file to appear where it is told to."""

    def train(
        self,
        value: str = "trained",
        gate: str = "",
        records: int = 0,
        fails: str = "",
        prints: str = "",
        returns: Any = None,
    ) -> Any:
        (self.model_dir() / "value").write_text(value, "utf-8")
        if prints:
            print(prints, flush=True)
        for number in range(records):
            self.training_log.append(progress=number, stage="work", message=f"record {number}")
        self.wait_for(gate)
        if fails == "model":
            raise RuntimeError("it diverged")
        if fails == "caller":
            raise InvalidArgument("value is no good; pass another")
        if fails == "exit":
            sys.exit(3)
        if fails.startswith("signal"):
            os.kill(os.getpid(), int(fails.split()[1]))
            time.sleep(_PATIENCE)
        return {"value": value, "loss": 0.5, "epochs": 3, "nan": float("nan")} if returns is None else returns

    def wait_for(self, gate: str) -> None:
        if gate:
            Path(f"{gate}.pid").write_text(str(os.getpid()))
        end = time.monotonic() + _PATIENCE
        while gate and not Path(gate).exists() and not self.cancelled and not self.stopping:
            assert time.monotonic() < end
            time.sleep(0.002)

    def predict(self) -> dict[str, Any]:
        path = self.model_dir() / "value"
        return {"value": path.read_text("utf-8") if path.exists() else None}


class Stubborn(Trained):
    """Takes no notice of what it is asked."""

    def wait_for(self, gate: str) -> None:
        if gate:
            Path(f"{gate}.waits").touch()
        end = time.monotonic() + _PATIENCE
        while gate and not Path(gate).exists():
            assert time.monotonic() < end
            time.sleep(0.002)


class Deaf(Stubborn):
    """Takes no notice of SIGTERM either."""

    def wait_for(self, gate: str) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        super().wait_for(gate)


class Resumable(Trained):
    """Counts in a file, and goes on from what it finds there."""

    resumable = True

    def wait_for(self, gate: str) -> None:
        super().wait_for(gate)
        # It comes to nothing more.
        assert not self.cancelled

    def train(self, until: int = 3, gate: str = "", gate_at: int = 1) -> dict[str, Any]:  # type: ignore[override]
        path = self.model_dir() / "counted"
        begin = int(path.read_text()) if self.resume_from is not None and path.exists() else 0
        for number in range(begin, until):
            if number == gate_at:
                self.wait_for(gate)
            path.write_text(str(number + 1))
            self.training_log.append(progress=number, message=f"number {number}")
        return {"begin": begin, "until": until, "resumed": str(self.resume_from or "")}


class Placed(Trained):
    """Says where it runs."""

    def train(self) -> dict[str, Any]:  # type: ignore[override]
        return {"pid": os.getpid(), "nice": os.nice(0), "directory": str(self.model_dir())}


class Unloadable(Trained):
    """Refuses to load what it was trained with a bad value."""

    def load(self) -> None:
        path = self.model_dir() / "value"
        if path.exists() and path.read_text("utf-8") == "bad":
            raise ValueError("a bad value")

"""A model that trains as its arguments say, for servers in processes of their own."""

from __future__ import annotations

MODEL = """
import time
from pathlib import Path

from aipod.model import AIModelBase


class Trainee(AIModelBase):
    def train(self, epochs=4, gate=None, say=None, fail=None, deaf=False, binary_data=None, **others):
        print("lesson one", flush=True)
        for epoch in range(1, epochs + 1):
            data = {"epoch": epoch, "accuracy": 1 - 1 / epoch}
            self.training_log.append(progress=100 * epoch / epochs, stage="fitting", data=data, message=say)
            while gate and not Path(gate).exists():
                if not deaf and (self.cancelled or self.stopping):
                    break
                time.sleep(0.01)
            if self.stopping:
                break
        if fail:
            raise ValueError(fail)
        (self.model_dir() / "epochs").write_text(str(epoch))
        return {"accuracy": 1 - 1 / epoch, "epochs": epoch, "stopped": self.stopping, "binary": binary_data, **others}

    def predict(self):
        return int((self.model_dir() / "epochs").read_text())
"""

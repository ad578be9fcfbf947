"""A model that takes many small steps to train, and a server that trains it once: ``python trainer.py DATA VALUE``."""

from __future__ import annotations

import sys
import time

from aipod.engine import Engine
from aipod.model import AIModelBase

VALUES = 0
_STEPS = 20


class Steps(AIModelBase):
    def train(self, value: int) -> dict[str, int]:
        for step in range(_STEPS):
            (self.model_dir() / f"part-{step}").write_text(str(value))
            self.training_log.append(progress=100 * step / _STEPS)
            time.sleep(0.01)
        return {"value": value}

    def load(self) -> None:
        self.values = {path.read_text() for path in self.model_dir().glob("part-*")}

    def predict(self) -> int:
        (value,) = self.values
        return int(value)


def main(data: str, value: str) -> None:
    with Engine(Steps, data_path=data) as engine:
        job = engine.trainings.start("v", {"value": int(value)})
        print(job.id, flush=True)
        engine.trainings.wait(job.id)


if __name__ == "__main__":
    main(*sys.argv[1:])

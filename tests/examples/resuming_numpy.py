"""A model of the shape of ``examples/torch_resume``, for machines without torch."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from aipod.model import AIModelBase


class Steps(AIModelBase):
    """Descends to the foot of a parabola, and checks that the steps before a kill are not lost."""

    resumable = True

    def train(self, epochs: int = 40) -> dict[str, Any]:
        checkpoint = self.model_dir() / "checkpoint.npz"
        place, done = np.ones(3), 0
        if self.resume_from is not None and checkpoint.exists():
            with np.load(checkpoint) as kept:
                place, done = kept["place"], int(kept["done"])
        resumed_at = done
        while done < epochs and not self.stopping:
            time.sleep(0.02)
            place, done = place * 0.9, done + 1
            half = self.model_dir() / "half.npz"
            np.savez(half, place=place, done=done)
            os.replace(half, checkpoint)
            self.training_log.append(progress=100 * done / epochs, data={"epoch": done, "resumed_at": resumed_at})
        checkpoint.unlink()
        np.save(self.model_dir() / "place.npy", place)
        return {"epochs": done, "accuracy": 1 - float(place.max()), "resumed_at": resumed_at}

    def predict(self) -> Any:
        return np.load(self.model_dir() / "place.npy")

"""The training log under its name of 1.0; it lives in :mod:`aipod.model.trainlog`."""

from aipod.model.trainlog import Progressor, TrainingLog, TrainningLogger

__all__ = ["Progressor", "TrainingLog", "TrainningLogger"]

"""Handwritten digits: a model that learns them from scikit-learn's 1,797 images of 8 by 8 pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from aipod.errors import InvalidArgument
from aipod.model import AIModelBase

# The last 497 images, mostly of other people's handwriting than the rest, are kept from the training.
HELD_OUT = 1300


class Digits(AIModelBase):
    """A small neural network.

    ``initialize`` takes ``layers`` (sizes of the hidden ones), ``alpha`` (how much large weights cost) and ``seed``.
    """

    def train(self, epochs: int = 20) -> dict[str, Any]:
        images, labels = load_digits(return_X_y=True)
        images, labels = images[:HELD_OUT] / 16, labels[:HELD_OUT]
        network = MLPClassifier(
            hidden_layer_sizes=self.model_info.get("layers", [32]),
            alpha=self.model_info.get("alpha", 1e-4),
            random_state=self.model_info.get("seed", 0),
            batch_size=32,
        )
        accuracy = 0.0
        for epoch in range(1, epochs + 1):
            network.partial_fit(images, labels, classes=range(10))
            accuracy = float(network.score(images, labels))
            self.training_log.append(
                progress=100 * epoch / epochs, stage="fitting", data={"epoch": epoch, "accuracy": accuracy}
            )
        weights = {f"weights_{i}": array for i, array in enumerate(network.coefs_)}
        biases = {f"biases_{i}": array for i, array in enumerate(network.intercepts_)}
        np.savez(self.model_dir() / "network.npz", epochs=epochs, **weights, **biases)
        return {"epochs": epochs, "accuracy": accuracy}

    def load(self) -> None:
        with np.load(self.model_dir() / "network.npz") as file:
            depth = len(file.files) // 2
            self.layers = [(file[f"weights_{i}"], file[f"biases_{i}"]) for i in range(depth)]
            self.epochs = int(file["epochs"])

    def predict(self, images: ArrayLike) -> dict[str, Any]:
        """Read digits.

        Args:
            images: Of shape (n, 8, 8) or (n, 64), pixels from 0 (paper) to 16 (ink).

        Returns:
            ``digits`` of shape (n,), ``probabilities`` of shape (n, 10), and ``epochs``, the length of the training.
        """
        signal = pixels(images) / 16
        *hidden, last = self.layers
        for weights, biases in hidden:
            signal = np.maximum(signal @ weights + biases, 0)
        scores = signal @ last[0] + last[1]
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities = odds / odds.sum(axis=1, keepdims=True)
        return {"digits": probabilities.argmax(axis=1), "probabilities": probabilities, "epochs": self.epochs}


def pixels(images: ArrayLike) -> NDArray[np.float64]:
    """Lay images out as rows of 64 pixels.

    Raises:
        InvalidArgument: They are no images of 8 by 8 numbers.
    """
    try:
        array = np.asarray(images, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidArgument("images: these are no numbers; send an array of shape (n, 8, 8)") from None
    if array.ndim not in (2, 3) or array.shape[1:] not in ((8, 8), (64,)):
        raise InvalidArgument(f"images has the shape {array.shape}; it must be (n, 8, 8) or (n, 64)")
    return array.reshape(len(array), 64)

"""Two spirals, told apart by a small PyTorch network whose training goes on where a kill has interrupted it."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from aipod.errors import InvalidArgument
from aipod.model import AIModelBase

POINTS = 2000
BATCH = 64


class Spirals(AIModelBase):
    """``initialize`` takes ``width``, of the hidden layers, and ``seed``."""

    # An interrupted training is begun again, under the same id, with what it had written into model_dir().
    resumable = True

    def train(self, epochs: int = 40) -> dict[str, Any]:
        torch.manual_seed(self.model_info.get("seed", 0))
        network = self.network()
        optimizer = torch.optim.Adam(network.parameters(), lr=0.005)
        points, labels = spirals(POINTS)
        checkpoint = self.model_dir() / "checkpoint.pt"
        done, accuracy = 0, 0.0
        if self.resume_from is not None and checkpoint.exists():
            # Tensors and numbers alone: a file that says more is refused.
            kept = torch.load(checkpoint, weights_only=True)
            network.load_state_dict(kept["network"])
            optimizer.load_state_dict(kept["optimizer"])
            torch.set_rng_state(kept["dice"])
            done, accuracy = kept["epochs"], kept["accuracy"]
        resumed_at = done
        while done < epochs and not self.stopping:
            loss = fit(network, optimizer, points, labels)
            accuracy = float(((network(points) > 0) == (labels > 0)).float().mean())
            done += 1
            keep(
                checkpoint,
                network=network.state_dict(),
                optimizer=optimizer.state_dict(),
                dice=torch.get_rng_state(),
                epochs=done,
                accuracy=accuracy,
            )
            # Last: what the log tells of is never lost.
            self.training_log.append(
                progress=100 * done / epochs,
                stage="fitting",
                data={"epoch": done, "loss": loss, "accuracy": accuracy, "resumed_at": resumed_at},
            )
        keep(self.model_dir() / "network.pt", **network.state_dict())
        checkpoint.unlink(missing_ok=True)
        return {"epochs": done, "accuracy": accuracy, "resumed_at": resumed_at}

    def load(self) -> None:
        self.net = self.network()
        self.net.load_state_dict(torch.load(self.model_dir() / "network.pt", weights_only=True))
        self.net.eval()

    def predict(self, points: ArrayLike) -> Any:
        """Which spiral, 0 or 1, each of the points, of shape (n, 2), is on."""
        tensor = torch.as_tensor(points, dtype=torch.float32)
        if tensor.ndim != 2 or tensor.shape[1] != 2:
            raise InvalidArgument(f"points has the shape {tuple(tensor.shape)}; it must be (n, 2)")
        with torch.inference_mode():
            return (self.net(tensor) > 0).long().squeeze(1).numpy()

    def network(self) -> nn.Module:
        width = self.model_info.get("width", 48)
        hidden = [nn.Linear(2, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()]
        return nn.Sequential(*hidden, nn.Linear(width, 1))


def fit(network: nn.Module, optimizer: torch.optim.Optimizer, points: Tensor, labels: Tensor) -> float:
    """See every point once; gives the mean loss."""
    losses = []
    for chosen in torch.randperm(len(points)).split(BATCH):
        loss = nn.functional.binary_cross_entropy_with_logits(network(points[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return sum(losses) / len(losses)


def keep(path: Path, **content: Any) -> None:
    """Write a file whole or not at all: a kill in the middle leaves the one before."""
    half = path.with_suffix(".half")
    torch.save(content, half)
    os.replace(half, path)


def spirals(count: int) -> tuple[Tensor, Tensor]:
    """Points of shape (count, 2), and to which of two spirals, 0.0 or 1.0, each belongs, of shape (count, 1)."""
    labels = (torch.arange(count) % 2).float()
    along = torch.linspace(0.5, 3 * math.pi, count)
    angle = along + math.pi * labels
    return torch.stack([along * angle.cos(), along * angle.sin()], 1) / (3 * math.pi), labels.unsqueeze(1)

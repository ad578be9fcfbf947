"""The model of the pipeline's tests: sums of what it was sent, or whatever its version says.

``strict`` refuses windows with a bad message; ``slow-1.5`` takes so many seconds; ``echo`` gives back what it was sent.
"""

from __future__ import annotations

import time
from typing import Any

from aipod.errors import InvalidArgument
from aipod.model import AIModelBase

__all__ = ["Sums", "sums"]


def sums(values: list[dict[str, Any]]) -> dict[str, int]:
    """Sum up such that any other choice, or another order, of messages shows."""
    return {
        "count": len(values),
        "sum": sum(value["v"] for value in values),
        "order": sum(at * value["v"] for at, value in enumerate(values)),
    }


class Sums(AIModelBase):
    def predict(self, messages: list[dict[str, Any]], window: dict[str, Any]) -> Any:
        kind, _, seconds = self.version.partition("-")
        if kind == "slow":
            time.sleep(float(seconds))
        bad = [at for at, message in enumerate(messages) if message.get("bad")]
        if kind == "strict" and bad:
            raise InvalidArgument(f"message {bad[0]} is bad")
        return messages if kind == "echo" else sums(messages)

"""What the model is asked about a window of messages."""

from __future__ import annotations

from typing import Any

import numpy as np

from aipod.stream.windows import Window


def images_of(window: Window) -> dict[str, Any]:
    return {"images": np.array([message.value["pixels"] for message in window.messages], dtype=np.float64)}

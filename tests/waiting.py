"""How tests wait: for a condition, with a bound, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

BOUND = 20.0


def eventually(condition: Callable[[], object], bound: float = BOUND) -> Any:
    """Wait for a condition; its value."""
    end = time.monotonic() + bound
    while not (value := condition()):
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.002)
    return value

"""How long to wait before something is tried again."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

__all__ = ["Pauses"]

# All who wait for the same would come at once; so each comes up to this part earlier.
_SPREAD = 0.25
# Dice of our own: programs that seeded theirs alike would go in step.
_DICE = random.SystemRandom()


@dataclass
class Pauses:
    """Pauses that grow until it works.

    Attributes:
        first: The first pause, in seconds.
        longest: The longest.
        health: What went on for so many seconds has worked, however it ended.
    """

    first: float
    longest: float
    health: float = math.inf
    _last: float = field(default=0.0, init=False)

    @property
    def begun(self) -> bool:
        """Whether it has failed since it worked."""
        return self._last > 0

    def next(self, lived: float = 0.0) -> float:
        """It has failed again, after so many seconds: give the pause, in seconds."""
        if lived >= self.health:
            self.reset()
        self._last = min(2 * self._last, self.longest) or self.first
        return self._last * _DICE.uniform(1 - _SPREAD, 1)

    def reset(self) -> None:
        """It works."""
        self._last = 0.0

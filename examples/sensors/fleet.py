"""A fleet of pumps that does not exist: what its sensors say, and what is wrong with some of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Two readings a minute, from a morning of long ago: the time of a reading is the pump's own.
BEGIN = 1_772_348_400.0
INTERVAL = 30.0
TEMPERATURE, VIBRATION = 0, 1


@dataclass(frozen=True)
class Fault:
    """What is wrong with a pump, and from which reading to which, the last included."""

    pump: str
    kind: str
    first: int
    last: int


class Fleet:
    """Pumps, each with a character of its own; the same seed makes the same fleet.

    Args:
        size: How many pumps.
        seed: For all that chance decides.
    """

    def __init__(self, size: int = 12, seed: int = 5) -> None:
        self._random = np.random.default_rng(seed)
        self.pumps = [f"pump-{number:02}" for number in range(1, size + 1)]
        self._warmth = self._random.uniform(55, 75, (size, 1))
        self._phase = self._random.uniform(0, 2 * np.pi, (size, 1))
        self._shaking = self._random.uniform(0.8, 1.6, (size, 1))

    def healthy(self, count: int) -> NDArray[np.float64]:
        """Make so many readings of each pump: shape (pumps, count, 2), °C and mm/s."""
        shape = (len(self.pumps), count)
        hours = np.arange(count) * INTERVAL / 3600
        temperature = self._warmth + 2 * np.sin(2 * np.pi * hours / 12 + self._phase) + self._noise(0.4, shape)
        return np.stack([temperature, self._shaking + self._noise(0.05, shape)], axis=2)

    def faulty(self, count: int) -> tuple[NDArray[np.float64], list[Fault]]:
        """Make readings among which some pumps, one after the other, fail in one of four ways."""
        readings, faults = self.healthy(count), []
        kinds = [self._spike, self._drift, self._stuck, self._worn]
        for number, pump in enumerate(range(0, len(self.pumps), 2)):
            first = int(self._random.integers(count // 4, count // 2))
            inject = kinds[number % len(kinds)]
            last = inject(readings[pump], first)
            faults.append(Fault(self.pumps[pump], inject.__name__.strip("_"), first, last))
        return readings, faults

    def messages(self, readings: NDArray[np.float64]) -> Iterator[dict[str, Any]]:
        """Tell readings as the pumps would, all that are of one time together."""
        for number in range(readings.shape[1]):
            for pump, (temperature, vibration) in zip(self.pumps, readings[:, number].round(4).tolist(), strict=True):
                at = BEGIN + number * INTERVAL
                yield {"pump": pump, "at": at, "temperature": temperature, "vibration": vibration}

    def _noise(self, scale: float, shape: tuple[int, ...]) -> NDArray[np.float64]:
        return self._random.normal(0, scale, shape)

    def _spike(self, pump: NDArray[np.float64], first: int) -> int:
        pump[first, TEMPERATURE] += 12
        return first

    def _drift(self, pump: NDArray[np.float64], first: int) -> int:
        pump[first : first + 60, TEMPERATURE] += 0.4 * np.arange(60)
        pump[first + 60 :, TEMPERATURE] += 0.4 * 59
        return first + 59

    def _stuck(self, pump: NDArray[np.float64], first: int) -> int:
        pump[first : first + 50, TEMPERATURE] = pump[first, TEMPERATURE]
        return first + 49

    def _worn(self, pump: NDArray[np.float64], first: int) -> int:
        pump[first : first + 40, VIBRATION] += self._noise(0.25, (40,))
        return first + 39

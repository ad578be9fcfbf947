"""The broker's moments and its clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone

__all__ = ["ServerClock", "nanoseconds"]

_NS = 1_000_000_000


def nanoseconds(text: str) -> int:
    """Read a moment of RFC 3339 with up to nine places, as whole nanoseconds since 1970.

    Exact, since a message that is read from its stream must have the very time that its delivery has.
    """
    whole, _, zone = (text[:19], "", text[19:])
    fraction = ""
    if zone.startswith("."):
        digits = len(zone) - len(zone[1:].lstrip("0123456789"))
        fraction, zone = zone[1:digits], zone[digits:]
    moment = datetime.fromisoformat(whole + zone.replace("Z", "+00:00"))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return int(moment.timestamp()) * _NS + int(fraction.ljust(9, "0")[:9] or 0)


class ServerClock:
    """The broker's clock, as far as is known here; it never goes backwards.

    What the broker says of its time sets it. A message that was stored at some time says that it is at least that late
    there. In between, our own monotonic clock carries it.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._offset: float | None = None
        self._latest = 0.0

    def set(self, moment: float) -> None:
        """The broker said what time it is, in unix seconds."""
        self._offset = moment - self._monotonic()

    def saw(self, stored: float) -> None:
        """A message came that was stored at that time."""
        offset = stored - self._monotonic()
        if self._offset is None or offset > self._offset:
            self._offset = offset

    def now(self) -> float:
        """Unix seconds; 0.0 before anything is known."""
        if self._offset is not None:
            self._latest = max(self._latest, self._offset + self._monotonic())
        return self._latest

"""A message of a stream, as everything in this package sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Message"]


@dataclass(slots=True, eq=False)
class Message:
    """One message, in the order of its stream.

    Not frozen, since one is made for every message that passes: the first half comes from the broker, the second is
    filled in once, by the task's reading, before any window sees it.

    Attributes:
        seq: Its position in the source stream, from 1.
        stored: When the server stored it, in unix seconds; the same at every delivery.
        subject: Where it was published.
        data: The payload as it arrived.
        headers: The headers; empty if it had none.
        value: The decoded payload.
        key: What it is grouped by; ``""`` where a task has no key.
        time: Its own time, in unix seconds; ``stored`` where a task names no other.
    """

    seq: int
    stored: float
    subject: str
    data: bytes
    headers: dict[str, str] = field(default_factory=dict)
    value: Any = None
    key: str = ""
    time: float = 0.0

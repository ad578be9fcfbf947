"""What is recorded of a window: its identity, its members, and what the model made of them.

The record is what a restart obeys, so it carries everything that a restart must know: there is no second store that it
could be out of step with.
"""

from __future__ import annotations

import base64
import json
import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import numpy as np

from aipod.errors import SerializationError

__all__ = ["Identity", "Members", "Ranges", "Recorded", "Result", "expand", "ranges_of"]

# Inclusive, ascending, none touching the next.
Ranges = tuple[tuple[int, int], ...]
# A window's key, its id, and its revision.
Identity = tuple[str, str, int]


def ranges_of(seqs: Iterable[int]) -> Ranges:
    """Write positions, in any order, as ranges."""
    ordered = sorted(set(seqs))
    if ordered and ordered[-1] - ordered[0] == len(ordered) - 1:  # most windows of a stream with one key
        return ((ordered[0], ordered[-1]),)
    ranges: list[tuple[int, int]] = []
    for seq in ordered:
        if ranges and seq == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], seq)
        else:
            ranges.append((seq, seq))
    return tuple(ranges)


def expand(ranges: Ranges) -> Iterator[int]:
    """List the positions in ranges, ascending."""
    for first, last in ranges:
        yield from range(first, last + 1)


class Members:
    """Ranges that can be asked whether a position is in them."""

    __slots__ = ("_firsts", "ranges")

    def __init__(self, ranges: Ranges) -> None:
        self.ranges = ranges
        self._firsts = [first for first, _ in ranges]

    def __contains__(self, seq: int) -> bool:
        at = bisect_right(self._firsts, seq) - 1
        return at >= 0 and seq <= self.ranges[at][1]


@dataclass(frozen=True)
class Recorded:
    """A window as its record has it.

    Attributes:
        key: Whose window it was.
        id: Which of the key's windows; never made of what happened to arrive together.
        revision: 0, and more for each correction of it.
        start: The beginning in unix seconds: of the window, or of its first member where the window has no bounds.
        end: The end; of windows with bounds, the first instant that is not in it.
        reason: Why it was closed.
        members: The positions of its messages in the source stream.
        source: That stream, as :mod:`aipod.stream.origin` names it; "" where that is not known.
    """

    key: str
    id: str
    revision: int
    start: float
    end: float
    reason: str
    members: Ranges
    source: str = ""

    @property
    def identity(self) -> Identity:
        """Tell it from all others of its task; the same window has the same, in whatever process it is closed."""
        return self.key, self.id, self.revision

    @property
    def first(self) -> int:
        return self.members[0][0]

    @property
    def last(self) -> int:
        return self.members[-1][1]

    def agrees(self, other: Recorded) -> bool:
        """Whether both are of the same messages, as far as their streams are known."""
        return self.members == other.members and (self.source == other.source or not (self.source and other.source))


@dataclass(frozen=True)
class Result:
    """What one window became.

    Attributes:
        task: The task's name.
        recorded: The window.
        value: What the model returned.
        dropped: Members that went to the dead letters; the model did not see them.
        headers: Of the window's first message, for templates; not recorded.
        subject: The same message's, for the same.
    """

    task: str
    recorded: Recorded
    value: Any
    dropped: Ranges = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    subject: str = ""

    @property
    def identity(self) -> str:
        """Name the result in ASCII: the same window has the same name, in whatever process it is closed."""
        window = self.recorded
        return f"{quote(self.task, safe='')}/{quote(window.key, safe='')}/{window.id}/{window.revision}"

    @property
    def count(self) -> int:
        return sum(last - first + 1 for first, last in self.recorded.members)

    def document(self) -> dict[str, Any]:
        """Give the result as plain values; numpy's as lists and numbers, bytes as ``{"base64": …}``."""
        window = self.recorded
        return {
            "task": self.task,
            "key": window.key,
            "window": {
                "id": window.id,
                "revision": window.revision,
                "start": window.start,
                "end": window.end,
                **({"source": window.source} if window.source else {}),
                "count": self.count,
                "reason": window.reason,
                "members": [list(pair) for pair in window.members],
            },
            "dropped": [list(pair) for pair in self.dropped],
            "result": self.value,
        }

    def encode(self) -> bytes:
        """Write the document as JSON in UTF-8, in one line.

        Raises:
            SerializationError: The model returned something that JSON cannot say.
        """
        try:
            return _WRITER.encode(self.document()).encode("utf-8")
        except (TypeError, ValueError, RecursionError) as error:
            raise SerializationError("result", f"it does not fit into JSON: {error}") from error

    @classmethod
    def read(cls, payload: bytes | str) -> Result:
        """Read what :meth:`encode` wrote.

        Raises:
            SerializationError: It is no result of a window.
        """
        try:
            document = json.loads(payload)
            window = document["window"]
            recorded = Recorded(
                key=str(document["key"]),
                id=str(window["id"]),
                revision=int(window["revision"]),
                start=float(window["start"]),
                end=float(window["end"]),
                reason=str(window["reason"]),
                members=_pairs(window["members"]),
                source=sys.intern(str(window.get("source") or "")),  # one text for all that are recalled
            )
            return cls(str(document["task"]), recorded, document["result"], _pairs(document["dropped"]))
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise SerializationError("result", f"it is no result of a window: {error}") from error


def _pairs(lists: Iterable[Iterable[int]]) -> Ranges:
    return tuple((int(first), int(last)) for first, last in lists)


def _plain(value: object) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"base64": base64.b64encode(value).decode("ascii")}
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not supported")


_WRITER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_plain)

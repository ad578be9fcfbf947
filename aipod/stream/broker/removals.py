"""Messages that their stream removed before they were handed out: a limit of the stream's was reached, or somebody
deleted them.

A consumer passes such positions over without a word. It passes over those of subjects that it does not select in the
same way, so what can be known of a gap depends on the consumer:

1. Of one that takes the whole stream, every position that is passed over is one that was removed.
2. Of one that takes some subjects, only what lies below the stream's first position may have been, and whose it was
   nobody can tell any more: at most so many are missing. Unless the consumer had nothing to wait for when the stream
   was already longer than that: then it missed none of it.
3. What was delivered before our time and is gone may have been processed: at most so many are missing. Where a stream
   drops what is acknowledged, or what a newer message replaces, it says nothing at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from aipod.stream.broker.connection import Connection
from aipod.stream.broker.consumer import ConsumerSpec, ConsumerState
from aipod.stream.message import Message

__all__ = ["Removals", "Tell"]

# The first and the last position, and whether each of them is one that is missing, or at most each of them.
Tell = Callable[[int, int, bool], None]

# A gap in what was delivered before our time; one in what is handed out; what the stream does not reach back to, as it
# is for a consumer of the whole stream, and for one of some subjects.
_Kind = Literal["before", "between", "below", "below some"]


class Removals:
    """Of one consumer. Belongs to the loop.

    Args:
        state: The consumer at the start.

    Attributes:
        tell: Called for each gap, in stream order; the owner's to set.
    """

    def __init__(self, conn: Connection, spec: ConsumerSpec, state: ConsumerState) -> None:
        self._conn = conn
        self._spec = spec
        self._stream = state.stream
        self.tell: Tell = lambda first, last, exact: None
        self._before = state.delivered
        self._gaps: list[tuple[int, int, _Kind]] = []
        # Up to here it is told what is missing; up to here a consumer of some subjects has missed nothing. Nobody asks
        # that of one that takes all: it has nothing to wait for either when that was removed between two answers.
        self._told = 0
        self._complete = 0
        self._takes_all = True  # until it is known

    def looked(self, state: ConsumerState, position: int) -> None:
        """The broker was asked, and everything up to ``position`` is handed out."""
        if state.delivered > position:
            return  # what is on its way to us may be gone from the stream, and is not missing
        first = max(position, self._told) + 1
        if first < state.first:
            last = self._told = state.first - 1
            if self._takes_all:
                self._gaps.append((first, last, "below"))
            if self._complete < last:
                self._gaps.append((max(first, self._complete + 1), last, "below some"))
        if not state.num_pending:
            self._complete = state.last

    def passed(self, first: int, last: int, messages: Iterable[Message]) -> None:
        """Of the positions ``first`` to ``last`` these messages, in that order, are all that there was."""
        if self._takes_all:
            for start, end in _gaps(max(first, self._told + 1), last, messages):
                if start <= self._before:
                    self._gaps.append((start, min(end, self._before), "before"))
                if end > self._before:
                    self._gaps.append((max(start, self._before + 1), end, "between"))

    async def judge(self) -> None:
        """Tell of the gaps that were found; without any, it asks nobody.

        Raises:
            Unavailable: The broker is away; nothing is forgotten.
            Refused: The stream is not there.
        """
        if not self._gaps:
            return
        config = (await self._conn.api(f"STREAM.INFO.{self._stream}"))["config"]
        self._takes_all = _takes_all(self._spec.subjects, config)
        keeps = config.get("retention", "limits") == "limits"
        replaces = config.get("max_msgs_per_subject", -1) > 0
        gaps, self._gaps = self._gaps, []
        for first, last, kind in gaps:
            if kind == ("below some" if self._takes_all else "below"):
                continue  # it is said in the other one
            if self._takes_all and kind != "before":
                self.tell(first, last, True)
            elif keeps and (kind == "below some" or (self._takes_all and not replaces)):
                self.tell(first, last, False)


def _gaps(first: int, last: int, messages: Iterable[Message]) -> Iterator[tuple[int, int]]:
    for message in messages:
        if message.seq > first:
            yield first, message.seq - 1
        first = max(first, message.seq + 1)
    if first <= last:
        yield first, last


def _takes_all(subjects: tuple[str, ...], config: dict[str, Any]) -> bool:
    has = set(config.get("subjects") or ())
    return not subjects or ">" in subjects or (bool(has) and has <= set(subjects))

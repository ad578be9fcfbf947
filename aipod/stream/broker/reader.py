"""Messages read from the stream itself, by position, when no delivery is to be had for them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

from aipod.stream.broker.connection import Connection
from aipod.stream.broker.failures import Refused
from aipod.stream.broker.headers import parsed
from aipod.stream.broker.times import nanoseconds
from aipod.stream.message import Message

__all__ = ["Reader"]

_WALKERS = 32
# How many messages one walker brings home at most, which bounds what one call of some() holds in memory.
_LOAD = 64
_NARROW = 1024


class Reader:
    """Reads what some filters select of a stream, in stream order; what was purged or deleted is not there.

    A stretch is cut in as many parts as walkers go at a time, since each step is a question and its answer. Where few
    positions hold a message of ours the stretches become longer, so that a rare subject costs few questions.
    """

    def __init__(self, conn: Connection, stream: str, subjects: tuple[str, ...]) -> None:
        self._conn = conn
        self._stream = stream
        self._subjects = subjects or (">",)
        self._span = _NARROW

    async def read(self, first: int, last: int) -> AsyncIterator[list[Message]]:
        """Read all from ``first`` to ``last``, both included, a piece at a time.

        Raises:
            Unavailable: The broker is away.
            Refused: The stream is not there.
        """
        while first <= last:
            messages, reached = await self.some(first, last)
            if messages:
                yield messages
            first = reached + 1

    async def some(self, first: int, last: int) -> tuple[list[Message], int]:
        """Read a piece from ``first`` on; and up to where, at most ``last``, nothing is missing now."""
        last = min(last, first + self._span - 1)
        width = -(-(last - first + 1) // _WALKERS)
        walks = (self._walk(start, min(start + width - 1, last)) for start in range(first, last + 1, width))
        messages: list[Message] = []
        for found, reached, end in await asyncio.gather(*walks):
            messages += found
            if reached < end:  # that walker had its load; what those behind it found is read again
                self._span = max(_NARROW, self._span // 4)
                return messages, reached
        if len(messages) < _WALKERS:
            self._span *= 4
        return messages, last

    async def _walk(self, first: int, last: int) -> tuple[list[Message], int, int]:
        # The next message of each filter; the broker sees to it that no two select the same.
        heads = {subject: await self._next(subject, first) for subject in self._subjects}
        found: list[Message] = []
        while True:
            nearest = min((head.seq for head in heads.values() if head is not None), default=last + 1)
            if nearest > last:
                return found, last, last
            if len(found) == _LOAD:
                return found, nearest - 1, last
            for subject, head in heads.items():
                if head is not None and head.seq == nearest:
                    found.append(head)
                    heads[subject] = await self._next(subject, nearest + 1) if nearest < last else None

    async def _next(self, subject: str, seq: int) -> Message | None:
        try:
            answer = await self._conn.api(f"STREAM.MSG.GET.{self._stream}", {"seq": seq, "next_by_subj": subject})
        except Refused as error:
            if error.is_not_found:
                return None
            raise
        return _message(answer["message"])


def _message(raw: dict[str, Any]) -> Message:
    stored = nanoseconds(raw["time"]) / 1_000_000_000
    data = base64.b64decode(raw["data"]) if raw.get("data") else b""
    headers = parsed(base64.b64decode(raw["hdrs"])) if raw.get("hdrs") else {}
    return Message(raw["seq"], stored, raw["subject"], data, headers)

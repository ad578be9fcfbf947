"""Messages read from the stream itself, by position, when no delivery is to be had for them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from aipod.stream.broker.connection import Connection
from aipod.stream.broker.headers import parsed
from aipod.stream.broker.times import nanoseconds
from aipod.stream.errors import Refused
from aipod.stream.message import Message

__all__ = ["Reader", "get_message"]

_WALKERS = 32
# What one walker brings home at most, but for one message more; it bounds what one call of some() holds in memory.
_LOAD = 64
_LOAD_BYTES = 1 << 20
_NARROW = 1024
_NS = 1_000_000_000


async def get_message(conn: Connection, stream: str, *, seq: int = 0, subject: str = "") -> Message | None:
    """Read one message from the stream's leader: that at ``seq``, the last of ``subject``, or, with both, the first of
    ``subject`` from ``seq`` on; None if there is none.

    Raises:
        Unavailable: The broker is away.
        Refused: The stream is not there.
    """
    request: dict[str, Any] = {"seq": seq} if seq else {"last_by_subj": subject}
    if seq and subject:
        request["next_by_subj"] = subject
    try:
        answer = await conn.api(f"STREAM.MSG.GET.{stream}", request)
    except Refused as error:
        if error.is_not_found:
            return None
        raise
    raw = answer["message"]
    data = base64.b64decode(raw["data"]) if raw.get("data") else b""
    headers = parsed(base64.b64decode(raw["hdrs"])) if raw.get("hdrs") else {}
    return Message(raw["seq"], nanoseconds(raw["time"]) / _NS, raw["subject"], data, headers)


class _Walk(NamedTuple):
    """What a walker found, and from where and up to where that is all; it was to go to ``last``."""

    found: list[Message]
    first: int
    reached: int
    last: int


class Reader:
    """Reads what some filters select of a stream, in stream order; what was purged or deleted is not there.

    A stretch is cut in as many parts as walkers go at a time, since each step is a question and its answer. Where few
    positions hold a message of ours the stretches become longer, so that a rare subject costs few questions; and
    shorter where messages are so large that the walkers would not bring home all of one.
    """

    def __init__(self, conn: Connection, stream: str, subjects: tuple[str, ...]) -> None:
        self._conn = conn
        self._stream = stream
        self._subjects = subjects or (">",)
        self._span = _WALKERS  # until it is known how large messages are

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
        done = await asyncio.gather(*walks)
        self._learn(done)
        messages: list[Message] = []
        for walk in done:
            messages += walk.found
            if walk.reached < walk.last:  # it had its load; what those behind it found is read again
                return messages, walk.reached
        return messages, last

    def _learn(self, walks: list[_Walk]) -> None:
        count = sum(len(walk.found) for walk in walks)
        size = sum(len(message.data) for walk in walks for message in walk.found)
        if any(walk.reached < walk.last for walk in walks):
            span = max(_NARROW, self._span // 4)
        elif count < _WALKERS:
            span = 4 * self._span
        else:
            span = max(self._span, min(4 * self._span, _NARROW))
        # With room to spare: messages are not all of one size.
        positions = sum(walk.reached - walk.first + 1 for walk in walks)
        self._span = max(1, min(span, positions * _WALKERS * _LOAD_BYTES // max(2 * size, 1)))

    async def _walk(self, first: int, last: int) -> _Walk:
        # The next message of each filter; the broker sees to it that no two select the same.
        heads = {subject: await self._next(subject, first) for subject in self._subjects}
        found: list[Message] = []
        size = 0
        while True:
            nearest = min((head.seq for head in heads.values() if head is not None), default=last + 1)
            if nearest > last:
                return _Walk(found, first, last, last)
            if len(found) == _LOAD or size >= _LOAD_BYTES:
                return _Walk(found, first, nearest - 1, last)
            for subject, head in heads.items():
                if head is not None and head.seq == nearest:
                    found.append(head)
                    size += len(head.data)
                    heads[subject] = await self._next(subject, nearest + 1) if nearest < last else None

    async def _next(self, subject: str, seq: int) -> Message | None:
        return await get_message(self._conn, self._stream, seq=seq, subject=subject)

"""Everything of a subject at once, as fast as the broker has it, without leaving anything behind there.

An ephemeral consumer without acknowledgements: it ends when the broker says that nothing is left, and any hiccup on the
way (a lost message shows in the consumer's own count) is ``Unavailable``: then all of it is read again.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from datetime import datetime, timezone
from typing import Any

from nats.aio.msg import Msg

from aipod.errors import Unavailable
from aipod.stream.broker.connection import Connection
from aipod.stream.broker.failures import translated
from aipod.stream.broker.headers import plain
from aipod.stream.errors import Refused
from aipod.stream.message import Message

__all__ = ["sweep"]

_BATCH = 500
_BATCH_BYTES = 8 << 20
# What whoever reads gets at a time, since to make something of it takes time that others on the loop wait for.
_PIECE = 50
_PIECE_BYTES = 256 << 10
_PATIENCE = 5.0
_FORGOTTEN_AFTER = 30.0  # the broker's own clean-up, should we not come to it
_EMPTY_ROUNDS = 3


async def sweep(
    connection: Connection, stream: str, subject: str, *, since: float | None = None
) -> AsyncGenerator[list[Message], None]:
    """Read a subject (a pattern, too) in the stream's order: what was stored at or after ``since`` (unix seconds), or,
    for None, the last message of each subject. To be closed with ``aclosing``.

    Raises:
        Unavailable: To be begun again.
    """
    config: dict[str, Any] = {
        "filter_subject": subject,
        "ack_policy": "none",
        "deliver_policy": "last_per_subject",
        "replay_policy": "instant",
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": int(_FORGOTTEN_AFTER * 1e9),
    }
    if since is not None:
        config["deliver_policy"] = "by_start_time"
        config["opt_start_time"] = datetime.fromtimestamp(max(0.0, since), timezone.utc).isoformat()
    try:
        consumer = await connection.api(f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": config})
        async with contextlib.aclosing(_Reading(connection, stream, consumer["name"]).batches()) as batches:
            async for batch in batches:
                yield batch
    except Refused as error:
        raise Unavailable(str(error)) from error


async def _remove(connection: Connection, stream: str, consumer: str) -> None:
    with contextlib.suppress(Exception):
        await connection.api(f"CONSUMER.DELETE.{stream}.{consumer}", timeout=1.0)


class _Reading:
    def __init__(self, connection: Connection, stream: str, consumer: str) -> None:
        self._connection = connection
        self._stream = stream
        self._consumer = consumer
        self._generation = connection.generation
        self._arrived: deque[Msg] = deque()
        self._news = asyncio.Event()
        self._count = 0  # of the consumer's messages, to see that none is missing

    async def batches(self) -> AsyncGenerator[list[Message], None]:
        nc = self._connection.nc
        inbox = nc.new_inbox()

        async def arrive(msg: Msg) -> None:
            self._arrived.append(msg)
            self._news.set()

        with translated("read a stream"):
            subscription = await nc.subscribe(f"{inbox}.*", cb=arrive)
        try:
            async with contextlib.aclosing(self._pull(inbox)) as pulled:
                async for batch in pulled:
                    yield batch
        finally:
            with contextlib.suppress(Exception):
                await subscription.unsubscribe()
            await _remove(self._connection, self._stream, self._consumer)

    async def _pull(self, inbox: str) -> AsyncGenerator[list[Message], None]:
        nc = self._connection.nc
        subject = f"{self._connection.spec.prefix}.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        size = max(_BATCH_BYTES, 2 * nc.max_payload)
        request = json.dumps({"batch": _BATCH, "max_bytes": size, "no_wait": True}).encode()
        empty = 0
        for number in itertools.count():
            reply = f"{inbox}.{number}"
            with translated("read a stream"):
                await nc.publish(subject, request, reply=reply)
            batch, left = await self._round(reply)
            for piece in _pieces(batch):
                yield piece
                await asyncio.sleep(0)
            empty = 0 if batch else empty + 1
            # What was left can have been removed meanwhile, and then nothing comes that would say so.
            if left == 0 or (not batch and await self._is_done()):
                return
            if empty == _EMPTY_ROUNDS:
                raise Unavailable(f"stream {self._stream} says that there is more, and sends nothing")

    async def _round(self, reply: str) -> tuple[list[Message], int | None]:
        """What one request brings, and how many messages are left after it; None if that is not known."""
        batch: list[Message] = []
        left: int | None = None
        while len(batch) < _BATCH and left != 0:
            if len(batch) % _PIECE == 0:
                await asyncio.sleep(0)
            msg = await self._next()
            if not msg.reply:  # a status, of this request or of one that was full before it came
                if "deleted" in str((msg.headers or {}).get("Description", "")).lower():
                    raise Unavailable("the broker has forgotten what was being read")
                if msg.subject == reply:
                    break
                continue
            data = msg.metadata
            self._count += 1
            if data.sequence.consumer != self._count:
                raise Unavailable("the broker's answer has a gap")
            left = data.num_pending
            stored = data.timestamp.timestamp()
            batch.append(Message(data.sequence.stream, stored, msg.subject, msg.data, plain(msg.headers)))
        return batch, left

    async def _next(self) -> Msg:
        while not self._arrived:
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), _PATIENCE)
            except asyncio.TimeoutError:
                raise Unavailable(f"stream {self._stream} cannot be read now") from None
        if self._connection.generation != self._generation:
            raise Unavailable("the connection broke while a stream was read")
        return self._arrived.popleft()

    async def _is_done(self) -> bool:
        info = await self._connection.api(f"CONSUMER.INFO.{self._stream}.{self._consumer}")
        # None may be on its way to us, either.
        return not info["num_pending"] and info["delivered"]["consumer_seq"] == self._count


def _pieces(batch: Sequence[Message]) -> Iterator[list[Message]]:
    piece: list[Message] = []
    size = 0
    for message in batch:
        piece.append(message)
        size += len(message.data)
        if len(piece) == _PIECE or size >= _PIECE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece

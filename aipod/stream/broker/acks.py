"""Acknowledgements, written in the background and in bulk.

An acknowledgement is a publication that nobody answers, and nothing depends on its arrival: one that is lost is made up
for when its message is delivered again. So none is kept while the broker is away.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable

import nats.errors

from aipod.stream.broker.connection import Connection
from aipod.stream.ending import end

__all__ = ["Acks"]

_log = logging.getLogger(__name__)

_ACK = b""  # the same as +ACK
_NAK = b"-NAK"
_PROGRESS = b"+WPI"
# So many are written before others have their turn on the loop.
_TURN = 250


class Acks:
    """Belongs to the loop.

    Args:
        handle: Says how a message that is held is to be acknowledged; "" if it is not held, or not known.
        ack_wait: Of the consumer; what is held is reported to be in progress at every third of it.
    """

    def __init__(
        self,
        conn: Connection,
        handle: Callable[[int], str],
        ack_wait: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._conn = conn
        self._handle = handle
        self._every = ack_wait / 3
        self._clock = clock
        self._ready: deque[str] = deque()
        # Batches of what was delivered, by when they are due; the oldest first, since all wait equally long.
        self._due: deque[tuple[float, list[int]]] = deque()
        self._news = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._tasks = {asyncio.ensure_future(self._write()), asyncio.ensure_future(self._report())}

    def done(self, replies: Iterable[str]) -> None:
        """Acknowledge deliveries, soon."""
        self._ready.extend(replies)
        self._news.set()

    def delivered(self, seqs: list[int]) -> None:
        """Keep these alive for as long as they are held; the list is ours from now on."""
        self._due.append((self._clock() + self._every, seqs))

    async def stop(self, returned: Iterable[str] = ()) -> None:
        """Write what is still to be written, hand back what was not worked on, and end."""
        if not self._tasks:
            return
        await end(self._tasks)
        self._tasks = set()
        await self._send(self._ready, _ACK)
        await self._send(deque(returned), _NAK)

    async def _write(self) -> None:
        while True:
            # All that becomes ready in one turn of the loop leaves together.
            await self._news.wait()
            self._news.clear()
            await self._send(self._ready, _ACK)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self._every / 3))
            while self._due and self._due[0][0] <= self._clock():
                await self._keep_alive(self._due.popleft()[1])

    async def _keep_alive(self, seqs: list[int]) -> None:
        # What is done has no handle any more, and leaves the rounds. What was read from the stream has none yet: the
        # broker will deliver it again, and puts it into the rounds by that.
        held = [(seq, reply) for seq in seqs if (reply := self._handle(seq))]
        if not held:
            return
        self._due.append((self._clock() + self._every, [seq for seq, _ in held]))
        await self._send(deque(reply for _, reply in held), _PROGRESS)

    async def _send(self, replies: deque[str], what: bytes) -> None:
        """Write all, in turns, or drop all if the broker is away."""
        while replies:
            if not self._conn.connected:
                replies.clear()
                return
            nc = self._conn.nc
            try:
                for _ in range(min(_TURN, len(replies))):
                    await nc.publish(replies.popleft(), what)
            except Exception as error:
                # Whatever it is: who writes them must not end, or nothing would ever be acknowledged again.
                foreseen = isinstance(error, (nats.errors.Error, OSError))
                level = logging.DEBUG if foreseen else logging.ERROR
                _log.log(level, "acknowledgements were not sent: %s", error, exc_info=not foreseen)
                replies.clear()
            if replies:
                await asyncio.sleep(0)

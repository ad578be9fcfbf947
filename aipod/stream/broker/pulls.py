"""Our own pull loop: requests that overlap, are short, and are asked again when nothing is heard of them.

The client's ``fetch`` costs a task for every message, returns at the first, drops what it holds when it is cancelled,
and sits out its whole timeout when the broker restarts. Here messages arrive in a deque, and nobody waits for one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from aipod.stream.broker.connection import Connection
from aipod.stream.ending import end
from aipod.stream.pauses import Pauses

__all__ = ["Pulls", "place_of"]

_log = logging.getLogger(__name__)

_BATCH = 1000
_REQUESTS = 2  # one is served while the other is on its way
_EXPIRES = 2.0
_HEARTBEAT = 0.5
_SILENCE = 3 * _HEARTBEAT
_PAUSES = (0.05, 1.0)
_SLACK = 65_536  # for headers, beside the largest payload
_NS = 1_000_000_000
_DRAINS_WITHIN = 2.0

# How statuses end a request. All else says that something is wrong with the consumer or its leader.
_HEARD = "100"
_EXPIRED = ("404", "408")
_COMPLETED = "Batch Completed"
_TOO_LARGE = "Message Size Exceeds MaxBytes"


def place_of(reply: str) -> tuple[int, int, int, int]:
    """Read the reply subject of a delivery: ``$JS.ACK.<stream>.<consumer>.`` and five numbers, of which the first, how
    often the message was delivered, is nothing to us. Newer brokers put domain and account before them, and a token
    after.

    Returns:
        The message's position in the stream; the number of this delivery among all of the consumer, which follow each
        other without holes; when the message was stored, in nanoseconds; how many are behind it that were never
        delivered.

    Raises:
        ValueError: It is nothing of the kind.
    """
    tokens = reply.split(".")
    first = 5 if len(tokens) == 9 else 7
    seq, cseq, stored, pending = tokens[first : first + 4]
    return int(seq), int(cseq), int(stored), int(pending)


class Pulls:
    """Requests of one consumer. Belongs to the loop.

    Args:
        room: Says how many messages, and how many bytes, may still come beyond what has been asked for and beyond
            what lies in ``queue``.
        wake: Called when there is something new to look at.

    Attributes:
        queue: Deliveries, in the order in which they came, for whoever reads them to take away.
        doubt: Whether something was heard, or not heard, that calls for a look at the consumer.
    """

    def __init__(
        self,
        conn: Connection,
        stream: str,
        durable: str,
        room: Callable[[], tuple[int, int]],
        wake: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.queue: deque[Msg] = deque()
        self.doubt = False
        self._conn = conn
        self._subject = f"{conn.spec.prefix}.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._room = room
        self._wake = wake
        self._clock = clock
        # What is still owed to each request, the oldest first: the broker serves them in that order.
        self._owed: dict[str, int] = {}
        # Deliveries that were not counted against the requests yet.
        self._came = 0
        self._asked = 0
        self._client: Client | None = None
        self._subscription: Subscription | None = None
        self._inbox = ""
        self._heard = 0.0
        self._pauses = Pauses(*_PAUSES)
        self._not_before = 0.0
        self._any_size = False
        self._stopped = False

    @property
    def queued_bytes(self) -> int:
        """The payloads in ``queue``."""
        return sum([len(msg.data) for msg in self.queue])

    @property
    def silent(self) -> bool:
        """Whether requests are out of which nothing was heard for longer than a heartbeat may take."""
        self._count()
        return bool(self._owed) and self._clock() - self._heard > _SILENCE

    def forget(self) -> None:
        """Take all requests for lost, as after a reconnection; what comes of them after all is welcome."""
        self._owed.clear()
        self._came = 0

    async def ask(self) -> None:
        """Ask for more, as far as there is room and the broker is there."""
        self._count()
        conn = self._conn
        if self._stopped or not conn.connected or len(self._owed) >= _REQUESTS or self._clock() < self._not_before:
            return
        if len(self.queue) > _REQUESTS * _BATCH:
            return  # whoever reads them is slow; what the broker keeps does not grow old here
        outstanding = sum(self._owed.values())
        messages, size = self._room()
        batch = min(messages - outstanding, _BATCH)
        # A small request beside another is put off until it is worth the while.
        if batch <= 0 or size <= 0 or (outstanding and batch < min(_BATCH, messages) // 2):
            return
        try:
            await self._request(batch, size)
        except nats.errors.Error as error:
            # The connection broke under it; its return begins anew.
            _log.debug("a pull request was not sent: %s", error)
            self.forget()

    async def stop(self) -> None:
        """Take nothing more; what the broker was to send to us stays with it."""
        self._stopped = True
        subscription: Any = self._subscription
        self._subscription = None
        self.forget()
        if subscription is not None:
            # What is sent until the broker knows of it still arrives, and can be given back: unsubscribe() drops it.
            leaving = subscription.drain() if self._conn.connected else subscription.unsubscribe()
            ending = asyncio.ensure_future(leaving)
            await asyncio.wait({ending}, timeout=_DRAINS_WITHIN)
            await end([ending])

    async def _request(self, batch: int, size: int) -> None:
        nc = self._conn.nc
        if self._client is not nc:
            self._client, self._inbox = nc, nc.new_inbox()
            # The bound on what is pending is what we ask for; the client would drop what is above its own.
            self._subscription = await nc.subscribe(f"{self._inbox}.*", cb=self._arrived, pending_bytes_limit=0)
        self._asked += 1
        inbox = f"{self._inbox}.{self._asked}"
        request: dict[str, Any] = {
            "batch": batch,
            "expires": round(_EXPIRES * _NS),
            "idle_heartbeat": round(_HEARTBEAT * _NS),
        }
        if self._any_size:
            request["batch"] = batch = 1
            self._any_size = False
        else:
            # Less than one message may have would be refused for ever.
            request["max_bytes"] = max(size // _REQUESTS, nc.max_payload + _SLACK)
        if not self._owed:
            self._heard = self._clock()
        self._owed[inbox] = batch
        await nc.publish(self._subject, json.dumps(request).encode(), reply=inbox)

    async def _arrived(self, msg: Msg) -> None:
        # The busiest function of this package: all that can be done for many messages at once is done elsewhere.
        if not msg.reply.startswith("$JS.ACK."):
            self._status(msg)
            return
        self._came += 1
        self.queue.append(msg)
        if len(self.queue) == 1:
            self._wake()

    def _count(self) -> None:
        """Count what has come against what was asked for."""
        came, self._came = self._came, 0
        if came:
            self._heard = self._clock()
            self._pauses.reset()
        while came and self._owed:
            inbox, owed = next(iter(self._owed.items()))
            if owed > came:
                self._owed[inbox] = owed - came
                return
            del self._owed[inbox]
            came -= owed

    def _status(self, msg: Msg) -> None:
        self._count()
        self._heard = self._clock()
        headers = msg.headers or {}
        status, text = headers.get("Status", ""), headers.get("Description", "")
        if status == _HEARD:
            return
        self._owed.pop(msg.subject, None)
        if status in _EXPIRED or text == _COMPLETED:
            self._pauses.reset()
        elif text == _TOO_LARGE:
            self._any_size = True
        else:
            _log.debug("a pull request ended with %s %s", status, text)
            self.doubt = True
            self._not_before = self._clock() + self._pauses.next()
        self._wake()

"""Questions to the broker, each with one answer.

The client's own ``request`` waits out its timeout when the connection breaks under it. Here whoever waits is told at
once, since after a reconnection no answer comes any more.
"""

from __future__ import annotations

import asyncio

from nats.aio.client import Client
from nats.aio.msg import Msg

from aipod.errors import Unavailable

__all__ = ["NobodyThere", "Requests"]

_NOBODY = "503"


class NobodyThere(Unavailable):
    """Nobody listens on the subject."""

    def __init__(self) -> None:
        super().__init__("JetStream is not available now; is it switched on?")


class Requests:
    """Of one client. Belongs to the loop."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._inbox = nc.new_inbox()
        self._asked = 0
        self._waiting: dict[str, asyncio.Future[Msg | None]] = {}

    async def open(self) -> None:
        await self._nc.subscribe(f"{self._inbox}.*", cb=self._answered, pending_bytes_limit=0)

    async def ask(self, subject: str, payload: bytes, timeout: float, headers: dict[str, str] | None = None) -> Msg:
        """Raises what the client raises, and :class:`~aipod.errors.Unavailable` if no answer comes."""
        loop = asyncio.get_running_loop()
        self._asked += 1
        inbox = f"{self._inbox}.{self._asked}"
        waiter = self._waiting[inbox] = loop.create_future()
        timer = loop.call_later(timeout, _settle, waiter, None)
        try:
            await self._nc.publish(subject, payload, reply=inbox, headers=headers)
            answer: Msg | None = await waiter
        finally:
            timer.cancel()
            del self._waiting[inbox]
        if answer is None:
            raise Unavailable("the broker does not answer now", may_have_run=True)
        if not answer.data and (answer.headers or {}).get("Status") == _NOBODY:
            raise NobodyThere
        return answer

    def give_up(self) -> None:
        """Tell all who wait that the connection is gone."""
        for waiter in self._waiting.values():
            _settle(waiter, None)

    async def _answered(self, msg: Msg) -> None:
        if (waiter := self._waiting.get(msg.subject)) is not None:
            _settle(waiter, msg)


def _settle(waiter: asyncio.Future[Msg | None], answer: Msg | None) -> None:
    if not waiter.done():
        waiter.set_result(answer)

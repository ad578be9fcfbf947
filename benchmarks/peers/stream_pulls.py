"""The limit: overlapped pull requests, an acknowledgement for each message, nothing else.

``python -m benchmarks.peers.stream_pulls BROKER STREAM DURABLE``
"""

from __future__ import annotations

import asyncio
import json
import sys

import nats
from nats.aio.msg import Msg

_BATCH = 500
_OVERLAP = 4
_EXPIRES = 2.0


async def run(broker: str, stream: str, durable: str) -> None:
    """Pull for ever. The next request leaves when one has come to its end, while the other is being answered."""
    client = await nats.connect(broker)
    inbox = client.new_inbox()
    request = json.dumps({"batch": _BATCH, "expires": int(_EXPIRES * 1e9)}).encode()
    received = 0

    async def ask() -> None:
        await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}", request, reply=inbox)

    async def take(message: Msg) -> None:
        nonlocal received
        if message.headers and "Status" in message.headers:
            await ask()  # the request has expired
            return
        await client.publish(message.reply, b"+ACK")
        received += 1
        if received % _BATCH == 0:
            await ask()

    await client.subscribe(inbox, cb=take, pending_msgs_limit=-1, pending_bytes_limit=-1)
    for _ in range(_OVERLAP):
        await ask()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:]))

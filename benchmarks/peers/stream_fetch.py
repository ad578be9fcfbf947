"""The pipeline by hand: nats-py's ``fetch``, a bare gRPC stub, a result, acknowledgements.

``python -m benchmarks.peers.stream_fetch BROKER STREAM DURABLE RESULTS MODEL``
"""

from __future__ import annotations

import asyncio
import json
import sys

import grpc.aio
import nats
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NothingCame

from benchmarks.peers.stub import Stub

_WINDOW = 100
_PATIENCE = 5.0


async def run(broker: str, stream: str, durable: str, results: str, model: str) -> None:
    client = await nats.connect(broker)
    jetstream = client.jetstream()
    messages = await jetstream.pull_subscribe_bind(durable=durable, stream=stream)
    async with grpc.aio.insecure_channel(model) as channel:
        stub = Stub(channel)
        while True:
            window: list[Msg] = []
            while len(window) < _WINDOW:
                try:
                    window += await messages.fetch(_WINDOW - len(window), timeout=_PATIENCE)
                except NothingCame:
                    continue
            mean = await stub.mean([json.loads(message.data)["value"] for message in window])
            await jetstream.publish(results, json.dumps(mean).encode())
            for message in window:
                await message.ack()


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:]))

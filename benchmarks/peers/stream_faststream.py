"""The pipeline in FastStream: a batch subscriber and a publisher, with the same stub in between.

``python -m benchmarks.peers.stream_faststream BROKER STREAM DURABLE RESULTS MODEL``
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc.aio
from faststream import FastStream
from faststream.nats import JStream, NatsBroker, PullSub

from benchmarks.peers.stub import Stub

_WINDOW = 100
_PATIENCE = 5.0


async def run(address: str, stream: str, durable: str, results: str, model: str) -> None:
    broker = NatsBroker(address, logger=None)
    pulls = PullSub(batch_size=_WINDOW, timeout=_PATIENCE, batch=True)
    async with grpc.aio.insecure_channel(model) as channel:
        stub = Stub(channel)

        @broker.subscriber(stream, stream=JStream(stream, declare=False), durable=durable, pull_sub=pulls)
        async def predict(messages: list[dict[str, Any]]) -> None:
            mean = await stub.mean([message["value"] for message in messages])
            await broker.publish(mean, results, stream=results)

        await FastStream(broker, logger=None).run()


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:]))

"""mosec: a server in Rust, workers in Python; batches of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import mosec

from benchmarks import work
from benchmarks.order import Order
from benchmarks.peers import Raw, bodies, http

_PATH = "/inference"
_MOST_BYTES = 2**30
_MAX_WAIT_MILLISECONDS = 10


def blocking(order: Order) -> Callable[[], Any]:
    return http.blocking(order, _PATH)


async def awaiting(order: Order) -> Callable[[], Awaitable[Any]]:
    return await http.awaiting(order, _PATH)


def raw(order: Order) -> Raw:
    return http.raw(order, _PATH)


class Tiny(mosec.Worker):
    def forward(self, data: dict[str, Any]) -> float:
        return work.predict(**data)


class Batch(mosec.Worker):
    def forward(self, data: list[dict[str, Any]]) -> list[float]:
        return work.predict_batch([one["x"] for one in data])


class Sum(mosec.Worker):
    def deserialize(self, data: bytes) -> Any:
        return bodies.unpack_array(data)

    def forward(self, data: Any) -> tuple[Any, float]:
        return work.predict_sum(data)

    def serialize(self, data: tuple[Any, float]) -> bytes:
        return bodies.pack_sum(*data)


def serve(asked: str, port: str, workers: str) -> None:
    os.environ.update(MOSEC_ADDRESS="127.0.0.1", MOSEC_PORT=port, MOSEC_MAX_REQUEST_SIZE=str(_MOST_BYTES))
    os.environ.update(MOSEC_LOG_LEVEL="warning")
    server = mosec.Server()
    if asked == "batch":
        server.append_worker(Batch, int(workers), work.BATCH_SIZE, _MAX_WAIT_MILLISECONDS)
    else:
        server.append_worker(Sum if asked == "sum" else Tiny, int(workers))
    server.run()


if __name__ == "__main__":
    serve(*sys.argv[1:])

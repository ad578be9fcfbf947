"""LitServe: FastAPI in front, workers behind a queue; batches of its own."""

import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import litserve
from fastapi import Body, Response

from benchmarks import work
from benchmarks.order import Order
from benchmarks.peers import Raw, bodies, http

_PATH = "/predict"
_BATCH_TIMEOUT = 0.01


def blocking(order: Order) -> Callable[[], Any]:
    return http.blocking(order, _PATH)


async def awaiting(order: Order) -> Callable[[], Awaitable[Any]]:
    return await http.awaiting(order, _PATH)


def raw(order: Order) -> Raw:
    return http.raw(order, _PATH)


class Tiny(litserve.LitAPI):
    def setup(self, device: str) -> None: ...

    def predict(self, data: dict[str, Any]) -> float:
        return work.predict(**data)


class Batch(litserve.LitAPI):
    def setup(self, device: str) -> None: ...

    def batch(self, inputs: list[dict[str, Any]]) -> list[float]:
        return [one["x"] for one in inputs]

    def predict(self, data: list[float]) -> list[float]:
        return work.predict_batch(data)


class Sum(litserve.LitAPI):
    # The annotation is what tells LitServe to hand over the body as it is; so it must be no text.
    def decode_request(self, request: Annotated[bytes, Body()]) -> Any:
        return bodies.unpack_array(request)

    def setup(self, device: str) -> None: ...

    def predict(self, data: Any) -> tuple[Any, float]:
        return work.predict_sum(data)

    def encode_response(self, output: tuple[Any, float]) -> Response:
        return Response(bodies.pack_sum(*output))


def serve(asked: str, port: str, workers: str) -> None:
    api: litserve.LitAPI = Sum() if asked == "sum" else Tiny()
    if asked == "batch":
        api = Batch(max_batch_size=work.BATCH_SIZE, batch_timeout=_BATCH_TIMEOUT)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=int(workers))
    server.run(host="127.0.0.1", port=int(port), log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    serve(*sys.argv[1:])

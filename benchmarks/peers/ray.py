"""Ray Serve: proxies and replicas as actors; called through its gRPC proxy, which is faster than its HTTP one."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import ray
from google.protobuf.wrappers_pb2 import BytesValue
from ray import serve as ray_serve
from ray.serve.config import HTTPOptions, gRPCOptions

from benchmarks import work
from benchmarks.order import Order
from benchmarks.peers import Raw, bodies
from benchmarks.ports import free_port

_SERVICE = "benchmark.Model"
_METHOD = f"/{_SERVICE}/Predict"
_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_BATCH_WAIT = 0.01
# Of callers that a replica takes at a time; with the default of 5 there are no larger batches.
_ONGOING = 128


def blocking(order: Order) -> Callable[[], Any]:
    predict = _stub(grpc.insecure_channel(order.address, options=_UNLIMITED))
    ask, take = bodies.sides(order)
    return lambda: take(predict(BytesValue(value=ask())).value)


async def awaiting(order: Order) -> Callable[[], Awaitable[Any]]:
    predict = _stub(grpc.aio.insecure_channel(order.address, options=_UNLIMITED))
    ask, take = bodies.sides(order)

    async def call() -> Any:
        return take((await predict(BytesValue(value=ask()))).value)

    return call


def raw(order: Order) -> Raw:
    ask, _ = bodies.sides(order)
    return Raw(_METHOD, BytesValue(value=ask()).SerializeToString())


def _stub(channel: Any) -> Any:
    """As the compiler of gRPC makes it."""
    return channel.unary_unary(_METHOD, BytesValue.SerializeToString, BytesValue.FromString)


def add_servicer(servicer: Any, server: Any) -> None:
    """Likewise; Ray's proxies call it."""
    handler = grpc.unary_unary_rpc_method_handler(servicer.Predict, BytesValue.FromString, BytesValue.SerializeToString)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {"Predict": handler}),))


# The models' methods are named as gRPC's.


class Tiny:
    def Predict(self, request: BytesValue) -> BytesValue:
        return BytesValue(value=json.dumps(work.predict(**json.loads(request.value))).encode())


class Batch:
    async def Predict(self, request: BytesValue) -> BytesValue:
        return BytesValue(value=json.dumps(await self.predict(json.loads(request.value)["x"])).encode())

    @ray_serve.batch(max_batch_size=work.BATCH_SIZE, batch_wait_timeout_s=_BATCH_WAIT)
    async def predict(self, x: list[float]) -> list[float]:
        return work.predict_batch(x)


class Sum:
    def Predict(self, request: BytesValue) -> BytesValue:
        return BytesValue(value=bodies.pack_sum(*work.predict_sum(bodies.unpack_array(request.value))))


def serve(asked: str, port: str, workers: str) -> None:
    ray.init(include_dashboard=False, logging_level="error", log_to_driver=False)
    ray_serve.start(
        http_options=HTTPOptions(host="127.0.0.1", port=free_port()),
        grpc_options=gRPCOptions(port=int(port), grpc_servicer_functions=[f"{__spec__.name}.add_servicer"]),
    )
    model = {"tiny": Tiny, "batch": Batch, "sum": Sum}[asked]
    deployment = ray_serve.deployment(num_replicas=int(workers), max_ongoing_requests=_ONGOING)(model)
    ray_serve.run(deployment.bind())
    threading.Event().wait()


if __name__ == "__main__":
    serve(*sys.argv[1:])

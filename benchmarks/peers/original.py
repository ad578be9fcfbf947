"""The construction of aipod 1.0, in the least code that has its costs. ``python -m benchmarks.peers.original MODEL``

A synchronous server with 12 threads; arguments and results as JSON in a bytes field of protobuf; gzip on every
response; one lock around the pool, held while a model loads.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from aipod.rpc.ai_pb2 import Input, Output
from benchmarks import models
from benchmarks.order import Order

_METHOD = "/ai.AI/predict"
_THREADS = 12


class _Pool:
    def __init__(self, model_class: type[Any]) -> None:
        self._model_class = model_class
        self._lock = threading.Lock()
        self._instances: dict[str, Any] = {}

    def get(self, version: str) -> Any:
        with self._lock:
            if version not in self._instances:
                self._instances[version] = self._model_class(version)
                self._instances[version].load()
            return self._instances[version]


def blocking(order: Order) -> Callable[[], Any]:
    return _caller(order, "default")


def loader(order: Order) -> Callable[[], Any]:
    return _caller(order, order.loading)


def _caller(order: Order, version: str) -> Callable[[], Any]:
    channel = grpc.insecure_channel(order.address)
    predict = channel.unary_unary(_METHOD, Input.SerializeToString, Output.FromString)
    kwargs = order.question()

    def call() -> Any:
        reply = predict(Input(kwargs_json=json.dumps(kwargs).encode(), version=version))
        return json.loads(reply.data_json)

    return call


def serve(model_class: type[Any]) -> None:
    pool = _Pool(model_class)

    def predict(request: Input, context: grpc.ServicerContext) -> Output:
        result = pool.get(request.version).predict(**json.loads(request.kwargs_json))
        return Output(data_json=json.dumps(result).encode())

    handler = grpc.unary_unary_rpc_method_handler(predict, Input.FromString, Output.SerializeToString)
    server = grpc.server(ThreadPoolExecutor(_THREADS), compression=grpc.Compression.Gzip)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("ai.AI", {"predict": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"original: serving on 127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    serve(getattr(models, sys.argv[1]))

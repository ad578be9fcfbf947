"""pytriton: NVIDIA's Triton in C++ in front, the model in Python; batches of its own."""

from __future__ import annotations

import os
import signal
import sys
import sysconfig
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
from pytriton.client import AsyncioModelClient, ModelClient
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
from tritonclient.grpc import service_pb2

from benchmarks import work
from benchmarks.order import Order
from benchmarks.peers import Raw
from benchmarks.peers.v2 import MODEL, Protocol
from benchmarks.ports import free_port

_BATCH_WAIT_MICROSECONDS = 10_000
_X, _Y = (Tensor(name=name, dtype=np.float64, shape=(1,)) for name in "xy")
_NAME, _VALUES = Tensor(name="name", dtype=bytes, shape=(1,)), Tensor(name="values", dtype=np.int64, shape=(-1,))
_DATA = Tensor(name="data", dtype=np.float32, shape=(-1,))
_OPEN = {"lazy_init": True, "ensure_model_is_ready": False}


def blocking(order: Order) -> Callable[[], Any]:
    """A client for each thread, as its documentation asks for."""
    local = threading.local()
    ask, take = _sides(order)

    def call() -> Any:
        if not hasattr(local, "client"):
            local.client = ModelClient(f"grpc://{order.address}", MODEL, **_OPEN)
        return take(local.client.infer_sample(**ask()))

    return call


async def awaiting(order: Order) -> Callable[[], Awaitable[Any]]:
    client = AsyncioModelClient(f"grpc://{order.address}", MODEL, **_OPEN)
    ask, take = _sides(order)

    async def call() -> Any:
        return take(await client.infer_sample(**ask()))

    return call


def raw(order: Order) -> Raw:
    return Protocol(service_pb2, object).raw(order)


def _sides(order: Order) -> tuple[Callable[[], dict[str, Any]], Callable[[Any], Any]]:
    """What makes the inputs, and what takes the answer from the outputs."""
    kwargs = order.question()
    if order.work == "sum":
        return (lambda: kwargs), lambda outputs: (outputs["data"], float(outputs["y"][0]))
    if order.work == "batch":
        return (lambda: {"x": np.array([kwargs["x"]])}), lambda outputs: float(outputs["y"][0])

    def tiny() -> dict[str, Any]:
        name = np.array([kwargs["name"].encode()])
        return {"x": np.array([kwargs["x"]]), "name": name, "values": np.array(kwargs["values"])}

    return tiny, lambda outputs: float(outputs["y"][0])


def predict_tiny(requests: list[Any]) -> list[dict[str, Any]]:
    return [{"y": np.array([work.predict(one["x"][0], one["name"][0], one["values"])])} for one in requests]


@batch
def predict_batch(x: Any) -> dict[str, Any]:
    return {"y": np.array(work.predict_batch(x))}


def predict_sum(requests: list[Any]) -> list[dict[str, Any]]:
    answers = (work.predict_sum(one["data"]) for one in requests)
    return [{"data": data, "y": np.array([total])} for data, total in answers]


def serve(asked: str, port: str, workers: str) -> None:
    infer: Callable[..., Any]
    infer, inputs, outputs = {
        "tiny": (predict_tiny, [_X, _NAME, _VALUES], [_Y]),
        "batch": (predict_batch, [_X], [_Y]),
        "sum": (predict_sum, [_DATA], [_DATA, _Y]),
    }[asked]
    config = ModelConfig(batching=False)
    if asked == "batch":
        batcher = DynamicBatcher(max_queue_delay_microseconds=_BATCH_WAIT_MICROSECONDS)
        config = ModelConfig(max_batch_size=work.BATCH_SIZE, batcher=batcher)
    # Triton's own interpreter looks for the library of ours.
    os.environ["LD_LIBRARY_PATH"] = sysconfig.get_config_var("LIBDIR")
    ports = TritonConfig(http_port=free_port(), grpc_port=int(port), metrics_port=free_port())
    # It ends in order if it is interrupted, and not if it is told to end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Triton(config=ports, workspace=Path("workspace")) as triton:
        triton.bind(MODEL, [infer] * int(workers), inputs, outputs, config=config, strict=False)
        triton.serve()


if __name__ == "__main__":
    serve(*sys.argv[1:])

"""What the callers of servers that speak V2, the open inference protocol over gRPC, have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import grpc
import grpc.aio
import numpy as np

from benchmarks.order import Order
from benchmarks.peers import Raw

__all__ = ["Protocol"]

_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_METHOD = "/inference.GRPCInferenceService/ModelInfer"
MODEL = "model"


class Protocol:
    """Calls by generated stubs.

    Args:
        messages: The generated module with the messages.
        stub: The generated stub's class.
    """

    def __init__(self, messages: ModuleType, stub: type[Any]) -> None:
        self._messages = messages
        self._stub = stub

    def blocking(self, order: Order) -> Callable[[], Any]:
        infer = self._stub(grpc.insecure_channel(order.address, options=_UNLIMITED)).ModelInfer
        ask, take = self._sides(order)
        return lambda: take(infer(ask()))

    async def awaiting(self, order: Order) -> Callable[[], Awaitable[Any]]:
        infer = self._stub(grpc.aio.insecure_channel(order.address, options=_UNLIMITED)).ModelInfer
        ask, take = self._sides(order)

        async def call() -> Any:
            return take(await infer(ask()))

        return call

    def raw(self, order: Order) -> Raw:
        ask, _ = self._sides(order)
        return Raw(_METHOD, ask().SerializeToString())

    def _sides(self, order: Order) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
        """What makes a request, and what takes the answer from a response."""
        kwargs = order.question()
        if order.work == "sum":
            return (lambda: self._ask_sum(kwargs["data"])), _take_sum
        if order.work == "batch":
            return (lambda: self._ask_batch(**kwargs)), _take_number
        return (lambda: self._ask_tiny(**kwargs)), _take_number

    def _ask_tiny(self, x: float, name: str, values: list[int]) -> Any:
        request = self._messages.ModelInferRequest(model_name=MODEL)
        request.inputs.add(name="x", datatype="FP64", shape=[1]).contents.fp64_contents.append(x)
        request.inputs.add(name="name", datatype="BYTES", shape=[1]).contents.bytes_contents.append(name.encode())
        request.inputs.add(name="values", datatype="INT64", shape=[len(values)]).contents.int64_contents.extend(values)
        return request

    def _ask_batch(self, x: float) -> Any:
        request = self._messages.ModelInferRequest(model_name=MODEL)
        request.inputs.add(name="x", datatype="FP64", shape=[1, 1]).contents.fp64_contents.append(x)
        return request

    def _ask_sum(self, data: Any) -> Any:
        request = self._messages.ModelInferRequest(model_name=MODEL, raw_input_contents=[data.tobytes()])
        request.inputs.add(name="data", datatype="FP32", shape=list(data.shape))
        return request


def _take_number(response: Any) -> float:
    return float(_tensor(response, 0, np.float64)[0])


def _take_sum(response: Any) -> tuple[Any, float]:
    return _tensor(response, 0, np.float32), float(_tensor(response, 1, np.float64)[0])


def _tensor(response: Any, index: int, dtype: Any) -> Any:
    if response.raw_output_contents:
        return np.frombuffer(response.raw_output_contents[index], dtype)
    contents = response.outputs[index].contents
    return np.array(contents.fp64_contents if dtype is np.float64 else contents.fp32_contents, dtype)

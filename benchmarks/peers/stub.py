"""A call on the model as somebody writes it who has the contract and no client: a bare stub, a message made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc.aio
import msgpack

from aipod.rpc.v1.model_pb2 import CallReply, CallRequest

_METHOD = "/aipod.v1.Model/Predict"


class Stub:
    """Asks the model for means; stands in every pipeline that we are compared with."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._predict = channel.unary_unary(_METHOD, CallRequest.SerializeToString, CallReply.FromString)

    async def mean(self, values: Sequence[float]) -> Any:
        reply = await self._predict(CallRequest(kwargs=msgpack.packb({"values": values})))
        return msgpack.unpackb(reply.value)

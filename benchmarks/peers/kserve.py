"""KServe's Python server: models behind V2. It has no batches of its own; calls run as they come."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.model_server import args
from kserve.protocol.grpc import grpc_predict_v2_pb2, grpc_predict_v2_pb2_grpc

from benchmarks import work
from benchmarks.peers.v2 import MODEL, Protocol

_MOST_BYTES = 2**30

_PROTOCOL = Protocol(grpc_predict_v2_pb2, grpc_predict_v2_pb2_grpc.GRPCInferenceServiceStub)
blocking, awaiting, raw = _PROTOCOL.blocking, _PROTOCOL.awaiting, _PROTOCOL.raw


class _Model(Model):
    def __init__(self) -> None:
        super().__init__(MODEL)
        self.ready = True

    def _response(self, payload: InferRequest, *outputs: Any) -> InferResponse:
        encoded = []
        for name, data in zip(("y", "total"), outputs, strict=False):
            output = InferOutput(name, list(data.shape), "FP32" if data.dtype == np.float32 else "FP64")
            output.set_data_from_numpy(data)
            encoded.append(output)
        return InferResponse(payload.id, self.name, encoded)


class Tiny(_Model):
    def predict(self, payload: InferRequest, *_: Any, **__: Any) -> InferResponse:
        x, name, values = (one.data for one in payload.inputs)
        return self._response(payload, np.array([work.predict(x[0], name[0], list(values))]))


class Batch(_Model):
    def predict(self, payload: InferRequest, *_: Any, **__: Any) -> InferResponse:
        return self._response(payload, np.array([work.predict_batch(payload.inputs[0].data)]))


class Sum(_Model):
    def predict(self, payload: InferRequest, *_: Any, **__: Any) -> InferResponse:
        data, total = work.predict_sum(payload.inputs[0].as_numpy())
        return self._response(payload, data, np.array([total]))


def serve(asked: str, port: str, workers: str) -> None:
    model = {"tiny": Tiny, "batch": Batch, "sum": Sum}[asked]()
    # These two are its command line's alone.
    args.grpc_max_receive_message_length = args.grpc_max_send_message_length = _MOST_BYTES
    ModelServer(http_port=0, grpc_port=int(port), workers=int(workers), enable_latency_logging=False).start([model])


if __name__ == "__main__":
    serve(*sys.argv[1:])

"""MLServer: models behind V2; in its own process, but for batches, where it does better with a worker beside it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.grpc import dataplane_pb2, dataplane_pb2_grpc
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks import work
from benchmarks.peers.v2 import MODEL, Protocol

_MAX_BATCH_SECONDS = 0.01
_MOST_BYTES = 2**30

_PROTOCOL = Protocol(dataplane_pb2, dataplane_pb2_grpc.GRPCInferenceServiceStub)
blocking, awaiting, raw = _PROTOCOL.blocking, _PROTOCOL.awaiting, _PROTOCOL.raw


class _Model(MLModel):
    def _response(self, *outputs: Any) -> InferenceResponse:
        encoded = [NumpyCodec.encode_output(name, one) for name, one in zip(("y", "total"), outputs, strict=False)]
        return InferenceResponse(model_name=self.name, outputs=encoded)


class Tiny(_Model):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x, name, values = (one.data for one in payload.inputs)
        return self._response(np.array([work.predict(x[0], name[0], list(values))]))


class Batch(_Model):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        return self._response(np.array(work.predict_batch(NumpyCodec.decode_input(payload.inputs[0]))))


class Sum(_Model):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        data, total = work.predict_sum(NumpyCodec.decode_input(payload.inputs[0]))
        return self._response(data, np.array([total]))


def serve(asked: str, port: str, workers: str) -> None:
    """Become ``mlserver start`` on a directory, which is how its models are run."""
    settings = {
        "host": "127.0.0.1",
        "http_port": 0,
        "grpc_port": int(port),
        "metrics_port": 0,
        "debug": False,
        "parallel_workers": int(workers) if asked == "batch" else 0,
        "grpc_max_message_length": _MOST_BYTES,
    }
    model: dict[str, Any] = {"name": MODEL, "implementation": f"benchmarks.peers.mlserver.{asked.capitalize()}"}
    if asked == "batch":
        model.update(max_batch_size=work.BATCH_SIZE, max_batch_time=_MAX_BATCH_SECONDS)
    Path("settings.json").write_text(json.dumps(settings), encoding="utf-8")
    Path("model-settings.json").write_text(json.dumps(model), encoding="utf-8")
    server = Path(sys.executable).with_name("mlserver")
    os.execv(server, [str(server), "start", "."])


if __name__ == "__main__":
    serve(*sys.argv[1:])

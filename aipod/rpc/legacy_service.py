"""``ai.AI``: the wire of aipod 1.0, for its clients as they are. JSON both ways, ``binary_data`` beside it.

The results are 1.0's, the statuses are ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy
from google.protobuf.message import DecodeError

from aipod.engine import Call, Engine
from aipod.errors import AipodError, InvalidArgument, ModelError, SerializationError
from aipod.rpc.ai_pb2 import Input, Output
from aipod.rpc.front import RawCall
from aipod.rpc.methods import LEGACY_METHODS
from aipod.rpc.model_service import default_timeouts
from aipod.rpc.refusal import Refusals

__all__ = ["LegacyService"]


class LegacyService:
    """Answers what a server of 1.0 would have answered.

    Args:
        engine: What runs the calls.
        refusals: How errors are answered.
    """

    def __init__(self, engine: Engine, refusals: Refusals) -> None:
        self._engine = engine
        self._refusals = refusals
        self._names = {path: name for name, path in LEGACY_METHODS.items()}

    @property
    def methods(self) -> Mapping[str, float | None]:
        return default_timeouts(LEGACY_METHODS, self._engine.settings)

    def __call__(self, raw: RawCall) -> None:
        try:
            request = Input.FromString(raw.message)
        except DecodeError:
            self._refusals.send(raw, InvalidArgument("the request is no ai.Input message"))
            return
        call = _LegacyCall(self._names[raw.method], request, raw, self._refusals)
        raw.on_gone(call.cancel)
        self._engine.submit(call)


class _LegacyCall(Call):
    __slots__ = ("_raw", "_refusals", "_request")

    def __init__(self, method: str, request: Input, raw: RawCall, refusals: Refusals) -> None:
        super().__init__(request.version, method, raw.deadline, len(raw.message))
        self._request = request
        self._raw = raw
        self._refusals = refusals

    def arguments(self) -> dict[str, Any]:
        try:
            kwargs = json.loads(self._request.kwargs_json or b"{}")
        except (ValueError, RecursionError) as error:
            raise SerializationError("kwargs_json", f"it is no JSON ({error}); send an object in UTF-8") from None
        if not isinstance(kwargs, dict):
            raise SerializationError("kwargs_json", f"a JSON {type(kwargs).__name__} is no object; send an object")
        binary_data = self._request.binary_data
        if binary_data:
            kwargs["binary_data"] = binary_data
        return kwargs

    def deliver(self, value: object) -> None:
        # 1.0 answered an initialize so, whatever the model returned.
        result = {"result": True} if self.method == "initialize" else value
        try:
            data = json.dumps(result, default=_plain).encode()
        except Exception as error:  # What a model returns can fail in any way while it is looked at.
            self.deliver_error(
                ModelError(f"{self.method}() returned what JSON cannot hold: {error}; use AIClient for more")
            )
        else:
            self._raw.reply(Output(data_json=data).SerializeToString())

    def deliver_error(self, error: AipodError) -> None:
        self._refusals.send(self._raw, error, self.version)


def _plain(value: object) -> object:
    """Numbers and arrays of numpy, which models return without noticing."""
    if isinstance(value, (numpy.generic, numpy.ndarray)):
        return value.tolist()
    raise TypeError(f"type {type(value).__name__} is not supported")

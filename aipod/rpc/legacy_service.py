"""``ai.AI``: the wire of aipod 1.0, for its clients as they are. JSON both ways, ``binary_data`` beside it.

The results are 1.0's, the statuses are ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy
from google.protobuf.message import DecodeError

from aipod.codec import MAX_WHOLE_BYTES
from aipod.engine import Call, Engine
from aipod.errors import AipodError, InvalidArgument, ModelError, Overloaded, SerializationError
from aipod.rpc.ai_pb2 import Input, Output
from aipod.rpc.front import RawCall
from aipod.rpc.methods import LEGACY_METHODS
from aipod.rpc.model_service import default_timeouts
from aipod.rpc.refusal import Refusals

__all__ = ["LegacyService"]

# In memory a list or an object can take fifty times the room of its text, and any value ten times, so they are counted
# (those that only stand in a string, too) before anything is read. An image of a million numbers passes, as pixels.
_MAX_CONTAINERS = 512 * 1024
_MAX_VALUES = 1024 * 1024


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
        limit = min(self._engine.settings.max_message_bytes, MAX_WHOLE_BYTES)
        call = _LegacyCall(self._names[raw.method], request, raw, self._refusals, limit)
        raw.on_gone(call.cancel)
        self._engine.submit(call)


class _LegacyCall(Call):
    __slots__ = ("_max_reply_bytes", "_raw", "_refusals", "_request")

    def __init__(self, method: str, request: Input, raw: RawCall, refusals: Refusals, max_reply_bytes: int) -> None:
        super().__init__(request.version, method, raw.deadline, len(raw.message))
        self._request: Input | None = request
        self._raw = raw
        self._refusals = refusals
        self._max_reply_bytes = max_reply_bytes

    def arguments(self) -> dict[str, Any]:
        # Not kept: a large request is free as soon as the model lets go of it.
        request, self._request = self._request, None
        if request is None:
            return {}
        kwargs = _object(request.kwargs_json or b"{}")
        if request.binary_data:
            kwargs["binary_data"] = request.binary_data
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
            return
        limit = self._max_reply_bytes
        # Protobuf would fail on what it cannot hold.
        reply = Output(data_json=data).SerializeToString() if len(data) <= limit else data
        if len(reply) > limit:
            self.deliver_error(Overloaded(f"the result takes {len(reply)} bytes, and {limit} are allowed; return less"))
        else:
            self._raw.reply(reply)

    def deliver_error(self, error: AipodError) -> None:
        self._refusals.send(self._raw, error, self.version)


def _object(text: bytes) -> dict[str, Any]:
    for count, limit, what in (
        (text.count(b"[") + text.count(b"{"), _MAX_CONTAINERS, "lists and objects"),
        (text.count(b",") + 1, _MAX_VALUES, "values"),
    ):
        if count > limit:
            problem = f"{count} {what} are too many, at most {limit} may come as JSON"
            raise SerializationError("kwargs_json", f"{problem}; send numbers in bulk as binary_data, or use AIClient")
    try:
        kwargs = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SerializationError("kwargs_json", f"it is no JSON ({error}); send an object in UTF-8") from None
    if not isinstance(kwargs, dict):
        raise SerializationError("kwargs_json", f"a JSON {type(kwargs).__name__} is no object; send an object")
    return kwargs


def _plain(value: object) -> object:
    """Numbers and arrays of numpy, which models return without noticing."""
    if isinstance(value, (numpy.generic, numpy.ndarray)):
        return value.tolist()
    raise TypeError(f"type {type(value).__name__} is not supported")

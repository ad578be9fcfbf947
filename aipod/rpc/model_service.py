"""``aipod.v1.Model``: calls on a model, as any gRPC client sends them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from aipod.codec import Limits, Message, Room, encode_reply, read_call, with_job, with_timings
from aipod.config import Settings
from aipod.engine import Call, Engine
from aipod.engine.call import check_priority
from aipod.errors import AipodError, InvalidArgument, ModelError, Overloaded, SerializationError
from aipod.rpc.front import RawCall
from aipod.rpc.methods import MODEL_METHODS
from aipod.rpc.refusal import Refusals
from aipod.rpc.trunk.chunks import LARGE_BYTES
from aipod.rpc.trunk.sharing import Lender, borrow
from aipod.rpc.v1.model_pb2 import Timings

__all__ = ["ModelService"]

_MAX_REQUEST_ID_BYTES = 200


class ModelService:
    """Hands calls to the engine and sends back what comes of them.

    Args:
        engine: What runs them.
        refusals: How errors are answered.
    """

    def __init__(self, engine: Engine, refusals: Refusals) -> None:
        self._engine = engine
        self._refusals = refusals
        self._settings = engine.settings
        self._limits = Limits(max_value_bytes=engine.settings.max_kwargs_bytes)
        self._reply_limits = Limits(max_value_bytes=engine.settings.max_result_bytes)
        self._names = {path: name for name, path in MODEL_METHODS.items()}

    @property
    def methods(self) -> Mapping[str, float | None]:
        return default_timeouts(MODEL_METHODS, self._settings)

    def __call__(self, raw: RawCall) -> None:
        link = raw.link
        try:
            message = read_call(raw.message, self._limits, partial(borrow, link) if link is not None else None)
            call = _ModelCall(self._names[raw.method], message, raw, self)
        except AipodError as error:
            self._refusals.send(raw, error)
            return
        limit = self._settings.max_message_bytes
        if call.size_bytes > limit:
            # What the front says of a message that comes whole.
            raw.fail(
                "RESOURCE_EXHAUSTED", f"SERVER: Received message larger than max ({call.size_bytes} vs. {limit})", ()
            )
            return
        raw.on_gone(call.cancel)
        self._engine.submit(call)

    def answer(self, call: _ModelCall, raw: RawCall, value: object) -> None:
        """Encode what the model returned, on the thread that ran it; never raises."""
        lender = Lender(lambda: raw.link) if raw.link is not None else None
        try:
            if call.detach and isinstance(value, dict):
                # Small, and of plain values: the fields of a job.
                raw.reply(with_job(encode_reply(value), value["id"]))
                return
            message = self._encode(value, lender, raw.room)
        except SerializationError as error:
            self.refuse(call, raw, ModelError(f"{call.method}() returned what cannot travel: {error}"))
        except Exception as error:  # What a model returns can fail in any way while it is looked at.
            self.refuse(call, raw, ModelError(f"{call.method}() returned what cannot be read ({type(error).__name__})"))
        else:
            size, limit = (
                len(message) + (lender.lent_bytes if lender is not None else 0),
                self._settings.max_message_bytes,
            )
            if size <= limit:
                raw.reply(call.with_timings(message), lender if lender is not None and lender.lent_bytes else None)
                return
            self.refuse(call, raw, Overloaded(f"the result takes {size} bytes, and {limit} are allowed; return less"))
        if lender is not None:
            lender.take_back()

    def _encode(self, value: object, lender: Lender | None, room: Room | None) -> bytes | memoryview:
        message = encode_reply(value, self._reply_limits, lender, room)
        if lender is not None and lender.lent_bytes and len(message) > LARGE_BYTES:
            # What goes in pieces may be given up on the way, and then nobody would say that the loans are over.
            lender.take_back()
            return encode_reply(value, self._reply_limits, room=room)
        return message

    def refuse(self, call: _ModelCall, raw: RawCall, error: AipodError) -> None:
        self._refusals.send(raw, error, call.version)


class _ModelCall(Call):
    __slots__ = ("_decode", "_encode_began", "_message", "_raw", "_read_early", "_service", "timed")

    def __init__(self, method: str, message: Message, raw: RawCall, service: ModelService) -> None:
        priority = check_priority(message.priority) if message.priority else 0
        super().__init__(message.version, method, raw.deadline, message.size_bytes, priority)
        self.timed = message.timed
        if method == "train":
            self.detach, self.request_id = message.detach, checked_request_id(message.request_id)
        elif message.detach:
            raise InvalidArgument(f"detach is for train; no job comes of {method}")
        self._message: Message | None = message
        self._raw = raw
        self._service = service
        self._decode = self._encode_began = 0.0
        self._read_early = False

    def arguments(self) -> dict[str, Any]:
        # Not kept: a large request is free as soon as the model lets go of it.
        message, self._message = self._message, None
        if message is None:
            return {}
        if not self.timed:
            return message.kwargs()
        began = time.monotonic()
        self._read_early = not self.started
        arguments = message.kwargs()
        self._decode = time.monotonic() - began
        return arguments

    def with_timings(self, reply: bytes | memoryview) -> bytes | memoryview:
        """The reply, with where the time went if the caller wants to know."""
        if not self.timed:
            return reply
        now = time.monotonic()
        queue, run = self.started - self.arrived, self._encode_began - self.started
        # For a batch arguments are read while the one before runs.
        if self._read_early:
            queue -= self._decode
        else:
            run -= self._decode
        timings = Timings(
            queue=max(0.0, queue),
            decode=self._decode,
            predict=max(0.0, run),
            encode=now - self._encode_began,
            total=now - self.arrived,
        )
        return with_timings(reply, timings.SerializeToString())

    def deliver(self, value: object) -> None:
        if self.timed:
            self._encode_began = time.monotonic()
        self._service.answer(self, self._raw, value)

    def deliver_error(self, error: AipodError) -> None:
        self._service.refuse(self, self._raw, error)


def checked_request_id(request_id: str) -> str:
    """
    Raises:
        InvalidArgument: It is too long, or nothing that could be shown.
    """
    if len(request_id.encode()) > _MAX_REQUEST_ID_BYTES or not request_id.isprintable():
        allowed = f"printable text of at most {_MAX_REQUEST_ID_BYTES} bytes"
        raise InvalidArgument(f"request_id names a train; send {allowed}, or none")
    return request_id


def default_timeouts(methods: Mapping[str, str], settings: Settings) -> dict[str, float | None]:
    """What holds for callers that set no timeout: a training may take for ever, nothing else may."""
    default = settings.default_timeout or None
    return {path: None if name == "train" else default for name, path in methods.items()}

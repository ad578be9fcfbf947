"""``aipod.v1.Model``: calls on a model, as any gRPC client sends them."""

from __future__ import annotations

from collections.abc import Mapping

from aipod.codec import Limits, Message, encode_reply, read_call
from aipod.config import Settings
from aipod.engine import Call, Engine
from aipod.errors import AipodError, ModelError, Overloaded, SerializationError
from aipod.rpc.front import RawCall
from aipod.rpc.methods import MODEL_METHODS
from aipod.rpc.refusal import Refusals

__all__ = ["ModelService"]


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
        try:
            message = read_call(raw.message, self._limits)
        except AipodError as error:
            self._refusals.send(raw, error)
            return
        call = _ModelCall(self._names[raw.method], message, raw, self)
        raw.on_gone(call.cancel)
        self._engine.submit(call)

    def answer(self, call: _ModelCall, raw: RawCall, value: object) -> None:
        """Encode what the model returned, on the thread that ran it; never raises."""
        try:
            message = encode_reply(value, self._reply_limits)
        except SerializationError as error:
            self.refuse(call, raw, ModelError(f"{call.method}() returned what cannot travel: {error}"))
        except Exception as error:  # What a model returns can fail in any way while it is looked at.
            self.refuse(call, raw, ModelError(f"{call.method}() returned what cannot be read ({type(error).__name__})"))
        else:
            limit = self._settings.max_message_bytes
            if len(message) > limit:
                self.refuse(
                    call,
                    raw,
                    Overloaded(f"the result takes {len(message)} bytes, and {limit} are allowed; return less"),
                )
            else:
                raw.reply(message)

    def refuse(self, call: _ModelCall, raw: RawCall, error: AipodError) -> None:
        self._refusals.send(raw, error, call.version)


class _ModelCall(Call):
    __slots__ = ("_message", "_raw", "_service")

    def __init__(self, method: str, message: Message, raw: RawCall, service: ModelService) -> None:
        super().__init__(message.version, method, raw.deadline, len(raw.message))
        self._message: Message | None = message
        self._raw = raw
        self._service = service

    def arguments(self) -> dict[str, object]:
        # Not kept: a large request is free as soon as the model lets go of it.
        message, self._message = self._message, None
        return message.kwargs() if message is not None else {}

    def deliver(self, value: object) -> None:
        self._service.answer(self, self._raw, value)

    def deliver_error(self, error: AipodError) -> None:
        self._service.refuse(self, self._raw, error)


def default_timeouts(methods: Mapping[str, str], settings: Settings) -> dict[str, float | None]:
    """What holds for callers that set no timeout: a training may take for ever, nothing else may."""
    default = settings.default_timeout or None
    return {path: None if name == "train" else default for name, path in methods.items()}

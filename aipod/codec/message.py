"""A call or a reply as one message: what the wire's two ends write and read."""

from __future__ import annotations

from typing import Any

from aipod.codec.decoder import unpack
from aipod.codec.encoder import pack
from aipod.codec.limits import Limits
from aipod.codec.wire import join, split
from aipod.errors import SerializationError

__all__ = ["Message", "decode_reply", "encode_call", "encode_reply", "read_call"]

_DEFAULT = Limits()


class Message:
    """What arrived, taken apart as far as its fields; its value is decoded on demand, on whatever thread asks.

    Attributes:
        version: The version that was asked for; ``""`` if none was named, and in a reply.
    """

    __slots__ = ("body", "limits", "segments", "version")

    def __init__(self, version: str, body: memoryview, segments: list[memoryview], limits: Limits) -> None:
        self.version = version
        self.body = body
        self.segments = segments
        self.limits = limits

    def kwargs(self) -> dict[str, Any]:
        """Decode a call's arguments; none sent is ``{}``.

        Arrays are read-only views of the message and keep it alive.

        Raises:
            SerializationError: They cannot be read, or are no map.
        """
        if self._is_empty():
            return {}
        kwargs = unpack(self.body, self.segments, self.limits, "kwargs")
        if type(kwargs) is not dict:
            raise SerializationError("kwargs", f"a {type(kwargs).__name__} is no map of names to values; send a map")
        return kwargs

    def value(self) -> Any:
        """Decode a reply's value, as :meth:`kwargs` does a call's arguments; an absent one is None."""
        return None if self._is_empty() else unpack(self.body, self.segments, self.limits, "result")

    def _is_empty(self) -> bool:
        return not self.body and not self.segments


def encode_call(version: str, kwargs: dict[str, Any]) -> bytes:
    """Write a call; the data of arrays is copied once.

    Raises:
        SerializationError: A value cannot travel; the error names its place.
    """
    if not isinstance(kwargs, dict):
        raise SerializationError("kwargs", f"a {type(kwargs).__name__} is no dict of names to values; send a dict")
    return join(version, *pack(kwargs, "kwargs"))


def read_call(message: bytes | memoryview, limits: Limits = _DEFAULT) -> Message:
    """Take a call apart without decoding its arguments: a few microseconds, whatever its size.

    Raises:
        SerializationError: It is no message, or breaks the limits.
    """
    return _read(message, limits, "kwargs")


def encode_reply(value: object, limits: Limits | None = None) -> bytes:
    """Write a reply; see :func:`encode_call`.

    Args:
        value: What the model returned.
        limits: What the reader is going to hold it against: an answer that is too large fails where it was made.
    """
    body, segments = pack(value, "result")
    if limits is not None:
        _check_size(len(body), limits, "result")
    return join("", body, segments)


def decode_reply(message: bytes | memoryview, limits: Limits = _DEFAULT) -> Any:
    """Read a reply's value; see :func:`read_call` and :meth:`Message.value`."""
    return _read(message, limits, "result").value()


def _read(message: bytes | memoryview, limits: Limits, root: str) -> Message:
    version, body, segments = split(message, limits.max_segments)
    _check_size(len(body), limits, root)
    return Message(version, body, segments, limits)


def _check_size(size: int, limits: Limits, root: str) -> None:
    if size > limits.max_value_bytes:
        raise SerializationError(
            root,
            f"{size} bytes besides arrays and large bytes are more than the {limits.max_value_bytes} allowed; "
            "send large data as numpy arrays or bytes",
        )

"""How a task reads a message: payload to value, key and time."""

from __future__ import annotations

from collections.abc import Callable

from aipod.stream.message import Message
from aipod.stream.tasks.decode import decoder
from aipod.stream.tasks.keys import key_finder
from aipod.stream.tasks.times import time_finder

__all__ = ["Reading"]


class Reading:
    """Fills in ``value``, ``key`` and ``time`` of messages.

    Attributes:
        read: Does it for one message; raises :class:`~aipod.stream.errors.Unreadable` and nothing else. It
            runs on the event loop and does not block, as long as the user's functions keep to it.

    Raises:
        ConfigError: There is no such format, key or time.
    """

    __slots__ = ("read",)

    def __init__(self, *, decode: str = "json", key: str = "", time: str = "stored", time_unit: str = "s") -> None:
        # A closure, put together once: this runs for each message.
        self.read: Callable[[Message], None] = _build(decode, key, time, time_unit)


def _build(decode: str, key: str, time: str, time_unit: str) -> Callable[[Message], None]:
    value_of, key_of, time_of = decoder(decode), key_finder(key), time_finder(time, time_unit)

    def read(message: Message) -> None:
        message.value = value_of(message.data)
        message.key = key_of(message) if key_of is not None else ""
        message.time = time_of(message) if time_of is not None else message.stored

    return read

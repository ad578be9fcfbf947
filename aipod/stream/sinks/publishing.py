"""One message into a stream, with the broker's yes; and one message out of it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import nats.errors
from nats.js.api import PubAck, RawStreamMsg
from nats.js.errors import APIError, NoStreamResponseError

from aipod.errors import ConfigError, Unavailable
from aipod.stream.broker.connection import Connection
from aipod.stream.broker.failures import Refused, translated
from aipod.stream.broker.headers import plain
from aipod.stream.sinks.interface import TooLarge

__all__ = ["Found", "OutOfStep", "fetch", "publish", "wire_bytes"]

T = TypeVar("T")

_TIMEOUT = 5.0
# JetStream's own numbers for why it refuses.
_TOO_LARGE = (10054, 10097)  # the message; its headers
_OUT_OF_STEP = (10071, 10164)
_NOTHING_THERE = 10037
# A subject shares one protocol line of 4096 bytes with the reply's subject and two lengths; a longer line costs the
# connection. The headers of a stored message have 64 KiB.
_MAX_SUBJECT_BYTES = 3_900
_MAX_HEADER_BYTES = 65_000


class OutOfStep(Refused):
    """The last message of the subject is another one than was expected."""


@dataclass(frozen=True)
class Found:
    """A message of a stream; times are left out, since whoever fetches one knows what it is looking for."""

    seq: int
    subject: str
    data: bytes
    headers: Mapping[str, str]


def wire_bytes(headers: Mapping[str, str], data: bytes = b"") -> int:
    """What counts against the broker's ``max_payload``."""
    return 12 + sum(len(name) + len(value) + 4 for name, value in headers.items()) + len(data)


async def publish(connection: Connection, stream: str, subject: str, data: bytes, headers: Mapping[str, str]) -> PubAck:
    """Store a message, and return when it is durable there.

    Args:
        stream: The stream that has to take it.
        headers: In ASCII.

    Raises:
        TooLarge: The stream will never take it.
        OutOfStep: The headers name an expected sequence, and it is another.
        Unavailable: It may or may not be there.
        ConfigError: Another stream has the subject, or this one takes no more.
    """
    if not connection.connected:
        # The client would keep it and send it whenever it likes.
        raise Unavailable("the broker is away")
    size, limit = wire_bytes(headers, data), connection.nc.max_payload
    if size > limit:
        raise TooLarge(size, limit)
    if wire_bytes(headers) > _MAX_HEADER_BYTES or len(subject) > _MAX_SUBJECT_BYTES:
        raise TooLarge(wire_bytes(headers) + len(subject), _MAX_HEADER_BYTES)
    try:
        with translated(f"publish to {subject}"):
            sending = connection.js.publish(subject, data, timeout=_TIMEOUT, stream=stream, headers=dict(headers))
            return await _while_connected(connection, sending)
    except Refused as error:
        if error.err_code in _TOO_LARGE:
            info = await connection.api(f"STREAM.INFO.{stream}")
            raise TooLarge(size, info["config"].get("max_msg_size", limit)) from error
        raise _meaning(error, subject) from error
    except (ValueError, TypeError, KeyError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError([f"something other than a stream answers on subject {subject!r}; choose another"]) from error
    except Unavailable as error:
        cause = error.__cause__
        if isinstance(cause, APIError) and cause.description:
            raise Unavailable(f"the stream of {subject!r} takes nothing now: {cause.description}") from error
        if isinstance(cause, (NoStreamResponseError, nats.errors.NoRespondersError)):
            raise Unavailable(
                f"no stream takes subject {subject!r}; make one, or let the task (create = true)"
            ) from error
        raise


async def fetch(connection: Connection, stream: str, *, seq: int = 0, subject: str = "") -> Found | None:
    """Read one message from the stream's leader: that at ``seq``, the last of ``subject``, or, with both, the first of
    ``subject`` from ``seq`` on; None if there is none.

    Raises:
        Unavailable: The broker or the stream is away.
    """
    try:
        with translated(f"read from stream {stream}"):
            if seq and subject:
                reading = connection.js.get_msg(stream, seq, subject, next=True)
            elif seq:
                reading = connection.js.get_msg(stream, seq)
            else:
                reading = connection.js.get_last_msg(stream, subject)
            raw = await _while_connected(connection, reading)
    except Refused as error:
        if error.err_code == _NOTHING_THERE:
            return None
        raise Unavailable(str(error)) from error
    return _found(raw)


async def _while_connected(connection: Connection, request: Coroutine[Any, Any, T]) -> T:
    # An answer that was on its way when the connection broke never comes, and its timeout is long.
    task = asyncio.ensure_future(request)
    broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def watcher(_: bool) -> None:
        if not broken.done():
            broken.set_result(None)

    connection.watch(watcher)
    try:
        either: set[asyncio.Future[Any]] = {task, broken}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Unavailable("the connection broke before the broker had answered", may_have_run=True)
        return task.result()
    finally:
        connection.unwatch(watcher)
        task.cancel()
        broken.cancel()


def _found(raw: RawStreamMsg) -> Found:
    return Found(raw.seq or 0, raw.subject or "", raw.data or b"", plain(raw.headers))


def _meaning(error: Refused, subject: str) -> Exception:
    if error.err_code in _OUT_OF_STEP:
        return OutOfStep(f"publish to {subject}", error.code, error.err_code, error.description)
    return ConfigError([f"the stream refuses what is published to {subject!r}: {error.description}"])

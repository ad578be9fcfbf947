"""One message into a stream, with the broker's yes; and one message out of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from aipod.errors import ConfigError, Unavailable
from aipod.stream.broker.connection import Connection
from aipod.stream.broker.reader import get_message
from aipod.stream.broker.requests import NobodyThere
from aipod.stream.errors import NoTaker, OutOfStep, Refused, TooLarge
from aipod.stream.message import Message

__all__ = ["Stored", "addressed", "fetch", "publish", "wire_bytes"]

# JetStream's own numbers for why it refuses.
_TOO_LARGE = (10054, 10097)  # the message; its headers
_OUT_OF_STEP = (10071, 10164)
# A subject shares one protocol line of 4096 bytes with the reply's subject and two lengths; a longer line costs the
# connection. The headers of a stored message have 64 KiB.
_MAX_SUBJECT_BYTES = 3_900
_MAX_HEADER_BYTES = 65_000
_EXPECTED_STREAM = "Nats-Expected-Stream"


@dataclass(frozen=True)
class Stored:
    """The broker's yes.

    Attributes:
        seq: Where the message is in its stream.
        duplicate: Whether one with its id was there before, within the dedup window.
    """

    seq: int
    duplicate: bool


def wire_bytes(headers: Mapping[str, str], data: bytes = b"") -> int:
    """What counts against the broker's ``max_payload``."""
    return 12 + sum(len(name) + len(value) + 4 for name, value in headers.items()) + len(data)


def addressed(stream: str, headers: Mapping[str, str]) -> dict[str, str]:
    """Add what has no stream but this one take a message."""
    return {_EXPECTED_STREAM: stream, **headers}


async def publish(connection: Connection, stream: str, subject: str, data: bytes, headers: Mapping[str, str]) -> Stored:
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
    headers = addressed(stream, headers)  # before it is measured
    around = wire_bytes(headers)
    size, limit = around + len(data), connection.nc.max_payload
    if size > limit:
        raise TooLarge(size, limit)
    if around > _MAX_HEADER_BYTES or len(subject) > _MAX_SUBJECT_BYTES:
        raise TooLarge(around + len(subject), _MAX_HEADER_BYTES)
    doing = f"publish to {subject}"
    try:
        # Not through the client's own publish, which costs more than the rest of a result together.
        reply = await connection.request(subject, data, headers, what=doing)
        return _stored(reply.data, stream, subject)
    except NobodyThere as error:
        raise NoTaker(subject) from error
    except Refused as error:
        if error.err_code in _TOO_LARGE:
            own = (await connection.api(f"STREAM.INFO.{stream}"))["config"].get("max_msg_size", -1)
            raise TooLarge(size, own if own >= 0 else limit) from error
        raise _meaning(error, subject) from error


async def fetch(connection: Connection, stream: str, *, seq: int = 0, subject: str = "") -> Message | None:
    """Read one message, as :func:`~aipod.stream.broker.reader.get_message` does.

    Raises:
        Unavailable: The broker or the stream is away.
    """
    try:
        return await get_message(connection, stream, seq=seq, subject=subject)
    except Refused as error:
        raise Unavailable(f"read from stream {stream}: {error.description}") from error


def _stored(answer: bytes, stream: str, subject: str) -> Stored:
    """Read the answer to a message.

    Raises:
        Refused: It is an error.
        Unavailable: It is one that will pass.
        ConfigError: It is nothing that a stream says.
    """
    try:
        said = json.loads(answer)
        no = said.get("error")
        if no is None and said["stream"] == stream:
            return Stored(int(said["seq"]), bool(said.get("duplicate")))
        code, number, why = int(no["code"]), int(no.get("err_code", 0)), no.get("description", "no reason given")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError([f"something other than a stream answers on subject {subject!r}; choose another"]) from error
    if code >= 500:
        raise Unavailable(f"the stream of {subject!r} takes nothing now: {why}")
    raise Refused(f"publish to {subject}", code, number, why)


def _meaning(error: Refused, subject: str) -> Exception:
    if error.err_code in _OUT_OF_STEP:
        return OutOfStep(f"publish to {subject}", error.code, error.err_code, error.description)
    return ConfigError([f"the stream refuses what is published to {subject!r}: {error.description}"])

"""One message into a stream, with the broker's yes; and one message out of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aipod.errors import ConfigError, Unavailable
from aipod.stream.broker.connection import Connection
from aipod.stream.broker.failures import Refused
from aipod.stream.broker.headers import parsed
from aipod.stream.broker.requests import NobodyThere
from aipod.stream.sinks.interface import TooLarge

__all__ = ["Found", "OutOfStep", "Stored", "fetch", "publish", "wire_bytes"]

# JetStream's own numbers for why it refuses.
_TOO_LARGE = (10054, 10097)  # the message; its headers
_OUT_OF_STEP = (10071, 10164)
# A subject shares one protocol line of 4096 bytes with the reply's subject and two lengths; a longer line costs the
# connection. The headers of a stored message have 64 KiB.
_MAX_SUBJECT_BYTES = 3_900
_MAX_HEADER_BYTES = 65_000
_EXPECTED_STREAM = "Nats-Expected-Stream"


class OutOfStep(Refused):
    """The last message of the subject is another one than was expected."""


@dataclass(frozen=True)
class Found:
    """A message of a stream; times are left out, since whoever fetches one knows what it is looking for."""

    seq: int
    subject: str
    data: bytes
    headers: Mapping[str, str]


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
    around = wire_bytes(headers)
    size, limit = around + len(data), connection.nc.max_payload
    if size > limit:
        raise TooLarge(size, limit)
    if around > _MAX_HEADER_BYTES or len(subject) > _MAX_SUBJECT_BYTES:
        raise TooLarge(around + len(subject), _MAX_HEADER_BYTES)
    doing = f"publish to {subject}"
    try:
        # Not through the client's own publish, which costs more than the rest of a result together.
        reply = await connection.request(subject, data, {_EXPECTED_STREAM: stream, **headers}, what=doing)
        return _stored(reply.data, stream, subject)
    except NobodyThere as error:
        raise Unavailable(f"no stream takes subject {subject!r}; make one, or let the task (create = true)") from error
    except Refused as error:
        if error.err_code in _TOO_LARGE:
            info = await connection.api(f"STREAM.INFO.{stream}")
            raise TooLarge(size, info["config"].get("max_msg_size", limit)) from error
        raise _meaning(error, subject) from error


async def fetch(connection: Connection, stream: str, *, seq: int = 0, subject: str = "") -> Found | None:
    """Read one message from the stream's leader: that at ``seq``, the last of ``subject``, or, with both, the first of
    ``subject`` from ``seq`` on; None if there is none.

    Raises:
        Unavailable: The broker or the stream is away.
    """
    request: dict[str, Any] = {"seq": seq} if seq else {"last_by_subj": subject}
    if seq and subject:
        request["next_by_subj"] = subject
    try:
        answer = await connection.api(f"STREAM.MSG.GET.{stream}", request)
    except Refused as error:
        if error.is_not_found:
            return None
        raise Unavailable(f"read from stream {stream}: {error.description}") from error
    raw = answer["message"]
    data, headers = (base64.b64decode(raw.get(part) or b"") for part in ("data", "hdrs"))
    return Found(raw["seq"], raw["subject"], data, parsed(headers))


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

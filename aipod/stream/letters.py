"""A dead letter on the wire: the message as it was, and in its headers what became of it.

The original's headers stay, but for those that steer the broker (``Nats-…``). One that has a name of ours gets
``Original-`` in front of it; one that is not plain ASCII is percent-encoded and named in ``Aipod-Encoded``. What does
not fit into a message any more is left out and named in ``Aipod-Left-Out``: its place in the source is still there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

from aipod.stream.message import Message
from aipod.stream.origin import mark_of
from aipod.stream.sinks.publishing import wire_bytes

__all__ = ["DeadLetter", "read_letter", "write_letter"]

_MAX_REASON = 512
_MAX_HEADER_BYTES = 48_000  # of the 64 KiB that a stored message can have
_PRINTABLE = "".join(chr(code) for code in range(32, 127) if chr(code) != "%")
_PLAIN = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?|")
_NAME = re.compile(r"[!-9;-~]+")
_OURS = ("aipod-", "original-")
_LEFT_OUT = "Aipod-Left-Out"


@dataclass(frozen=True)
class DeadLetter:
    """A message that nobody could use.

    Attributes:
        seq: Its position among the dead letters.
        task: Whose it is.
        reason: Why, in a sentence.
        error: The class of the error, ``""`` if there was none.
        error_id: Under which the model's server logged it.
        stream: The source stream.
        sequence: Its position there.
        subject: Its subject there.
        stored: When it was stored there, in unix seconds.
        data: Its payload.
        headers: Its headers.
        left_out: Of ``data`` and ``headers``, what did not fit.
    """

    seq: int
    task: str
    reason: str
    error: str
    error_id: str
    stream: str
    sequence: int
    subject: str
    stored: float
    data: bytes
    headers: dict[str, str]
    left_out: tuple[str, ...] = ()


def write_letter(
    message: Message, task: str, stream: str, reason: str, error: BaseException | None, max_bytes: int, origin: str = ""
) -> tuple[dict[str, str], bytes]:
    """Write a dead letter of at most ``max_bytes`` on the wire: headers and payload.

    Args:
        origin: The stream as :mod:`aipod.stream.origin` names it.
    """
    ours = {
        "Nats-Msg-Id": f"dead/{quote(task, safe='')}/{message.seq}{mark_of(origin)}",
        "Aipod-Task": quote(task, safe=_PRINTABLE),
        "Aipod-Reason": _cut(quote(reason.strip(), safe=_PRINTABLE, errors="replace")),
        "Aipod-Error": "" if error is None else type(error).__name__,
        "Aipod-Error-Id": str(getattr(error, "error_id", "") or ""),
        "Aipod-Stream": quote(stream, safe=_PRINTABLE),
        "Aipod-Sequence": str(message.seq),
        "Aipod-Subject": quote(message.subject, safe=_PRINTABLE, errors="surrogateescape"),
        "Aipod-Stored": f"{message.stored:.6f}",
    }
    ours = {name: value for name, value in ours.items() if value}
    theirs = _encoded(message.headers)
    data, left_out = message.data, []
    if wire_bytes(theirs) > _MAX_HEADER_BYTES or (theirs and wire_bytes({**ours, **theirs}, data) > max_bytes):
        theirs = {}
        left_out.append("headers")
    if wire_bytes({**ours, _LEFT_OUT: "headers,data"} if left_out else ours, data) > max_bytes:
        data = b""
        left_out.append("data")
    if left_out:
        ours[_LEFT_OUT] = ",".join(left_out)
    return {**theirs, **ours}, data


def read_letter(seq: int, headers: Mapping[str, str], data: bytes) -> DeadLetter | None:
    """Read one; None if it is none."""
    given = {name.lower(): value for name, value in headers.items()}

    def text(name: str) -> str:
        return unquote(given.get(f"aipod-{name}", ""))

    try:
        return DeadLetter(
            seq=seq,
            task=text("task"),
            reason=text("reason"),
            error=text("error"),
            error_id=text("error-id"),
            stream=text("stream"),
            sequence=int(given["aipod-sequence"]),
            subject=unquote(given["aipod-subject"], errors="surrogateescape"),
            stored=float(given.get("aipod-stored", 0)),
            data=data,
            headers=_decoded(headers),
            left_out=tuple(filter(None, text("left-out").split(","))),
        )
    except (KeyError, ValueError):
        return None


def _cut(text: str) -> str:
    if len(text) <= _MAX_REASON:
        return text
    # Not in the middle of a percent code, and not in that of a character that has several.
    return re.sub(r"(%[0-9A-F]{2})*(%[0-9A-F]?)?$", "", text[: _MAX_REASON - 3]) + "..."


def _encoded(headers: Mapping[str, str]) -> dict[str, str]:
    written: dict[str, str] = {}
    encoded = []
    for name, value in headers.items():
        if name.lower().startswith("nats-") or not _NAME.fullmatch(name):
            continue
        kept = f"Original-{name}" if name.lower().startswith(_OURS) else name
        if _PLAIN.fullmatch(value):
            written[kept] = value
        else:
            written[kept] = quote(value, safe="", errors="surrogateescape")
            encoded.append(kept)
    if encoded:
        written["Aipod-Encoded"] = ",".join(encoded)
    return written


def _decoded(headers: Mapping[str, str]) -> dict[str, str]:
    encoded = {name.strip() for name in headers.get("Aipod-Encoded", "").split(",")}
    original = {}
    for name, value in headers.items():
        if name.lower().startswith(("nats-", "aipod-")):
            continue
        plain = unquote(value) if name in encoded else value
        original[name.removeprefix("Original-")] = plain
    return original

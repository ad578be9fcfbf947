"""Errors to gRPC's statuses and back: the only place that knows both.

A status carries the error's name, its sentence in the details, and in the trailing metadata an ``aipod.v1.Error``. gRPC
destroys a status whose details and metadata are too large (it takes about 8 KiB for granted and refuses above 16), even
that of an OK call, so everything is cut to well below that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grpc
import msgpack
from google.protobuf.message import DecodeError

from aipod.errors import (
    AipodError,
    DeadlineExceeded,
    InternalError,
    NotSupportedError,
    Overloaded,
    Unavailable,
    describe,
    rebuild,
)
from aipod.rpc.v1.model_pb2 import Error
from aipod.rpc.v1.trunk_pb2 import Failure

__all__ = ["error_of_failure", "error_of_rpc", "lost", "status_of_error", "trailing_of"]

_KEY = "aipod-error-bin"
_MAX_DETAILS = 1024
_MAX_DATA = 1024
_MAX_TRACEBACK = 3072
_CUT = " […] "
_WRAP = "Stream removed ("
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def status_of_error(error: AipodError, traceback: str = "") -> tuple[str, str, list[tuple[str, str | bytes]]]:
    """What the server sends: the status' name, the details, the trailing metadata."""
    description = describe(error)
    sentence = _cut(_printable(description["message"]), _MAX_DETAILS)
    data = _packed(description["data"])
    message = Error(
        kind=description["kind"],
        error_id=error.error_id,
        data=data if len(data) <= _MAX_DATA else b"",
        traceback=_cut(traceback, _MAX_TRACEBACK),
    )
    return description["status"], sentence, [(_KEY, message.SerializeToString())]


def error_of_rpc(
    code: grpc.StatusCode, details: str | None, trailing: Iterable[tuple[str, str | bytes]] | None, address: str
) -> AipodError:
    """What the client raises: the server's error, or ours for what gRPC itself reports."""
    for key, value in trailing or ():
        if key == _KEY and isinstance(value, bytes):
            try:
                return _sent(Error.FromString(value), details or "")
            except DecodeError:
                return InternalError(details or "")
    return _of_grpc(code, details or "", address)


def error_of_failure(failure: Failure, address: str) -> AipodError:
    """What the client raises for a call of a trunk."""
    if failure.HasField("error"):
        return _sent(failure.error, failure.details)
    return _of_grpc(_CODES.get(failure.status, grpc.StatusCode.UNKNOWN), failure.details, address)


def lost(address: str, details: str) -> Unavailable:
    """The error for a call that was sent to a server that went away."""
    return Unavailable(
        f"the server at {address} went away before it answered ({_cut(details, 200)}); the call can have run",
        may_have_run=True,
    )


def _packed(data: Mapping[str, object]) -> bytes:
    try:
        return bytes(msgpack.packb(data)) if data else b""
    except (ValueError, OverflowError, TypeError):
        # A class of a user's keeps what does not travel; the sentence does.
        return b""


def _sent(message: Error, details: str) -> AipodError:
    try:
        data = msgpack.unpackb(message.data) if message.data else {}
    except Exception:  # What a broken peer sends can fail in any way, and the sentence is still good.
        return InternalError(details)
    error = rebuild({"kind": message.kind, "message": details, "data": data if isinstance(data, Mapping) else {}})
    error.error_id = message.error_id
    error.remote_traceback = message.traceback
    return error


def _of_grpc(code: grpc.StatusCode, details: str, address: str) -> AipodError:
    if code is grpc.StatusCode.UNAVAILABLE:
        return _unavailable(details, address)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        # gRPC's own words say less than ours; a server's own limit says more.
        return DeadlineExceeded() if details in ("", "Deadline Exceeded") else DeadlineExceeded(details)
    if code is grpc.StatusCode.CANCELLED:
        # Nobody on this side did it: who cancels a call here never sees its status.
        return _unavailable(details, address)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        details = _bare(details)
        advice = "raise AIPOD_MAX_MESSAGE_BYTES of the server and max_message_bytes of the client"
        return Overloaded(f"{details}; send or ask for less at once, or {advice}")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return NotSupportedError(f"the server at {address} does not know this method ({details}); is it an AIPOD?")
    return InternalError(f"the server at {address} answered {code.name}: {details}")


def _bare(details: str) -> str:
    """A reason without what newer versions of gRPC put around it, be they on this side or on the other."""
    wrapped = details.startswith(_WRAP) and details.endswith(")")
    bare = details[len(_WRAP) : -1] if wrapped else details
    return bare.removeprefix("CLIENT: ").removeprefix("SERVER: ")


# What gRPC says of a connection that never came to be: the request was not sent.
_NEVER_SENT = (
    "failed to connect",
    "connection refused",
    "name resolution",
    "dns resolution",
    "no route to host",
    "empty address list",
)


def _unavailable(details: str, address: str) -> Unavailable:
    lowered = details.lower()
    if any(phrase in lowered for phrase in _NEVER_SENT):
        return Unavailable(f"there is no server at {address} ({_cut(details, 200)}); start one, or check the address")
    return lost(address, details)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)


def _cut(text: str, limit: int) -> str:
    """At most ``limit`` bytes of UTF-8: the beginning says what it is, the end is where it happened."""
    if len(text) * 4 <= limit or len(text.encode(errors="replace")) <= limit:
        return text.encode(errors="replace").decode()
    data = text.encode(errors="replace")
    head = limit // 4
    return (
        data[:head].decode(errors="ignore")
        + _CUT
        + data[-(limit - head - len(_CUT.encode())) :].decode(errors="ignore")
    )


def trailing_of(metadata: Sequence[Any] | None) -> list[tuple[str, str | bytes]]:
    """Metadata as pairs, whichever of gRPC's two libraries it comes from."""
    return [(key, value) for key, value in metadata or ()]

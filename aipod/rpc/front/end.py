"""How an RPC ends; and what may leave before that."""

from __future__ import annotations

import re

import grpc

from aipod.rpc.front.interface import Metadata

__all__ = ["OUR_FAULT", "OUT_OF_TIME", "TOO_MANY_STREAMS", "UNKNOWN_METHOD", "WITHOUT_REQUEST", "End", "checked"]

# https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md: what gRPC lets pass.
_KEY = re.compile(r"[0-9a-z_.-]+")
_TEXT = re.compile(r"[ -~]*")


class End:
    """A status, its details, and the trailing metadata; checked, since gRPC takes wrong ones badly.

    Args:
        status: The status' name.
        details: Any text.
        trailing: Lower-case keys with printable ASCII, or, for a key that ends in ``-bin``, bytes.

    Raises:
        KeyError: There is no such status.
        ValueError: The metadata cannot travel.
    """

    __slots__ = ("details", "status", "trailing")

    def __init__(self, status: str, details: str = "", trailing: Metadata = ()) -> None:
        self.status = grpc.StatusCode[status]
        self.details = details.encode(errors="replace").decode()
        self.trailing = tuple((key, value) for key, value in trailing)
        for key, value in self.trailing:
            if not _KEY.fullmatch(key) or not _fits(key, value):
                raise ValueError(f"metadata {key!r}: {value!r} cannot travel")


def checked(message: object) -> bytes:
    """A message that can be sent; of a number, gRPC would make as many bytes.

    Raises:
        TypeError: It is none.
    """
    if not isinstance(message, bytes):
        raise TypeError(f"a message is bytes, not {type(message).__name__}")
    return message


def _fits(key: str, value: str | bytes) -> bool:
    if key.endswith("-bin"):
        return isinstance(value, bytes)
    return isinstance(value, str) and _TEXT.fullmatch(value) is not None


OUR_FAULT = End("INTERNAL", "the server failed; its log says more")
OUT_OF_TIME = End(
    "DEADLINE_EXCEEDED",
    "the time that the server allows passed (AIPOD_DEFAULT_TIMEOUT); set a timeout of your own",
)
TOO_MANY_STREAMS = End("RESOURCE_EXHAUSTED", "the server has as many streams open as it allows; try again later")
# gRPC's own words, which clients may look for.
UNKNOWN_METHOD = End("UNIMPLEMENTED", "Method not found!")
WITHOUT_REQUEST = End("UNIMPLEMENTED", "the call ended before its request came")

"""The front: turns a socket into raw calls and back. The contract; implementations are silent about it.

A front knows method names, metadata, deadlines and bytes. It knows neither protobuf nor models, and it never runs user
code: the handler that it is given takes a call and returns at once, and the answer comes later, from any thread.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Front", "FrontOptions", "Handler", "RawCall", "obstacle"]


class RawCall(Protocol):
    """One RPC on the server's side."""

    @property
    def method(self) -> str:
        """The full name, ``/package.Service/Method``."""

    @property
    def message(self) -> bytes:
        """The request as it came; to be taken while the handler runs, not kept for later."""

    @property
    def deadline(self) -> float | None:
        """Instant on the monotonic clock at which the caller gives up; None if it never does."""

    def reply(self, message: bytes) -> None:
        """Answer. The first answer counts; one to a call that is gone is dropped. Callable from any thread."""

    def fail(self, status: str, details: str, trailing: Sequence[tuple[str, str | bytes]]) -> None:
        """Answer with the status of that name, as :meth:`reply` does."""

    def on_gone(self, action: Callable[[], None]) -> None:
        """Have an action run when the caller gives up or its deadline passes; it must be short."""


Handler = Callable[[RawCall], None]


@dataclass(frozen=True)
class FrontOptions:
    """What a front has to keep to.

    Attributes:
        methods: The full names that it takes, each with the timeout in seconds that holds where the caller set none
            (None: none).
        max_message_bytes: The largest request, decompressed.
    """

    methods: Mapping[str, float | None]
    max_message_bytes: int


def obstacle(address: str) -> str:
    """Why nothing can listen on ``host:port``, ``""`` if nothing is known to be in the way.

    Asked beforehand, since gRPC does not say why, and prints lines of its own.
    """
    host, _, port = address.rpartition(":")
    if host.startswith("unix") or not port.isdigit():
        return ""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host.strip("[]"), int(port)), family=family):
            return ""
    except socket.gaierror:
        return "there is no such host; choose another AIPOD_LISTEN_HOST"
    except OSError as error:
        return _ADVICE.get(error.errno or 0, "")


_ADVICE = {
    errno.EADDRINUSE: "the port is taken; stop the other server, or choose another AIPOD_LISTEN_PORT",
    errno.EADDRNOTAVAIL: "this machine has no such address; choose another AIPOD_LISTEN_HOST",
    errno.EACCES: "this user may not use the port; choose an AIPOD_LISTEN_PORT above 1023",
}


class Front(Protocol):
    """A listening server."""

    def start(self, address: str) -> str:
        """Listen on ``host:port`` (port 0: a free one) and take calls from now on; gives the address with its real
        port.

        Raises:
            Unavailable: Nothing can listen there, because somebody else does or there is no such address.
        """

    def stop(self, grace: float) -> None:
        """Refuse new calls at once, give the others ``grace`` seconds, cancel what is left, close the sockets."""

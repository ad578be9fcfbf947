"""Hundreds of thousands of damaged requests at a real server, many at a time."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from pathlib import Path

import grpc
import pytest
from mutations import VERSION, Mutations

pytestmark = pytest.mark.chaos

REQUESTS = 200_000
AT_A_TIME = 128
# What a request of a stranger may end with; everything else is a fault of ours.
WANTED = frozenset(
    {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED", "ABORTED", "FAILED_PRECONDITION"}
)
MOST_GROWTH_BYTES = 128 * 2**20
MOST_SHOWN = 10

ECHO = Path(__file__).with_name("echo.py")


class Volley:
    """Sends without waiting, a bounded number at a time, and sorts what comes back."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.statuses: Counter[str] = Counter()
        self.faults: list[str] = []
        self._channel = channel
        self._stubs: dict[str, grpc.UnaryUnaryMultiCallable] = {}
        self._room = threading.Semaphore(AT_A_TIME)
        self._lock = threading.Lock()

    def send(self, method: str, message: bytes) -> None:
        stub = self._stubs.setdefault(method, self._channel.unary_unary(method))
        self._room.acquire()
        stub.future(message, timeout=60).add_done_callback(lambda call: self._sort(call, method, message))

    def wait(self) -> None:
        for _ in range(AT_A_TIME):
            self._room.acquire()

    def _sort(self, call: grpc.Future, method: str, message: bytes) -> None:
        status = call.code().name
        with self._lock:
            self.statuses[status] += 1
            if status not in WANTED and len(self.faults) < MOST_SHOWN:
                self.faults.append(f"{method} {message[:200]!r}: {status} {call.details()}")
        self._room.release()


def test_no_request_hurts_a_server(serve, dice, say, tmp_path):
    server = serve(ECHO, strict_versions=True, log_level="ERROR", model_pool_size=4)
    mutations, before = Mutations(dice), {}
    with server.client(VERSION) as client, grpc.insecure_channel(server.address) as channel:
        client.initialize()
        volley = Volley(channel)
        for sent in range(REQUESTS):
            if sent == REQUESTS // 10:
                before = {"rss": server.rss_bytes(), "descriptors": server.descriptors()}
            volley.send(*mutations.request())
        volley.wait()
        grown = server.peak_bytes() - before["rss"]
        say(f"{dict(volley.statuses)}, grew by {grown / 2**20:.1f} MiB at most")
        assert not volley.faults, "\n".join(volley.faults)
        assert server.alive
        assert grown <= MOST_GROWTH_BYTES
        assert server.descriptors() <= before["descriptors"] + 20
        assert client.predict(x=1) == {"x": 1}
    assert server.stop(signal.SIGTERM) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "log-0"]

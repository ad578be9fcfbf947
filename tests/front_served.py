"""A front in a process of its own, for tests that treat it badly: ``python front_served.py cq``.

It prints where it listens. To a line on stdin it says what it holds, as JSON; at the end of stdin it stops.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from aipod.rpc.front import FrontOptions, RawCall, RawStream, open_front

CALL = "/test.Test/Call"
STREAM = "/test.Test/Stream"
LIMIT_BYTES = 2**20
SHORT, LONG = 0.5, 60.0


class Desk:
    """Answers a call as the first byte of its message says."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads

    def __call__(self, raw: RawCall) -> None:
        message = raw.message
        raw.on_gone(partial(self._left, raw, raw.metadata))
        if message[:1] == b"e":
            raw.reply(message)
        elif message[:1] == b"l":
            self._threads.submit(raw.reply, message)
        elif message[:1] == b"b":
            self._threads.submit(raw.reply, message * (LIMIT_BYTES // 2 // len(message)))
        elif message[:1] == b"f":
            self._threads.submit(raw.fail, "ABORTED", raw.peer, [("key", "value")])
        elif message[:1] == b"t":
            for number in range(4):
                self._threads.submit(raw.reply, bytes([number]))
        elif message[:1] == b"r":
            raise ValueError("told to")
        # What is left is never answered: its deadline does it, or ours.

    def _left(self, raw: RawCall, metadata: object) -> None:
        self._threads.submit(raw.fail, "CANCELLED", "gone", ())


class Voice:
    """Does with a stream what the first byte of each message says."""

    def __init__(self, threads: ThreadPoolExecutor, stream: RawStream) -> None:
        self._threads = threads
        self._stream = stream
        self._outbox: deque[bytes] = deque()

    def received(self, message: bytes) -> None:
        if message[:1] == b"p":
            self._say(message)
        elif message[:1] == b"c":
            for _ in range(20):
                self._threads.submit(self._say, message)
        elif message[:1] == b"h":
            self._stream.hold(True)
            self._threads.submit(self._stream.hold, False)
        elif message[:1] == b"f":
            self._threads.submit(self._stream.finish, "ABORTED", "told to")
        elif message[:1] == b"b":
            self._say(message * (LIMIT_BYTES // 2 // len(message)))
        elif message[:1] == b"r":
            raise ValueError("told to")

    def next_message(self) -> bytes | None:
        together = b""
        while self._outbox and len(together) < LIMIT_BYTES // 2:
            together += self._outbox.popleft()
        return together or None

    def half_closed(self) -> None:
        self._threads.submit(self._stream.finish)

    def gone(self) -> None:
        for _ in range(2):
            self._threads.submit(self._say, b"too late")
        self._threads.submit(self._stream.finish)

    def _say(self, message: bytes) -> None:
        self._outbox.append(message)
        self._stream.wake()


def held(front: Any) -> str:
    return json.dumps(
        {**front.counters(), "threads": threading.active_count(), "descriptors": len(os.listdir("/proc/self/fd"))}
    )


def main(kind: Any) -> None:
    with ThreadPoolExecutor(8) as threads:
        # All of them are there from the beginning, so that they can be counted.
        barrier = threading.Barrier(9)
        for _ in range(8):
            threads.submit(barrier.wait)
        barrier.wait()
        options = FrontOptions({CALL: SHORT}, LIMIT_BYTES, {STREAM: partial(Voice, threads)}, max_streams=400)
        front = open_front(kind, Desk(threads), options)
        print(*front.start("127.0.0.1:0"), flush=True)
        for _ in sys.stdin:
            if kind == "aio":
                # grpc.aio, not we, leaves failed RPCs to the cycle collector in some versions.
                gc.collect()
            print(held(front), flush=True)
        front.stop(1.0)
        print(held(front), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])

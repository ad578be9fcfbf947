"""Clients of all kinds, most of them bad, on one front for a while; and what must be left of them: nothing."""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
from front_served import CALL, LIMIT_BYTES, STREAM
from http2 import Intruder
from waiting import BOUND, eventually

__all__ = ["FrontServed", "storm"]

SCRIPT = Path(__file__).with_name("front_served.py")
NOTHING = {"calls": 0, "streams": 0, "sends": 0}
ATTACKERS = 6
# gRPC opens some for itself when there is much to do.
SPARE = {"descriptors": 4}
# What a front logs where it is to blame, and not the handler.
FAULTS = ("gRPC refuses", "could not be handled", "never retrieved", "exception calling callback")


class FrontServed:
    """See :mod:`front_served`."""

    def __init__(self, kind: str, log: Path) -> None:
        self._log = log.open("w")
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )
        self.address = self._line()

    def __enter__(self) -> FrontServed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        for end in (self.process.stdin, self.process.stdout, self._log):
            assert end is not None
            end.close()
        self.process.wait(BOUND)

    def held(self) -> dict[str, int]:
        """What it holds now."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return dict(json.loads(self._line()))

    def stop(self) -> tuple[int, dict[str, int]]:
        """Its exit status, and what it held when it had stopped."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        held = dict(json.loads(self._line()))
        return self.process.wait(BOUND), held

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, f"the front died: {self.process.wait(BOUND)}"
        return line


class Attacker(threading.Thread):
    """Does one bad thing after the other."""

    def __init__(self, address: str, dice: random.Random, until: float) -> None:
        super().__init__()
        self._address = address
        self._dice = dice
        self._until = until
        self.deeds: Counter[str] = Counter()

    def run(self) -> None:
        deeds: list[Callable[[], None]] = [self.call, self.call, self.converse, self.converse]
        deeds += [self.leave_streams, self.reset_streams, self.babble]
        while time.monotonic() < self._until:
            deed = self._dice.choice(deeds)
            deed()
            self.deeds[deed.__name__] += 1

    def call(self) -> None:
        """Calls of every kind on a channel, many given up, the rest cut off with the channel."""
        with grpc.insecure_channel(self._address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            call = channel.unary_unary(CALL)
            futures = []
            for _ in range(self._dice.randrange(1, 60)):
                size = self._dice.choice([0, 10, 10, 1000, LIMIT_BYTES - 1, LIMIT_BYTES + 1])
                message = self._dice.choice([b"e", b"l", b"b", b"f", b"t", b"r", b"n"]) + bytes(size)
                futures.append(call.future(message, timeout=self._dice.choice([None, 0.001, 0.02, 1.0])))
                if self._dice.random() < 0.3:
                    self._dice.choice(futures).cancel()
            for future in futures[: self._dice.randrange(len(futures) + 1)]:
                _end(future.result)

    def converse(self) -> None:
        """Streams with messages of every kind, read or not, cancelled, half closed or cut off."""
        left = threading.Event()

        def requests(count: int, half_close: bool) -> Iterator[bytes]:
            for _ in range(count):
                size = self._dice.choice([0, 10, 1000, 100_000, LIMIT_BYTES])
                yield self._dice.choice([b"p", b"c", b"h", b"f", b"b", b"r", b"s"]) + bytes(size)
            if not half_close:
                left.wait()

        with grpc.insecure_channel(self._address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            streams = []
            for _ in range(self._dice.randrange(1, 20)):
                timeout = self._dice.choice([None, 0.001, 0.1, 1.0])
                talk = requests(self._dice.randrange(30), self._dice.random() < 0.5)
                streams.append((timeout, channel.stream_stream(STREAM)(talk, timeout=timeout)))
                if self._dice.random() < 0.3:
                    self._dice.choice(streams)[1].cancel()
            for timeout, stream in streams:
                # The front may have nothing to say for ever.
                if timeout is not None and self._dice.random() < 0.3:
                    _end(stream.__next__)
                if self._dice.random() < 0.3:
                    stream.cancel()
            left.set()

    def leave_streams(self) -> None:
        with Intruder(self._address) as intruder:
            intruder.open_streams(self._dice.choice([CALL, STREAM, "/no/such"]), self._dice.randrange(1, 100))

    def reset_streams(self) -> None:
        with Intruder(self._address) as intruder:
            intruder.open_streams(self._dice.choice([CALL, STREAM]), self._dice.randrange(1, 200), reset=True)

    def babble(self) -> None:
        """Bytes that are no HTTP/2, or its beginning; the connection ends well or badly."""
        host, _, port = self._address.rpartition(":")
        with socket.create_connection((host, int(port)), BOUND) as stranger:
            preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            said = [b"", b"GET / HTTP/1.1\r\n\r\n", preface[: self._dice.randrange(24)], preface]
            stranger.sendall(self._dice.choice(said) + self._dice.randbytes(self._dice.randrange(2000)))
            if self._dice.random() < 0.5:
                # No farewell: the connection is reset.
                stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _end(action: Callable[[], Any]) -> None:
    try:
        action()
    except (grpc.RpcError, grpc.FutureCancelledError, StopIteration):
        return


def storm(kind: str, seconds: float, dice: random.Random, log: Path) -> Counter[str]:
    """Attack a front, while an honest caller is served; gives what was done to it."""
    with FrontServed(kind, log) as served:
        with grpc.insecure_channel(served.address) as channel:
            echo = channel.unary_unary(CALL)
            assert echo(b"e", timeout=BOUND) == b"e"
            before = served.held()
            until = time.monotonic() + seconds
            attackers = [Attacker(served.address, random.Random(dice.random()), until) for _ in range(ATTACKERS)]
            for attacker in attackers:
                attacker.start()
            honest = 0
            while time.monotonic() < until:
                message = b"e" + str(honest).encode()
                assert echo(message, timeout=BOUND) == message
                honest += 1
            for attacker in attackers:
                attacker.join()

            def as_before() -> bool:
                now = served.held()
                return all(now[what] <= before[what] + SPARE.get(what, 0) for what in before)

            eventually(as_before)
            assert echo(b"e", timeout=BOUND) == b"e"
        status, held = served.stop()
        assert status == 0
        assert {what: held[what] for what in NOTHING} == NOTHING
    text = log.read_text()
    assert not [fault for fault in FAULTS if fault in text], text[-2000:]
    return sum((attacker.deeds for attacker in attackers), Counter({"honest calls": honest}))

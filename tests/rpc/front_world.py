"""Fronts with nothing behind them but what a test puts there."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from waiting import BOUND, eventually

from aipod.rpc.front import Front, FrontOptions, RawCall, RawStream, StreamHandler, open_front

__all__ = ["CALL", "MIB", "NOTHING", "STREAM", "Ear", "Guest", "echo", "failure", "fronted", "settled", "status_of"]

CALL = "/test.Test/Call"
STREAM = "/test.Test/Stream"
MIB = 2**20
NOTHING = {"calls": 0, "streams": 0, "sends": 0}


def echo(raw: RawCall) -> None:
    raw.reply(raw.message)


class Ear:
    """A handler of a stream that keeps what it hears, and sends what it is told to."""

    def __init__(self, stream: RawStream) -> None:
        self.stream = stream
        self.heard: list[bytes] = []
        self.ends: list[str] = []
        self.outbox: deque[bytes] = deque()

    def say(self, *messages: bytes) -> None:
        self.outbox.extend(messages)
        self.stream.wake()

    def received(self, message: bytes) -> None:
        self.heard.append(message)

    def next_message(self) -> bytes | None:
        return self.outbox.popleft() if self.outbox else None

    def half_closed(self) -> None:
        self.ends.append("half closed")

    def gone(self) -> None:
        self.ends.append("gone")


class Guest:
    """A client of one front, whose requests end when it leaves."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None = None, **options: Any) -> None:
        arguments = [(f"grpc.{name}", value) for name, value in options.items()]
        if credentials is None:
            self.channel = grpc.insecure_channel(address, arguments)
        else:
            self.channel = grpc.secure_channel(address, credentials, arguments)
        self._left = threading.Event()
        # gRPC cancels a call that nobody refers to.
        self._calls: list[Any] = []

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *error: object) -> None:
        self.leave()

    def leave(self) -> None:
        self._left.set()
        self.channel.close()

    def call(self, message: bytes = b"", method: str = CALL, **options: Any) -> bytes:
        return bytes(self.channel.unary_unary(method)(message, **{"timeout": BOUND, **options}))

    def begin(self, message: bytes = b"", method: str = CALL, **options: Any) -> Any:
        """A call whose answer is waited for later."""
        self._calls.append(self.channel.unary_unary(method).future(message, **options))
        return self._calls[-1]

    def open(self, *messages: bytes, method: str = STREAM, half_close: bool = False, **options: Any) -> Any:
        """A stream with some messages on it; it stays open for more, unless it is to be half closed."""

        def requests() -> Iterator[bytes]:
            yield from messages
            if not half_close:
                self._left.wait()

        return self.pour(requests(), method=method, **options)

    def pour(self, messages: Iterable[bytes], method: str = STREAM, **options: Any) -> Any:
        """A stream with all messages of an iterable on it, and half closed then."""
        # A test that fails must not hang.
        given = {"timeout": 2 * BOUND, **options}
        self._calls.append(self.channel.stream_stream(method)(iter(messages), **given))
        return self._calls[-1]


@contextmanager
def fronted(
    kind: Any,
    handler: Callable[[RawCall], None] = echo,
    opener: Callable[[RawStream], StreamHandler] = Ear,
    *,
    address: str = "127.0.0.1:0",
    grace: float = 0.0,
    **options: Any,
) -> Iterator[tuple[Front, str]]:
    """A front that takes CALL and STREAM, and where it listens; nothing of it is left afterwards."""
    given = {"methods": {CALL: None}, "max_message_bytes": MIB, "streams": {STREAM: opener}, **options}
    front = open_front(kind, handler, FrontOptions(**given))
    [listening] = front.start(address)
    try:
        yield front, listening
    finally:
        front.stop(grace)
    assert front.counters() == NOTHING


def failure(action: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """How an RPC fails: ``.code()``, ``.details()`` and ``.trailing_metadata()``."""
    try:
        result = action(*arguments, **options)
    except grpc.RpcError as error:
        return error
    raise AssertionError(f"it gave {result!r}")


def status_of(action: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    return str(failure(action, *arguments, **options).code().name)


def settled(front: Front) -> None:
    """Wait until nothing is open on a front."""
    eventually(lambda: front.counters() == NOTHING)

"""A trunk as another author's client would open it: frames through gRPC's public library, right or wrong ones."""

from __future__ import annotations

import queue
from types import TracebackType
from typing import Any, NamedTuple

import grpc
from waiting import BOUND

from aipod.rpc.methods import TRUNK
from aipod.rpc.v1 import trunk_pb2 as pb

__all__ = ["Outcome", "RawTrunk", "call"]

_STATUSES = {code.value[0]: code.name for code in grpc.StatusCode}


class Outcome(NamedTuple):
    """What came of a call: the status' name, and the reply or the sentence."""

    status: str
    content: Any


def call(number: int, request: bytes = b"", **fields: Any) -> pb.ClientFrame:
    """A frame with one call."""
    return pb.ClientFrame(calls=[pb.Call(number=number, request=request, **fields)])


class RawTrunk:
    """One stream.

    Attributes:
        greeting: The server's.
        grant: The latest.
        replies: The outcome of each call, by its number.
        frames: All that came, in short: the numbers that were answered whole, or ``("chunk", number)``.
    """

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", 2**21)])
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        open_ = self._channel.stream_stream(TRUNK)
        self._stream: Any = open_(iter(self._outbox.get, None), timeout=3 * BOUND)
        self.greeting: pb.Greeting | None = None
        self.grant: pb.Grant | None = None
        self.replies: dict[int, Outcome] = {}
        self.frames: list[Any] = []
        self._arriving: dict[int, tuple[int, bytearray]] = {}

    def __enter__(self) -> RawTrunk:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, frame: pb.ClientFrame | bytes) -> None:
        self._outbox.put(frame if isinstance(frame, bytes) else frame.SerializeToString())

    def half_close(self) -> None:
        self._outbox.put(None)

    def cancel(self) -> None:
        self._stream.cancel()

    def read(self) -> pb.ServerFrame:
        """The next frame, which is taken into account.

        Raises:
            StopIteration: The server ended the stream with OK.
            grpc.RpcError: It ended it otherwise.
        """
        frame = pb.ServerFrame.FromString(next(self._stream))
        if frame.HasField("greeting"):
            self.greeting = frame.greeting
        if frame.HasField("grant"):
            self.grant = frame.grant
        for reply in frame.replies:
            self._take(reply)
        if frame.HasField("chunk"):
            self._take_chunk(frame.chunk)
        return frame

    def answer(self, number: int) -> Outcome:
        """Read until a call is answered."""
        while number not in self.replies:
            self.read()
        return self.replies.pop(number)

    def end(self) -> tuple[str, str]:
        """Read to the end; the status of the stream."""
        try:
            while True:
                self.read()
        except StopIteration:
            pass
        except grpc.RpcError:
            pass
        return self._stream.code().name, self._stream.details()

    def close(self) -> None:
        self._outbox.put(None)
        self._stream.cancel()
        self._channel.close()

    def _take(self, reply: pb.Reply) -> None:
        assert reply.number not in self.replies, "answered twice"
        if reply.size:
            self._arriving[reply.number] = (reply.size, bytearray())
            return
        self.frames.append(reply.number)
        if reply.HasField("failure"):
            outcome = Outcome(_STATUSES[reply.failure.status], reply.failure.details)
        else:
            outcome = Outcome("OK", reply.reply)
        self.replies[reply.number] = outcome

    def _take_chunk(self, chunk: pb.Chunk) -> None:
        self.frames.append(("chunk", chunk.number))
        size, content = self._arriving[chunk.number]
        content += chunk.data
        assert len(content) <= size
        if len(content) == size:
            del self._arriving[chunk.number]
            self.replies[chunk.number] = Outcome("OK", bytes(content))

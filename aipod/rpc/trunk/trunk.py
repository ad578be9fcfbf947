"""The client's end of a trunk: calls of any number of threads and coroutines on one stream.

Which thread runs what: whoever calls puts his request into ``_waiting`` and wakes the stream, which has the next frame
put together by one thread at a time, with all that waits by then; replies are sorted out on the stream's own thread,
which wakes each caller once. Nothing is decoded here.

Rules of this file:

- A request is in ``_waiting``, or in ``_pending``, or settled; on its way from one to the other it is in both. Who
  takes it out of ``_waiting`` has it: to send it, to give it up, or to settle it.
- A request is settled once, by whoever takes its waiter: that is one step under the interpreter's lock.
- ``_closed`` says that nothing is sent any more, ``_over`` that nothing comes any more. Each is set before it is looked
  what is left, and who adds something looks at it afterwards: nothing stays behind.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from aipod.codec import read_reply
from aipod.errors import AipodError, DeadlineExceeded, Overloaded
from aipod.rpc.calls import REPLY_LIMITS
from aipod.rpc.methods import ABILITIES, TRUNK, WIRE_VERSION
from aipod.rpc.status import error_of_failure, error_of_rpc, lost
from aipod.rpc.trunk import chunks
from aipod.rpc.trunk.buffers import Buffers
from aipod.rpc.trunk.neighbour import Neighbour
from aipod.rpc.trunk.relay import Relay
from aipod.rpc.trunk.request import NeverSent, Request
from aipod.rpc.trunk.sharing import borrow
from aipod.rpc.trunk.stream import ClientStream
from aipod.rpc.v1 import trunk_pb2 as pb

__all__ = ["Trunk"]

_log = logging.getLogger("aipod.trunk")

# What a frame holds of small requests; more leave with the next one.
_FRAME_BYTES = 128 * 1024
# A call whose time is over says so all the same; 0 would be none.
_LEAST_TIMEOUT = 1e-6


class Trunk:
    """One stream of calls.

    Args:
        channel: To the server.
        address: For the sentences of errors.
        max_message_bytes: The largest reply.
        buffers: For large messages.
        on_up: Called when the server has greeted us, on the trunk's thread.
        on_drain: Called when the server wants no more calls on it, perhaps instead of ``on_up``, on the trunk's thread.
        on_end: Called when the stream is over, with its status, on the trunk's thread.
    """

    def __init__(
        self,
        channel: Any,
        address: str,
        max_message_bytes: int,
        buffers: Buffers,
        on_up: Callable[[Trunk], None],
        on_drain: Callable[[Trunk], None],
        on_end: Callable[[Trunk, grpc.StatusCode], None],
    ) -> None:
        self.opened = time.monotonic()
        self.neighbour = Neighbour(None, max_message_bytes)
        self.has_answered = False
        self._address = address
        self._max_message_bytes = max_message_bytes
        self.buffers = buffers
        self._on_up, self._on_drain, self._on_end = on_up, on_drain, on_end
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._waiting: deque[Request] = deque()
        self._cancels: deque[int] = deque()
        # By number, those that were sent and have no answer yet.
        self._pending: dict[int, Request] = {}
        self._leaving: deque[tuple[Request, chunks.Leaving]] = deque()
        self._arriving: dict[int, chunks.Arriving] = {}
        self._chunk_went_last = True
        self._pending_bytes = 0
        self._grant_calls = self._grant_bytes = 0
        self._greeted = self._retired = self._closed = self._over = False
        self._stream = ClientStream(channel, TRUNK, self)
        self._stream.start()
        self._stream.wake()

    def __repr__(self) -> str:
        return f"<Trunk to {self._address}, {len(self._waiting)} waiting, {len(self._pending)} on their way>"

    @property
    def load(self) -> int:
        """Calls that wait or are on their way."""
        return len(self._waiting) + len(self._pending)

    @property
    def max_request_bytes(self) -> int:
        """What the server takes of one request at most."""
        return self._grant_bytes

    def put(self, request: Request) -> None:
        """Let a call wait for the next frame; :meth:`wake` has to follow. It is settled in any case."""
        self._waiting.append(request)
        if self._closed:
            self._drop_waiting()

    def wake(self) -> None:
        """Send what waits."""
        self._stream.wake()

    def cancel(self, request: Request) -> bool:
        """Nobody waits for an answer any more; False if it has come already."""
        waiter, request.waiter = request.waiter, None
        if waiter is None:
            return False
        try:
            self._waiting.remove(request)
            request.take_back()
        except ValueError:
            # It has left, or leaves with the frame that is being put together; this goes with a later one.
            self._cancels.append(request.number)
            self._stream.wake()
        return True

    def retire(self) -> None:
        """Take no new calls; the stream ends when those on their way are answered."""
        self._retired = True
        self._stream.wake()

    def cut(self) -> None:
        """End it now."""
        self._stream.cancel()

    def join(self, timeout: float) -> None:
        """Wait for its thread to end, which it does soon after :meth:`cut`."""
        self._stream.join(timeout)

    def expire(self) -> float:
        """Settle what is late; gives the earliest deadline of the rest, or infinity."""
        now, earliest = time.monotonic(), float("inf")
        for request in [*self._waiting, *self._pending.values()]:
            if request.deadline is None or request.waiter is None:
                continue
            if request.deadline > now:
                earliest = min(earliest, request.deadline)
            else:
                waiter = request.waiter
                if self.cancel(request):
                    waiter.settle(None, DeadlineExceeded())
        return earliest

    # What goes out.

    def next_message(self) -> bytes | None:
        if self._closed:
            return None
        # Small and large take turns, so that neither waits for more than one frame of the other.
        if self._leaving and not self._chunk_went_last:
            chunk = self._next_chunk()
            if chunk is not None:
                return chunk
        self._chunk_went_last = False
        frame = pb.ClientFrame()
        if not self._greeted:
            self._greeted = True
            frame.greeting.wire_version = WIRE_VERSION
            frame.greeting.abilities.extend(ABILITIES)
        with suppress(IndexError):
            while True:
                frame.cancels.append(self._cancels.popleft())
        added = self._add_calls(frame)
        if self._over:
            self._give_back(added)
            return None
        message: bytes = frame.SerializeToString()
        if message:
            return message
        chunk = self._next_chunk()
        if chunk is None and self._retired and not self._pending and not self._waiting:
            self._closed = True
            self._drop_waiting()
            self._stream.half_close()
        return chunk

    def _add_calls(self, frame: pb.ClientFrame) -> list[Request]:
        waiting, pending, now = self._waiting, self._pending, time.monotonic()
        added: list[Request] = []
        room, size = _FRAME_BYTES, 0
        with suppress(IndexError):
            while room > 0 and len(pending) < self._grant_calls:
                request = waiting[0]
                if pending and self._pending_bytes + size + request.size_bytes > self._grant_bytes:
                    break
                number = request.number = next(self._numbers)
                pending[number] = request
                try:
                    waiting.remove(request)
                except ValueError:
                    # It was given up in this very moment.
                    pending.pop(number, None)
                    continue
                added.append(request)
                size += request.size_bytes
                room -= self._add_call(frame, request, now)
        with self._lock:
            self._pending_bytes += size
        return added

    def _add_call(self, frame: pb.ClientFrame, request: Request, now: float) -> int:
        """Write a call into a frame; gives the bytes that it takes there."""
        number, method, message = request.number, request.method, request.message
        timeout = 0.0 if request.deadline is None else max(_LEAST_TIMEOUT, request.deadline - now)
        if len(message) > chunks.LARGE_BYTES:
            frame.calls.add(number=number, method=method, timeout=timeout, size=len(message))
            self._leaving.append((request, chunks.Leaving(number, message)))
            return chunks.OVERHEAD_BYTES
        frame.calls.add(number=number, method=method, timeout=timeout, request=message)
        return chunks.OVERHEAD_BYTES + len(message)

    def _give_back(self, added: list[Request]) -> None:
        """The end came while a frame was put together: what it holds has not left."""
        self._leaving.clear()
        for request in added:
            if self._pending.pop(request.number, None) is not None:
                self._return(request)

    def _next_chunk(self) -> bytes | None:
        queue = self._leaving
        while queue:
            request, leaving = queue[0]
            if request.waiter is None:
                # Answered, or given up: the rest of it need not go.
                queue.popleft()
                continue
            frame = leaving.frame()
            if not leaving.left:
                queue.popleft()
            self._chunk_went_last = True
            return frame
        return None

    # What comes in.

    def received(self, message: bytes) -> None:
        try:
            chunk = chunks.read(message)
            with Relay():
                if chunk is None:
                    self._take_frame(pb.ServerFrame.FromString(message))
                else:
                    self._take_chunk(*chunk)
        except (DecodeError, ValueError) as error:
            _log.warning("the server at %s does not keep to trunk.proto (%s)", self._address, error)
            self._stream.cancel()

    def ended(self, code: grpc.StatusCode, details: str) -> None:
        self._over = self._closed = True
        self.neighbour.close()
        with Relay():
            self._drop_waiting()
            self._drop_pending(details or code.name)
        # Who sends has hold of the old one, if anybody still does.
        self._leaving = deque()
        self._arriving.clear()
        self._on_end(self, code)

    def _take_frame(self, frame: pb.ServerFrame) -> None:
        size = 0
        for reply in frame.replies:
            request = self._pending.get(reply.number)
            if request is None or reply.number in self._arriving:
                raise ValueError(f"a reply to call {reply.number}, which has one already or is not on its way")
            if reply.size:
                self._begin(reply.number, reply.size)
                continue
            del self._pending[reply.number]
            self.has_answered = True
            size += request.size_bytes
            if reply.HasField("failure"):
                request.settle(None, error_of_failure(reply.failure, self._address))
            elif len(reply.reply) > self._max_message_bytes:
                request.settle(None, self._too_large(len(reply.reply)))
            elif reply.lent:
                self._settle_lent(request, reply.reply)
            else:
                request.settle(reply.reply, None)
        if frame.HasField("grant"):
            self._grant_calls, self._grant_bytes = frame.grant.calls, frame.grant.bytes
        if frame.HasField("greeting"):
            greeting = frame.greeting
            invited = greeting.shared_memory if greeting.HasField("shared_memory") else None
            self.neighbour = Neighbour(invited, self._max_message_bytes)
        if frame.draining:
            self._on_drain(self)
        elif frame.HasField("greeting"):
            self._on_up(self)
        self._freed(size)
        if frame.HasField("chunk"):
            self._take_chunk(frame.chunk.number, memoryview(frame.chunk.data))

    def _settle_lent(self, request: Request, reply: bytes) -> None:
        # The server may have had it, and used it, before us.
        link = self.neighbour.wait()
        try:
            message = read_reply(reply, REPLY_LIMITS, partial(borrow, link) if link is not None else None)
        except AipodError as error:
            request.settle(None, error)
            return
        if message.size_bytes > self._max_message_bytes:
            request.settle(None, self._too_large(message.size_bytes))
        else:
            request.settle(message, None)

    def _begin(self, number: int, size: int) -> None:
        request = self._pending[number]
        if size > self._max_message_bytes:
            request.settle(None, self._too_large(size))
        # One that nobody waits for is only counted.
        memory = self.buffers.take(size) if request.waiter is not None else None
        if memory is None:
            request.settle(None, Overloaded(f"there is no memory here for a result of {size} bytes; ask for less"))
        self._arriving[number] = chunks.Arriving(size, memory)

    def _take_chunk(self, number: int, data: memoryview) -> None:
        arriving = self._arriving.get(number)
        if arriving is None:
            raise ValueError(f"a chunk for call {number}, which has none to come")
        if arriving.add(data):
            del self._arriving[number]
            request = self._pending.pop(number)
            self.has_answered = True
            request.settle(arriving.message(), None)
            self._freed(request.size_bytes)

    def _freed(self, size: int) -> None:
        with self._lock:
            self._pending_bytes -= size
        if self._waiting or self._retired:
            self._stream.wake()

    # The end.

    def _drop_waiting(self) -> None:
        with suppress(IndexError):
            while True:
                self._return(self._waiting.popleft())

    def _drop_pending(self, details: str) -> None:
        with suppress(KeyError):
            while True:
                # Each has an error of its own, for it is going to have a traceback of its own.
                self._pending.popitem()[1].settle(None, lost(self._address, details))

    def _return(self, request: Request) -> None:
        request.take_back()
        request.settle(None, NeverSent(f"the stream to {self._address} ended before the call was sent; try again"))

    def _too_large(self, size: int) -> AipodError:
        details = f"CLIENT: Received message larger than max ({size} vs. {self._max_message_bytes})"
        return error_of_rpc(grpc.StatusCode.RESOURCE_EXHAUSTED, details, None, self._address)

"""One trunk, at the server's end.

What is kept here is what HTTP/2 does for unary calls: numbers, deadlines, cancels, and how much one client may have on
its way.

Which thread runs what: frames are read on the front's thread; answers are handed over by the threads that ran the model
and leave with :meth:`ServerTrunk.next_message`, which the front calls on one thread at a time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

from google.protobuf.message import DecodeError

from aipod.burst import Burst
from aipod.clock import Clock
from aipod.codec import Room
from aipod.engine.lane import ANSWERING
from aipod.engine.workers import ARRIVING
from aipod.rpc.deadlines import Deadlines
from aipod.rpc.front import Handler, RawStream
from aipod.rpc.front.end import UNKNOWN_METHOD, End
from aipod.rpc.methods import MODEL_METHODS
from aipod.rpc.trunk import chunks
from aipod.rpc.trunk.buffers import Buffers
from aipod.rpc.trunk_call import CANCELLED, Answer, Failed, LentReply, Trailing, TrunkCall, cost, write_failure
from aipod.rpc.v1 import trunk_pb2 as pb
from aipod.shm import Link, Ticket

__all__ = ["ServerTrunk"]

_log = logging.getLogger("aipod.trunk")

# What a frame holds of small answers; more leave with the next one.
_FRAME_BYTES = 128 * 1024
# How many calls of a long frame are taken before the model begins with the first of them.
_HEAD_START = 16
_NEVER = float("inf")
# As much as our clients may say; clocks have their limits.
_LONGEST_TIMEOUT = 365 * 86_400.0
_CUT_SHORT = End("INVALID_ARGUMENT", "the stream was closed before all of the request had come")
_PATHS = {number: MODEL_METHODS[name.lower()] for name, number in pb.Method.items()}


class Service(Protocol):
    """What holds for all trunks of a server; see :class:`~aipod.rpc.trunk_service.TrunkService`."""

    handle: Handler
    timeouts: Mapping[str, float | None]
    clock: Clock
    buffers: Buffers
    grant: pb.Grant
    max_message_bytes: int
    max_unread_bytes: int

    def forget(self, trunk: ServerTrunk) -> None: ...


class ServerTrunk:
    """One client's stream; a :class:`~aipod.rpc.front.StreamHandler`."""

    def __init__(self, service: Service, stream: RawStream, ticket: Ticket | None) -> None:
        self._service = service
        self._ticket = ticket
        self._stream = stream
        self._lock = threading.Lock()
        # By number, those that have no answer yet. Only the front's thread adds to it.
        self._calls: dict[int, TrunkCall] = {}
        self._arriving: dict[int, chunks.Arriving] = {}
        self._held_bytes = 0
        self._deadlines = Deadlines(service.clock.at, self._expire)
        self._notices: deque[pb.ServerFrame] = deque()
        self._answers: deque[tuple[int, Answer]] = deque()
        self._leaving: deque[chunks.Leaving] = deque()
        self._unread_bytes = 0
        # Whether somebody is going to wake the stream for the answers that wait.
        self._promised = False
        self._held = False
        self._chunk_went_last = True
        self._closing: tuple[str, str] | None = None
        self._over = False

    @property
    def peer(self) -> str:
        return self._stream.peer

    @property
    def metadata(self) -> Trailing:
        return self._stream.metadata

    @property
    def identities(self) -> Sequence[str]:
        return self._stream.identities

    @property
    def link(self) -> Link | None:
        """Shared memory, once the client has come for it."""
        ticket = self._ticket
        return ticket.link if ticket is not None else None

    @property
    def room(self) -> Room:
        return self._service.buffers.room

    def tell(self, notice: pb.ServerFrame) -> None:
        """Have a frame sent that answers nothing."""
        self._notices.append(notice)
        self._stream.wake()

    def end(self, status: str, details: str) -> None:
        """Finish the stream once every call is answered."""
        self._closing = self._closing or (status, details)
        self._stream.wake()

    def received(self, message: bytes) -> None:
        try:
            if len(message) > chunks.MAX_FRAME_BYTES:
                raise _Breach(f"a frame has {len(message)} bytes, and {chunks.MAX_FRAME_BYTES} are allowed")
            chunk = chunks.read(message)
            if chunk is None:
                self._take_frame(pb.ClientFrame.FromString(message))
            else:
                self._take_chunk(*chunk)
        except _Breach as breach:
            self._break(str(breach))
        except DecodeError:
            self._break("a frame is no ClientFrame")
        except Exception:
            _log.exception("a frame could not be taken")
            self._break("a frame could not be taken; the server's log says why")

    def half_closed(self) -> None:
        for number in list(self._arriving):
            call = self._calls.get(number)
            if call is not None:
                call.end(_CUT_SHORT)
        self.end("OK", "")

    def gone(self) -> None:
        with self._lock:
            # Whoever answers from now on finds that nobody reads.
            self._over = True
        self._part()
        for call in list(self._calls.values()):
            call.end(CANCELLED)
        self._calls.clear()
        self._arriving.clear()
        self._answers.clear()
        self._leaving.clear()

    def _part(self) -> None:
        self._service.forget(self)
        self._deadlines.close()
        # Not kept: what a client lent is memory until nobody here refers to it.
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            ticket.close()

    # Calls come in.

    def _take_frame(self, frame: pb.ClientFrame) -> None:
        granted = self._service.grant.calls
        if len(frame.cancels) > granted:
            raise _Breach(f"a frame cancels more than the {granted} calls that were granted")
        for number in frame.cancels:
            call = self._calls.get(number)
            if call is not None:
                call.end(CANCELLED)
        if len(self._calls) + len(frame.calls) > granted:
            raise _Breach(f"more than the {granted} calls that were granted are on their way")
        earliest = _NEVER
        with Burst(ARRIVING) as arriving:
            for count, one in enumerate(frame.calls, 1):
                earliest = min(earliest, self._take(one))
                if count == _HEAD_START:
                    arriving.settle()
        self._deadlines.watch(earliest)
        if frame.HasField("chunk"):
            self._take_chunk(frame.chunk.number, memoryview(frame.chunk.data))

    def _take(self, one: pb.Call) -> float:
        number, request, size = one.number, one.request, one.size
        if number in self._calls:
            raise _Breach(f"number {number} came again before its call was answered")
        path = _PATHS.get(one.method, "")
        # What is no number above 0 is none.
        timeout = min(one.timeout, _LONGEST_TIMEOUT) if one.timeout > 0.0 else None
        call = TrunkCall(self, number, path, timeout, self._service.timeouts.get(path), size or len(request))
        self._hold(call)
        self._calls[number] = call
        limit = self._service.max_message_bytes
        if not path:
            call.end(UNKNOWN_METHOD)
        elif size > limit:
            call.end(End("RESOURCE_EXHAUSTED", f"SERVER: Received message larger than max ({size} vs. {limit})"))
        elif size:
            memory = self._service.buffers.take(size)
            if memory is None:
                call.end(End("RESOURCE_EXHAUSTED", f"the server has no memory for a request of {size} bytes"))
            else:
                self._arriving[number] = chunks.Arriving(size, memory)
        else:
            self._run(call, request)
        return _NEVER if call.deadline is None else call.deadline

    def _take_chunk(self, number: int, data: memoryview) -> None:
        arriving = self._arriving.get(number)
        if arriving is None:
            # Of a call that was answered while the rest of it was on its way.
            return
        try:
            complete = arriving.add(data)
        except ValueError as error:
            raise _Breach(str(error)) from None
        if complete:
            self._arriving.pop(number, None)
            call = self._calls.get(number)
            # None if its time was over in this very moment.
            if call is not None:
                self._run(call, arriving.message())

    def _run(self, call: TrunkCall, message: bytes | memoryview) -> None:
        # Who takes it apart takes views of it, and a view of a view is as good.
        call.message = cast(bytes, message)
        self._service.handle(call)
        # Who took the message keeps it for as long as it needs it.
        call.message = b""

    def _hold(self, call: TrunkCall) -> None:
        with self._lock:
            self._held_bytes += call.size_bytes
            too_much = self._held_bytes > self._service.grant.bytes and self._held_bytes > call.size_bytes
        if too_much:
            raise _Breach(f"more than the {self._service.grant.bytes} bytes of requests that were granted")

    def _expire(self) -> float:
        now, earliest = time.monotonic(), _NEVER
        for call in list(self._calls.values()):
            if call.deadline is not None:
                if call.deadline <= now:
                    call.end(call.late)
                else:
                    earliest = min(earliest, call.deadline)
        return earliest

    # Answers go out.

    def answer(self, call: TrunkCall, answer: Answer) -> None:
        """Send an answer when its turn comes; from any thread, once for each call."""
        with self._lock:
            if self._over:
                return
            self._calls.pop(call.number, None)
            self._arriving.pop(call.number, None)
            self._held_bytes -= call.size_bytes
            self._answers.append((call.number, answer))
            self._count(cost(answer))
            promised, self._promised = self._promised, True
        if not promised:
            ANSWERING.after(self._send_answers)

    def _send_answers(self) -> None:
        self._promised = False
        self._stream.wake()

    def next_message(self) -> bytes | None:
        # Small and large take turns, so that neither waits for more than one frame of the other.
        if self._leaving and not self._chunk_went_last:
            return self._next_chunk()
        self._chunk_went_last = False
        if self._notices:
            return bytes(self._notices.popleft().SerializeToString())
        if self._answers:
            return self._next_answers()
        if self._leaving:
            return self._next_chunk()
        if self._closing is not None and not self._calls:
            self._over = True
            self._part()
            self._stream.finish(*self._closing)
        return None

    def _next_answers(self) -> bytes:
        frame, room = pb.ServerFrame(), _FRAME_BYTES
        add = frame.replies.add
        while self._answers and room > 0:
            number, answer = self._answers.popleft()
            if isinstance(answer, Failed):
                write_failure(add(number=number).failure, *answer)
                room -= cost(answer)
            elif isinstance(answer, LentReply):
                add(number=number, reply=answer.message, lent=True)
                room -= cost(answer)
            elif len(answer) <= chunks.LARGE_BYTES:
                add(number=number, reply=answer)
                room -= cost(answer)
            else:
                add(number=number, size=len(answer))
                room -= chunks.OVERHEAD_BYTES
                self._leaving.append(chunks.Leaving(number, answer))
        self._sent(_FRAME_BYTES - room)
        return bytes(frame.SerializeToString())

    def _next_chunk(self) -> bytes:
        leaving = self._leaving[0]
        before = leaving.left
        frame = leaving.frame()
        if not leaving.left:
            self._leaving.popleft()
        self._chunk_went_last = True
        self._sent(before - leaving.left)
        return frame

    def _sent(self, size: int) -> None:
        with self._lock:
            self._count(-size)

    def _count(self, size: int) -> None:
        """Answers wait, or have left. Who does not read what he asked for is not asked for more. Under the lock."""
        self._unread_bytes += size
        held = self._unread_bytes > self._service.max_unread_bytes
        if held is not self._held:
            self._held = held
            self._stream.hold(held)

    def _break(self, problem: str) -> None:
        """The client does not keep to the contract: end the stream, and whatever it has on its way."""
        self.gone()
        self._stream.finish("INVALID_ARGUMENT", f"{problem}; see trunk.proto")


class _Breach(Exception):
    """A frame that the contract does not allow."""

"""Streams that follow jobs: on each of them every record comes once, in order, and the state whenever it changes.

No stream holds a thread. One thread reads for all of them, a page at a time, and reads the next page for a stream only
when its peer has taken the last: one that does not read, or is gone, costs a page.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from queue import SimpleQueue

from google.protobuf.message import DecodeError

from aipod.clock import Clock, Timer
from aipod.engine import Engine
from aipod.errors import AipodError, InternalError, InvalidArgument, Unavailable
from aipod.rpc.front import RawStream, StreamOpener
from aipod.rpc.job_info import job_info, json_object
from aipod.rpc.methods import FOLLOW
from aipod.rpc.refusal import Refusals
from aipod.rpc.v1 import jobs_pb2 as pb

__all__ = ["JobStreams"]

_log = logging.getLogger("aipod.rpc")

HEARTBEAT_SECONDS = 5.0
# However fast a model writes, for each stream one looks only so often.
PAUSE_SECONDS = 0.02
# At the end, for a disk that does not answer.
_LAST_LOOKS_SECONDS = 5.0
# Of a page: as many records, and once there are so many bytes no more.
_PAGE_RECORDS = 64
_PAGE_BYTES = 256 * 1024


class JobStreams:
    """All streams that follow a job on one server.

    Args:
        engine: What runs the jobs.
        refusals: How errors are answered.
    """

    def __init__(self, engine: Engine, refusals: Refusals) -> None:
        self.engine = engine
        self.refusals = refusals
        self.clock = Clock()
        self._looks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._open: set[_JobStream] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<JobStreams, {len(self._open)} open>"

    @property
    def streams(self) -> Mapping[str, StreamOpener]:
        return {FOLLOW: self._follow}

    def read(self, look: Callable[[], None]) -> None:
        """Have the thread take a look; it starts with the first of them."""
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._read, name="aipod-follow", daemon=True)
                self._thread.start()
        self._looks.put(look)

    def forget(self, one: _JobStream) -> None:
        with self._lock:
            self._open.discard(one)

    def close(self) -> None:
        """Tell everybody what there is to tell, and end all streams."""
        with self._lock:
            self._closed = True
            streams, thread = list(self._open), self._thread
        self.clock.close()
        for one in streams:
            self._looks.put(one.look)
        self._looks.put(None)
        if thread is not None:
            thread.join(_LAST_LOOKS_SECONDS)
        for one in streams:
            one.refuse(_stopped())

    def _read(self) -> None:
        while (look := self._looks.get()) is not None:
            try:
                look()
            except Exception:
                # One that fails must not keep the others from their news.
                _log.exception("a stream that follows a job could not be served")

    def _follow(self, stream: RawStream) -> _JobStream:
        one = _JobStream(self, stream)
        with self._lock:
            self._open.add(one)
            closed = self._closed
        if closed:
            one.refuse(_stopped())
        return one


class _JobStream:
    """See :class:`~aipod.rpc.front.interface.StreamHandler`.

    What is read is read by :meth:`look`, on the one thread. The lock guards what other threads touch as well: the
    message that waits for the peer, and whether there may be more to read.
    """

    def __init__(self, streams: JobStreams, stream: RawStream) -> None:
        self._streams = streams
        self._stream = stream
        self._request: pb.FollowRequest | None = None
        self._after = 0
        self._page_records = _PAGE_RECORDS
        self._told: pb.JobInfo | None = None
        self._is_behind = False
        self._looked = 0.0
        self._lock = threading.Lock()
        self._message: bytes | None = None
        # A look is on its way; something may be new since the last one; the peer is to hear that all is well.
        self._due = self._more = self._beats = False
        self._over = False
        self._timer: Timer | None = None
        self._unwatch: Callable[[], None] | None = None

    def received(self, message: bytes) -> None:
        if self._request is not None:
            return
        try:
            request = pb.FollowRequest.FromString(message)
        except DecodeError:
            self.refuse(_no_request())
            return
        if request.after < 0:
            self.refuse(InvalidArgument(f"after is {request.after}; give the seq of the last record, or 0"))
            return
        self._request, self._after = request, request.after
        self._beat()

    def next_message(self) -> bytes | None:
        with self._lock:
            message, self._message = self._message, None
            more = self._more and message is not None
        if more:
            # What waits already is read as fast as the peer takes it.
            self._wake(at_once=self._is_behind)
        return message

    def half_closed(self) -> None:
        if self._request is None:
            self.refuse(_no_request())

    def gone(self) -> None:
        with self._lock:
            # The last message may still have to leave.
            self._over = True
            timer, unwatch = self._timer, self._unwatch
        if timer is not None:
            timer.cancel()
        if unwatch is not None:
            unwatch()
        self._streams.forget(self)

    def refuse(self, error: AipodError) -> None:
        """End the stream with an error, unless it has ended."""
        if not self._over:
            version = self._told.version if self._told is not None else ""
            self._stream.finish(*self._streams.refusals.told(FOLLOW, error, version))
            self.gone()

    def look(self) -> None:
        """Read what is new and put it on its way; on the reader's thread."""
        request = self._request
        with self._lock:
            self._due = False
            if self._over or request is None or self._message is not None:
                return
            self._more = False
            beats, self._beats = self._beats, False
        self._looked = time.monotonic()
        try:
            message, is_last = self._read(request, beats)
        except AipodError as error:
            self.refuse(error)
        except Exception as error:
            internal = InternalError()
            internal.__cause__ = error
            self.refuse(internal)
        else:
            self._send(message, is_last)

    def _send(self, message: bytes | None, is_last: bool) -> None:
        if message is not None:
            with self._lock:
                self._message = message
            self._stream.wake()
        if is_last:
            # It sends what there is before it ends.
            self._stream.finish()
            self.gone()

    def _read(self, request: pb.FollowRequest, beats: bool) -> tuple[bytes | None, bool]:
        """The next message, if there is anything to tell, and whether it is the last one."""
        trainings = self._streams.engine.trainings
        if self._unwatch is None:
            self._watch(trainings.get(request.id).id)
        # Before the records: of a job that is over by now, all of them are there.
        job = trainings.get(request.id)
        if job.is_over and trainings.is_held(request.id):
            # Whoever hears of the end may train again at once. There is a wake when it has been let go of.
            return (b"" if beats else None), False
        records, are_all = ([], True) if request.without_records else self._records(request.id)
        reply, info = pb.FollowReply(records=records), job_info(job)
        if info != self._told:
            reply.job.CopyFrom(info)
            self._told = info
        if beats and job.is_active:
            reply.heartbeat = trainings.heartbeat(request.id)
        tells = beats or records or reply.HasField("job")
        return reply.SerializeToString() if tells else None, are_all and (request.once or job.is_over)

    def _records(self, job_id: str) -> tuple[list[bytes], bool]:
        """A page of records, and whether there are no more for now."""
        limit = self._page_records
        found = self._streams.engine.trainings.records(job_id, self._after, limit)
        page: list[bytes] = []
        size_bytes = 0
        for record in found:
            page.append(json_object(record))
            self._after, size_bytes = record["seq"], size_bytes + len(page[-1])
            if size_bytes >= _PAGE_BYTES:
                break
        # Where records are large, those that have to wait for the next page need not be read twice.
        self._page_records = min(2 * len(page), _PAGE_RECORDS) or _PAGE_RECORDS
        are_all = len(page) == len(found) < limit
        if not are_all:
            with self._lock:
                self._more = True
        self._is_behind = not are_all
        return page, are_all

    def _watch(self, job_id: str) -> None:
        unwatch = self._streams.engine.trainings.watch(job_id, self._wake)
        with self._lock:
            self._unwatch = unwatch
            over = self._over
        if over:
            unwatch()

    def _beat(self) -> None:
        """Have the peer hear something, now and again in a while."""
        with self._lock:
            if self._over:
                return
            self._beats = True
            self._timer = self._streams.clock.at(time.monotonic() + HEARTBEAT_SECONDS, self._beat)
        self._wake()

    def _wake(self, at_once: bool = False) -> None:
        """There may be something new: look soon. Any thread's."""
        with self._lock:
            self._more = True
            if self._over or self._due or self._message is not None:
                return
            self._due = True
        instant = self._looked + PAUSE_SECONDS
        look = partial(self._streams.read, self.look)
        if instant > time.monotonic() and not at_once:
            self._streams.clock.at(instant, look)
        else:
            look()


def _no_request() -> InvalidArgument:
    return InvalidArgument("the request is no aipod.v1.FollowRequest message")


def _stopped() -> Unavailable:
    return Unavailable("the server was stopped; the job is told of again when it is back")

"""A bidirectional RPC on the client's side, driven on grpcio's own completion queue.

grpcio's public API takes three hand-overs between threads for a message that goes out and two for one that comes in;
here the thread that has something to send sends it, and one thread reads. The layer (``grpc._cython.cygrpc``) is
private to grpcio; :func:`missing` says whether it is as it should be, and without it there are no trunks.

Rules of this file:

- When the last operation that was started has completed the queue is gone: nobody polls it after that, or the process
  dies. ``_due`` counts those of the thread that reads; ``_sent`` and ``_left`` count messages, started and completed,
  each of them written by one thread at a time. None is started, under ``_starting``, once the status has come.
- At most one message is on its way out: whoever has ``_sending`` asks the source for the next until there is none. No
  thread ever waits for it, nor for ``_starting``, but the one that reads, at the end.
- What was taken from an event is dropped before the next poll.
"""

from __future__ import annotations

import logging
import threading
from typing import Any, Protocol

import grpc
from grpc._cython import cygrpc

__all__ = ["ClientStream", "Source", "close_channel", "missing", "open_channel"]

_log = logging.getLogger("aipod.trunk")

_OPEN, _RECEIVED, _SENT, _CLOSED, _STATUS = "open", "received", "sent", "closed", "status"
_NEEDED = (
    "Channel",
    "PropagationConstants",
    "SendInitialMetadataOperation",
    "ReceiveInitialMetadataOperation",
    "SendMessageOperation",
    "ReceiveMessageOperation",
    "SendCloseFromClientOperation",
    "ReceiveStatusOnClientOperation",
    "StatusCode",
)
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Source(Protocol):
    """Who uses a stream. All but ``next_message`` is called by the thread that reads; none of it may raise."""

    def received(self, message: bytes) -> None:
        """One message, in order."""

    def next_message(self) -> bytes | None:
        """What is to be sent next; None if there is nothing. Called by one thread at a time."""

    def ended(self, code: grpc.StatusCode, details: str) -> None:
        """The stream is over; called once."""


def missing() -> str:
    """What this grpcio lacks of what is needed here; "" if nothing."""
    lacking = [name for name in _NEEDED if not hasattr(cygrpc, name)]
    if not lacking and not hasattr(cygrpc.Channel, "segregated_call"):
        lacking = ["Channel.segregated_call"]
    return ", ".join(lacking)


def open_channel(address: str, options: list[tuple[str, Any]]) -> Any:
    """A channel for streams; it shares its connections with others of the same address and options."""
    return cygrpc.Channel(address.encode(), tuple(options), None)


def close_channel(channel: Any) -> None:
    """Close a channel of :func:`open_channel`. Its streams have ended, or this may wait for their threads."""
    channel.close(cygrpc.StatusCode.cancelled, "Channel closed!")


class ClientStream:
    """One stream. Its thread reads from :meth:`start` on, which has to follow, and ends with the stream.

    Args:
        channel: What :func:`open_channel` gave.
        method: The full name.
        source: Who uses it.

    Raises:
        RuntimeError: No thread can begin.
        ValueError: The channel is closed.
    """

    def __init__(self, channel: Any, method: str, source: Source) -> None:
        self._source = source
        self._sending = threading.Lock()
        self._starting = threading.Lock()
        self._wanted = False
        self._over = False
        self._sent = self._left = 0
        start = (
            ((cygrpc.SendInitialMetadataOperation(None, 0),), _OPEN),
            ((cygrpc.ReceiveInitialMetadataOperation(0),), _OPEN),
            ((cygrpc.ReceiveMessageOperation(0),), _RECEIVED),
            ((cygrpc.ReceiveStatusOnClientOperation(0),), _STATUS),
        )
        self._due = 0
        self._call: Any = None
        self._gate = threading.Lock()
        self._gate.acquire()
        # First, since it may fail: operations that nobody waits for could never be got rid of.
        self._thread = threading.Thread(target=self._read, name="aipod-trunk", daemon=True)
        self._thread.start()
        try:
            defaults = cygrpc.PropagationConstants.GRPC_PROPAGATE_DEFAULTS
            self._call = channel.segregated_call(defaults, method.encode(), None, None, None, None, start, None)
            self._due = len(start)
        finally:
            if not self._due:
                self._gate.release()

    def start(self) -> None:
        """Let the source hear of what comes."""
        self._gate.release()

    def wake(self) -> None:
        """There is something to send: send it now, on this thread, unless another one is at it."""
        # Set before it is tried, and looked at when it was let go: no wake-up is lost.
        self._wanted = True
        if self._sending.acquire(blocking=False):
            self._send()

    def half_close(self) -> None:
        """Send nothing more; after the last message, on the thread that sent it."""
        self._start(cygrpc.SendCloseFromClientOperation(0), _CLOSED)

    def cancel(self) -> None:
        """Break it off; ``ended`` follows."""
        self._call.cancel(cygrpc.StatusCode.cancelled, "Locally cancelled by application!")

    def join(self, timeout: float) -> None:
        """Wait for the end, which comes soon after :meth:`cancel`."""
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _send(self) -> None:
        """By who has ``_sending``, which is let go when nothing is left to send."""
        try:
            while True:
                self._wanted = False
                message = self._source.next_message()
                if message is not None:
                    # If the stream is over, its end is on its way to the source.
                    self._start(cygrpc.SendMessageOperation(message, 0), _SENT)
                    return
                self._sending.release()
                if not self._wanted or not self._sending.acquire(blocking=False):
                    return
        except BaseException:
            # Ctrl-C on the thread that sends: nobody knows what has left, and nobody would send any more.
            self.cancel()
            raise

    def _start(self, operation: Any, tag: str) -> None:
        """By who has ``_sending``."""
        with self._starting:
            if not self._over and self._call.operate((operation,), tag):
                self._sent += 1

    def _read(self) -> None:
        self._gate.acquire()
        status: Any = None
        while self._due or self._sent > self._left:
            event = self._call.next_event()
            tag = event.tag
            if tag is _STATUS:
                status = event.batch_operations[0]
                with self._starting:
                    self._over = True
            elif tag is _SENT or tag is _CLOSED:
                self._left += 1
            self._handle(event)
            if tag is not _SENT and tag is not _CLOSED:
                self._due -= 1
            del event
        if status is not None:
            self._source.ended(_CODES.get(status.code(), grpc.StatusCode.UNKNOWN), status.details() or "")

    def _handle(self, event: Any) -> None:
        try:
            if event.tag is _RECEIVED:
                self._take(event.batch_operations[0].message())
            elif event.tag is _SENT and event.success:
                self._send()
        except Exception:
            _log.exception("a stream was broken off")
            self.cancel()

    def _take(self, message: bytes | None) -> None:
        # None: the server sends no more, or there is no connection any more; the status says what it was.
        if message is not None:
            if self._call.operate((cygrpc.ReceiveMessageOperation(0),), _RECEIVED):
                self._due += 1
            self._source.received(message)

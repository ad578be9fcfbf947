"""The client's end of shared memory: found out about in the background, used from then on."""

from __future__ import annotations

import logging
import threading
import time

from aipod.errors import Unavailable
from aipod.rpc.v1 import trunk_pb2 as pb
from aipod.shm import Invitation, Link, available, connect

__all__ = ["Neighbour"]

_log = logging.getLogger("aipod.trunk")

# What one client lends at most, and takes, unless it takes larger messages anyway.
_MOST_BYTES = 1 << 30
_PATIENCE = 1.0
# Memory that no call has used for so long goes back to the system.
_TRIM_SECONDS = 30.0


class Neighbour:
    """A server that may be on the same host.

    Nothing happens before the first large array: most programs have none. Then a thread goes to see, and until it is
    back, or where the server is elsewhere, the socket carries everything.

    Args:
        invited: What the server said of shared memory; None if it has none.
        max_message_bytes: The largest reply.
    """

    def __init__(self, invited: pb.SharedMemory | None, max_message_bytes: int) -> None:
        self._invited = invited if invited is not None and not available() else None
        self._max_bytes = max(_MOST_BYTES, max_message_bytes)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._link: Link | None = None
        self._closed = False
        self._trimmed = time.monotonic()

    def link(self) -> Link | None:
        """The memory, if it is there already."""
        link = self._link
        if link is not None:
            self._trim(link)
        elif self._invited is not None and self._thread is None:
            self._go()
        return link

    def wait(self) -> Link | None:
        """The memory, if there is any to be had."""
        self.link()
        thread = self._thread
        if thread is not None:
            thread.join()
        return self._link

    def close(self) -> None:
        """Share nothing more."""
        with self._lock:
            self._closed = True
            link, self._link = self._link, None
        if link is not None:
            link.close()

    def _go(self) -> None:
        with self._lock:
            if self._thread is None and not self._closed:
                thread = threading.Thread(target=self._connect, name="aipod-neighbour", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    # No thread can begin: there are too many, or the program is at its end.
                    return
                # Only now: who sees it waits for it, and who does not comes here and waits for the lock.
                self._thread = thread

    def _connect(self) -> None:
        invited = self._invited
        assert invited is not None
        try:
            link = connect(Invitation(invited.name, invited.token, invited.bytes), self._max_bytes, _PATIENCE)
        except Unavailable as error:
            _log.debug("%s", str(error))
            return
        with self._lock:
            if not self._closed:
                self._link = link
                return
        link.close()

    def _trim(self, link: Link) -> None:
        now = time.monotonic()
        if now - self._trimmed > _TRIM_SECONDS:
            self._trimmed = now
            link.arena.trim()

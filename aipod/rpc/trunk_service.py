"""``aipod.v1.Trunk``: the server's end of the streams on which clients send their calls together.

A call of a trunk is handed on exactly as a unary one is, and the same code answers it. Each stream is one
:class:`~aipod.rpc.server_trunk.ServerTrunk`; here is what they have in common.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from aipod.clock import Clock
from aipod.config import Settings
from aipod.rpc.front import Handler, RawStream
from aipod.rpc.methods import ABILITIES, TRUNK, WIRE_VERSION
from aipod.rpc.server_trunk import ServerTrunk
from aipod.rpc.trunk import chunks
from aipod.rpc.trunk.buffers import Buffers
from aipod.rpc.v1 import trunk_pb2 as pb
from aipod.shm import Invitation, Listener, available

__all__ = ["TrunkService"]

# More calls than these are of no use to one client: they would only wait here instead of there.
_CALLS = 4096
# Shared memory that nobody has used for so long goes back to the system.
_TRIM_SECONDS = 30.0


class TrunkService:
    """Takes trunks.

    Args:
        handle: What takes their calls, as it takes unary ones.
        timeouts: For each method's path, seconds for a call that names none; None for ever.
        settings: The server's.
    """

    def __init__(self, handle: Handler, timeouts: Mapping[str, float | None], settings: Settings) -> None:
        self.handle = handle
        self.timeouts = timeouts
        self.clock = Clock()
        self.buffers = Buffers()
        self.max_message_bytes = settings.max_message_bytes
        self.grant = pb.Grant(calls=_CALLS, bytes=max(settings.max_queue_bytes, settings.max_message_bytes))
        # What may wait for a client that does not read.
        self.max_unread_bytes = settings.max_message_bytes
        self._trunks: set[ServerTrunk] = set()
        self._lock = threading.Lock()
        self._draining = False
        shared = settings.shared_memory_bytes
        self._listener = Listener(shared, shared) if shared and not available() else None

    @property
    def streams(self) -> Mapping[str, Callable[[RawStream], ServerTrunk]]:
        """For the front; none where it would refuse frames for their size."""
        return {TRUNK: self._open} if self.max_message_bytes >= chunks.MAX_FRAME_BYTES else {}

    def start(self) -> None:
        """Let clients of this host come for shared memory."""
        if self._listener is not None:
            self._listener.start()
            self._trim()

    def drain(self) -> None:
        """Tell all clients to send what comes next elsewhere."""
        with self._lock:
            self._draining = True
            trunks = list(self._trunks)
        for trunk in trunks:
            trunk.tell(pb.ServerFrame(draining=True))

    def close(self) -> None:
        """End every trunk, each when its last answer is on its way."""
        with self._lock:
            trunks = list(self._trunks)
        for trunk in trunks:
            trunk.end("UNAVAILABLE", "the server was stopped")
        self.clock.close()
        self.buffers.close()
        if self._listener is not None:
            self._listener.close()

    def forget(self, trunk: ServerTrunk) -> None:
        with self._lock:
            self._trunks.discard(trunk)

    def _open(self, stream: RawStream) -> ServerTrunk:
        ticket = self._listener.ticket() if self._listener is not None else None
        trunk = ServerTrunk(self, stream, ticket)
        with self._lock:
            self._trunks.add(trunk)
            draining = self._draining
        greeting = pb.Greeting(
            wire_version=WIRE_VERSION,
            abilities=ABILITIES,
            shared_memory=_written(ticket.invitation) if ticket is not None else None,
        )
        trunk.tell(pb.ServerFrame(greeting=greeting, grant=self.grant, draining=draining))
        return trunk

    def _trim(self) -> None:
        if self._listener is not None:
            self._listener.trim()
            self.clock.at(time.monotonic() + _TRIM_SECONDS, self._trim)


def _written(invitation: Invitation) -> pb.SharedMemory:
    return pb.SharedMemory(name=invitation.name, token=invitation.token, bytes=invitation.max_bytes)

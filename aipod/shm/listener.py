"""The server's side of the hand-over: one socket for all clients, and one thread that waits for what comes to it.

The socket has a name of the abstract namespace, which is the network's and not any file system's: containers that share
their network see it, nobody else does, and it ends with its process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import selectors
import socket
import threading
from functools import partial
from typing import Any

from aipod.errors import InvalidArgument, PermissionDenied, Unavailable
from aipod.shm.budget import Budget
from aipod.shm.link import PREFIX, TOKEN_BYTES, Greeting, Invitation, Link, check_peer, join
from aipod.shm.region import PeerRegion, Region

__all__ = ["Listener", "Ticket"]

# Guests who have not said anything. When there are more, the one who has been silent for the longest has to go.
_MOST_SILENT = 64
# Who comes when so many wait to be let in is turned away by the system.
_MOST_AT_THE_DOOR = 1024
# How long nobody is let in after there was no descriptor left for one more, in seconds.
_REST = 1.0

_log = logging.getLogger("aipod.shm")


class Ticket:
    """The right of one connection to share memory; closed with it.

    Attributes:
        invitation: What to tell the client, on that connection.
        link: The memory, once the client has come for it; the client knows of it later than we do.
    """

    def __init__(self, invitation: Invitation, listener: Listener) -> None:
        self.invitation = invitation
        self.link: Link | None = None
        self._listener = listener

    def __enter__(self) -> Ticket:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the link, and let no client come for it any more; again is fine."""
        self._listener._withdraw(self)


class Listener:
    """Waits for the clients that were invited. Its methods may be called from any thread.

    Args:
        max_bytes: The most to lend to one of them, and the most to take from one.
        total_bytes: The most to lend to all of them.
    """

    def __init__(self, max_bytes: int, total_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.budget = Budget(total_bytes)
        self.name = PREFIX + secrets.token_hex(16)
        # Guards the tickets, and that no thread ends a guest's socket while another one closes it: its number may be
        # something else's by then.
        self._lock = threading.Lock()
        self._tickets: dict[bytes, Ticket] = {}
        self._thread: threading.Thread | None = None
        self._closing = False
        # The rest is for that thread alone. A guest is silent until it has greeted, and then has a link.
        self._silent: dict[socket.socket, None] = {}
        self._linked: dict[socket.socket, Link] = {}
        self._resting = False

    def __enter__(self) -> Listener:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self) -> None:
        """Begin to listen.

        Raises:
            Unavailable: This system has no such sockets, or no room for one more.
        """
        with contextlib.ExitStack() as undo:
            try:
                self._door = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
                self._door.bind("\0" + self.name)
                self._door.listen(_MOST_AT_THE_DOOR)
                self._door.setblocking(False)
                self._selector = selectors.DefaultSelector()
                self._selector.register(self._door, selectors.EVENT_READ)
            except OSError as error:
                raise Unavailable(f"no shared memory here: {error}") from None
            undo.pop_all()
        self._thread = threading.Thread(target=self._run, name="aipod-shm", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End all links, and the thread; again is fine."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._closing = True
            self._end(self._door)
            thread.join()
            with self._lock:
                self._tickets.clear()

    def ticket(self) -> Ticket:
        """Make the ticket of one connection."""
        invitation = Invitation(self.name, secrets.token_bytes(TOKEN_BYTES), self.max_bytes)
        ticket = Ticket(invitation, self)
        with self._lock:
            self._tickets[invitation.token] = ticket
        return ticket

    def trim(self) -> int:
        """Trim what every client is lent; see :meth:`aipod.shm.arena.Arena.trim`."""
        with self._lock:
            links = [ticket.link for ticket in self._tickets.values()]
        return sum(link.arena.trim() for link in links if link is not None)

    def _withdraw(self, ticket: Ticket) -> None:
        with self._lock:
            self._tickets.pop(ticket.invitation.token, None)
        if ticket.link is not None:
            ticket.link.close()

    def _run(self) -> None:
        try:
            while not self._closing:
                # Whoever rests is woken up all the same, by what the guests do, and looks at the door again.
                events = self._selector.select(_REST if self._resting else None)
                if self._resting:
                    self._selector.register(self._door, selectors.EVENT_READ)
                    self._resting = False
                for key, _ in events:
                    self._serve(key.fileobj)
        finally:
            for guest in [*self._silent, *self._linked]:
                self._show_out(guest)
            self._selector.close()
            with self._lock:
                self._door.close()

    def _serve(self, sock: Any) -> None:
        if sock is self._door:
            self._let_in()
        elif sock in self._silent:
            try:
                self._greet(sock)
            except Exception as error:  # nothing that a guest sends may cost the others their thread
                # As text: who keeps the log's records would keep the memory, too.
                _log.info("no shared memory with a client: %s", str(error))
                self._show_out(sock)
        elif sock in self._linked:
            # Its end, or a second message, which is not in order.
            self._show_out(sock)

    def _let_in(self) -> None:
        try:
            guest, _ = self._door.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            if not self._closing:
                self._make_room(error)
            return
        try:
            check_peer(guest)
        except PermissionDenied as error:
            _log.info("no shared memory with a client: %s", str(error))
            guest.close()
            return
        guest.setblocking(False)
        self._silent[guest] = None
        self._selector.register(guest, selectors.EVENT_READ)
        if len(self._silent) > _MOST_SILENT:
            self._show_out(next(iter(self._silent)))

    def _make_room(self, error: OSError) -> None:
        # The newcomer still waits at the door, and would wake us again and again.
        if self._silent:
            self._show_out(next(iter(self._silent)))
            return
        _log.warning("nobody can be let in for shared memory: %s; the socket carries everything", error)
        self._selector.unregister(self._door)
        self._resting = True

    def _greet(self, guest: socket.socket) -> None:
        greeting, fd = Greeting.receive(guest)
        with self._lock:
            ticket = self._tickets.get(greeting.token)
        if ticket is None or ticket.link is not None:
            os.close(fd)
            raise InvalidArgument("it has no ticket, or somebody has come with that one before")
        theirs = PeerRegion(fd, greeting.size, self.max_bytes)
        region = Region(min(self.max_bytes, greeting.max_bytes))
        link = join(region, theirs, partial(self._end, guest), self.budget)
        del self._silent[guest]
        self._linked[guest] = link
        with self._lock:
            if greeting.token not in self._tickets:
                raise InvalidArgument("its connection has ended meanwhile")
            ticket.link = link
        # Only now, since a place may arrive as soon as it is sent.
        Greeting(greeting.token, region.size, self.max_bytes).send(guest, region.fd)

    def _show_out(self, guest: socket.socket) -> None:
        self._selector.unregister(guest)
        self._silent.pop(guest, None)
        link = self._linked.pop(guest, None)
        if link is not None:
            link.close()
        with self._lock:
            guest.close()

    def _end(self, sock: socket.socket) -> None:
        """Have the thread see the end of a socket; from any thread."""
        with self._lock, contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

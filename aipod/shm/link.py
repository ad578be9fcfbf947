"""How two processes come to share memory: each hands its region over, once, on a unix socket.

Each side sends one message, a greeting with the descriptor of its region, and nothing after that: the socket stays open
for the sake of its end, which is how either learns that the other is gone. What a stranger may send is bounded by the
sizes of one greeting and one descriptor; anything else, a second message too, ends the link.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from aipod.errors import InvalidArgument, PermissionDenied, Unavailable
from aipod.shm.arena import Arena
from aipod.shm.borrowed import Borrowed
from aipod.shm.budget import Budget
from aipod.shm.region import GRAIN, PeerRegion, Region

__all__ = [
    "PREFIX",
    "TOKEN_BYTES",
    "Greeting",
    "Invitation",
    "Link",
    "available",
    "check_peer",
    "connect",
    "exchange",
    "join",
]

TOKEN_BYTES = 32
# The beginning of a listener's name.
PREFIX = "aipod-"

# What it is and in which version, the token, the size of the region that comes with it, and the largest that is taken.
_LAYOUT = struct.Struct("<8s32sQQ")
_MAGIC = b"aipodsh1"
# struct ucred: process, user, group.
_CREDENTIALS = struct.Struct("3i")


class Invitation(NamedTuple):
    """What a server tells a client that may share memory with it, on the connection that is meant.

    Attributes:
        name: Of the server's socket, in the abstract namespace of their network.
        token: Says which connection it is, and that one was told.
        max_bytes: The largest region that the server takes.
    """

    name: str
    token: bytes
    max_bytes: int


class Link:
    """Memory that two processes share, seen from one of them.

    Attributes:
        arena: What this process lends.
        borrowed: What it borrows.
    """

    def __init__(self, arena: Arena, borrowed: Borrowed, hang_up: Callable[[], object]) -> None:
        self.arena = arena
        self.borrowed = borrowed
        self._hang_up = hang_up

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Link lends {self.arena!r}, borrows {self.borrowed!r}>"

    def close(self) -> None:
        """Lend nothing more, and have the other side learn of it; again is fine.

        Views stay valid, and places that are on their way here can still be borrowed.
        """
        self.arena.close()
        self.borrowed.close()
        self._hang_up()


class Greeting(NamedTuple):
    """The one message of either side.

    Attributes:
        token: Of the invitation; both sides say the same.
        size: The bytes of data in the region whose descriptor comes with it.
        max_bytes: The largest region that this side takes.
    """

    token: bytes
    size: int
    max_bytes: int

    def send(self, sock: socket.socket, fd: int) -> None:
        """Send it and the descriptor of the region.

        Raises:
            OSError: The other side is gone, or its queue is full; a socket without a timeout does not wait for it.
        """
        socket.send_fds(sock, [_LAYOUT.pack(_MAGIC, *self)], [fd])

    @classmethod
    def receive(cls, sock: socket.socket) -> tuple[Greeting, int]:
        """Receive one, and the descriptor of the region, which is the caller's to close.

        Raises:
            InvalidArgument: Something else came; no descriptor that came with it is left open.
            OSError: The other side is gone, or says nothing.
        """
        # One descriptor is all that there is room for: the system closes the others and says so in the flags.
        message, fds, flags, _ = socket.recv_fds(sock, _LAYOUT.size, 1, socket.MSG_CMSG_CLOEXEC)
        try:
            if not message and not fds:
                raise ConnectionResetError("it was closed")
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(message) != _LAYOUT.size or len(fds) != 1:
                raise InvalidArgument(f"a message of {len(message)} bytes with {len(fds)} descriptors is no greeting")
            magic, *fields = _LAYOUT.unpack(message)
            if magic != _MAGIC:
                raise InvalidArgument(f"a greeting of another version ({magic!r} instead of {_MAGIC!r})")
            return cls(*fields), fds.pop()
        finally:
            for fd in fds:
                os.close(fd)


def available() -> str:
    """Say what this system lacks for shared memory; ``""`` if nothing."""
    if not sys.platform.startswith("linux"):
        return f"shared memory needs Linux, and this is {sys.platform}"
    try:
        Region(GRAIN).close()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.bind("")  # a free name of the abstract namespace
    except (OSError, AttributeError) as error:
        return f"shared memory needs memfd_create and unix sockets, and this system refuses ({error})"
    return ""


def connect(invitation: Invitation, max_bytes: int, timeout: float = 5.0) -> Link:
    """Take a server's invitation up; without a thread, and not for an event loop, since it waits for the answer.

    Args:
        invitation: From the connection that the memory is for.
        max_bytes: The most to lend to the server, and the most to take from it.
        timeout: In seconds, for each of the few steps.

    Raises:
        Unavailable: There is no shared memory with this server; the sentence says why.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        # A server elsewhere may not send us to whatever listens on this host.
        if not invitation.name.startswith(PREFIX):
            raise InvalidArgument(f"{invitation.name[:40]!r} is no name of ours")
        sock.settimeout(timeout)
        sock.connect("\0" + invitation.name)
        check_peer(sock)
        return exchange(sock, invitation.token, max_bytes, their_max_bytes=invitation.max_bytes)
    except (OSError, ValueError, InvalidArgument, PermissionDenied) as error:
        sock.close()
        raise Unavailable(f"no shared memory with this server: {error}; the socket carries everything") from None
    except BaseException:
        sock.close()
        raise


def exchange(sock: socket.socket, token: bytes, max_bytes: int, their_max_bytes: int | None = None) -> Link:
    """Share memory over a connected socket, SOCK_SEQPACKET of AF_UNIX, whose other side does the same.

    Args:
        sock: The link's from now on; left to the caller if this fails.
        token: What both sides were told.
        max_bytes: The most to lend, and the most to take.
        their_max_bytes: The most that the other side takes, if that is known.

    Raises:
        InvalidArgument: The other side sent something else.
        OSError: It is gone, or says nothing; or this system has no room for a region.
    """
    region = Region(max_bytes if their_max_bytes is None else min(max_bytes, their_max_bytes))
    try:
        Greeting(token, region.size, max_bytes).send(sock, region.fd)
        greeting, fd = Greeting.receive(sock)
        theirs = PeerRegion(fd, greeting.size, max_bytes)
        if greeting.token != token:
            raise InvalidArgument("the other side greets with another token")
    except BaseException:
        region.close()
        raise
    return join(region, theirs, partial(_hang_up, sock, os.getpid()))


def join(region: Region, theirs: PeerRegion, hang_up: Callable[[], object], budget: Budget | None = None) -> Link:
    """Make a link of what each of the two has."""
    return Link(Arena(region, theirs.marks, budget), Borrowed(theirs, region.marks), hang_up)


def check_peer(sock: socket.socket) -> None:
    """See that the other side of a connected unix socket is of our user, or of root.

    Both sides look, so both are of one user in the end.

    Raises:
        PermissionDenied: It is not.
    """
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(credentials)
    if user not in (os.geteuid(), 0):
        raise PermissionDenied(f"a process of user {user} shares no memory with one of user {os.geteuid()}")


def _hang_up(sock: socket.socket, pid: int) -> None:
    # To close it would do, but for a process that was forked from ours and has it open too; and such a one must not
    # end our link when it ends its copy.
    if os.getpid() == pid:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
    sock.close()

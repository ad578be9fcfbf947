"""Two processes that lend to each other, and one of them is killed: what the other has afterwards.

Run as a program, this is the one that is killed. What the two say to each other, besides lending, goes over the
child's lifeline.
"""

from __future__ import annotations

import gc
import os
import random
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from waiting import eventually

from aipod.process import Child
from aipod.shm import Invitation, Link, Listener, Place, connect

__all__ = ["SIZE", "client_is_killed", "nothing_left", "server_is_killed"]

# More than ever is on its way or kept.
SIZE = 64 * 2**20
LARGEST = 2**19
# A place, and the byte that everything there is.
MESSAGE = struct.Struct("<3QB")
INVITATION = struct.Struct("<38s32s")


def client_is_killed(listener: Listener, dice: random.Random) -> None:
    """Serve one client until it is killed; its memory is free then, and what was borrowed of it is whole."""
    with listener.ticket() as ticket:
        child = start("client")
        child.lifeline.sendall(INVITATION.pack(listener.name.encode(), ticket.invitation.token))
        eventually(lambda: ticket.link)
        assert ticket.link is not None
        kept = talk_until_killed(ticket.link, child, dice)
        eventually(lambda: not listener._linked)
        assert ticket.link.arena.lend(1) is None
        check(kept)


def server_is_killed(dice: random.Random) -> None:
    """Be a client until the server is killed; its name is gone then, and what was borrowed of it is whole."""
    child = start("server")
    name, token = INVITATION.unpack(receive(child.lifeline, INVITATION.size))
    assert name in Path("/proc/net/unix").read_bytes()
    with connect(Invitation(name.decode(), token, SIZE), SIZE) as link:
        kept = talk_until_killed(link, child, dice)
    check(kept)
    assert name not in Path("/proc/net/unix").read_bytes()


@contextmanager
def nothing_left() -> Iterator[None]:
    """See that no descriptor and no mapping is there afterwards that was not there before."""
    before = held()
    yield
    gc.collect()
    eventually(lambda: held() == before)


def held() -> tuple[int, int]:
    return len(os.listdir("/proc/self/fd")), Path("/proc/self/maps").read_text().count("memfd:")


def start(role: str) -> Child:
    return Child.start([sys.executable, "-W", "error", __file__, role])


def talk_until_killed(link: Link, child: Child, dice: random.Random) -> list[tuple[memoryview, int]]:
    """Lend and borrow, with a few messages on their way at any time, and kill the child at some point."""
    kept: list[tuple[memoryview, int]] = []
    on_the_way: list[int] = []
    for _ in range(dice.randrange(1, 30)):
        while len(on_the_way) < 4:
            byte = dice.randrange(1, 255)
            if not say(link, child.lifeline, dice.randrange(1, LARGEST), byte):
                break
            on_the_way.append(byte)
        view, byte = hear(link, child.lifeline)
        assert byte == on_the_way.pop(0) + 1
        if dice.random() < 0.2:
            kept.append((view, byte))
    for _ in range(dice.randrange(3000)):
        pass
    child.kill()
    assert child.ended.result().signal == "SIGKILL"
    child.close()
    return kept


def say(link: Link, sock: socket.socket, nbytes: int, byte: int) -> bool:
    loan = link.arena.lend(nbytes)
    if loan is None:
        return False
    np.frombuffer(loan.view, np.uint8)[:] = byte
    sock.sendall(MESSAGE.pack(*loan.place, byte))
    return True


def hear(link: Link, sock: socket.socket) -> tuple[memoryview, int]:
    *place, byte = MESSAGE.unpack(receive(sock, MESSAGE.size))
    view = link.borrowed.borrow(Place(*place))
    check([(view, byte)])
    return view, byte


def check(views: list[tuple[memoryview, int]]) -> None:
    for view, byte in views:
        assert (np.frombuffer(view, np.uint8) == byte).all()


def receive(sock: socket.socket, nbytes: int) -> bytes:
    message = sock.recv(nbytes, socket.MSG_WAITALL)
    if len(message) < nbytes:
        raise SystemExit("the other side is gone")
    return message


def answer(link: Link, sock: socket.socket) -> None:
    """Send back what comes, one more of each byte, until killed."""
    while True:
        view, byte = hear(link, sock)
        assert say(link, sock, len(view), byte + 1)


def main(role: str) -> None:
    sock = socket.socket(fileno=0)
    if role == "client":
        name, token = INVITATION.unpack(receive(sock, INVITATION.size))
        answer(connect(Invitation(name.decode(), token, SIZE), SIZE), sock)
    listener = Listener(SIZE, SIZE)
    listener.start()
    ticket = listener.ticket()
    sock.sendall(INVITATION.pack(listener.name.encode(), ticket.invitation.token))
    answer(eventually(lambda: ticket.link), sock)


if __name__ == "__main__":
    main(sys.argv[1])

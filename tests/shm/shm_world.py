"""Two processes that share memory, played by one; and those who stand at the door."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from waiting import BOUND

from aipod.shm import Arena, Borrowed, Budget, Link, Listener, Loan, connect
from aipod.shm.link import PREFIX, Greeting
from aipod.shm.region import GRAIN, PeerRegion, Region

Floats = np.ndarray[Any, Any]

MIB = 2**20
SIZE = 4 * MIB


@dataclass
class Side:
    """What one of two processes has."""

    region: Region
    arena: Arena
    borrowed: Borrowed


@dataclass
class Pair:
    """A lender and a borrower, who lend to each other but mostly one way."""

    lender: Side
    borrower: Side

    def close(self) -> None:
        for side in (self.lender, self.borrower):
            side.arena.close()
            side.borrowed.close()


def shown(region: Region) -> PeerRegion:
    return PeerRegion(os.dup(region.fd), region.size, region.size)


def make_pair(size: int = SIZE, budget: Budget | None = None) -> Pair:
    one, other = Region(size), Region(size)
    sees_other, sees_one = shown(other), shown(one)
    return Pair(
        Side(one, Arena(one, sees_other.marks, budget), Borrowed(sees_other, one.marks)),
        Side(other, Arena(other, sees_one.marks), Borrowed(sees_one, other.marks)),
    )


def used(arena: Arena) -> int:
    return arena.statistics()["used_bytes"]


def array_in(arena: Arena, count: int) -> Floats:
    """An array of floats in a slice that nothing else refers to."""
    memory = arena.reserve(8 * count)
    assert memory is not None
    return np.ndarray((count,), np.float64, memory)


def find(arena: Arena, array: Floats) -> Loan | None:
    return arena.find(array.ctypes.data, array.nbytes)


def descriptors() -> list[str]:
    """Those that are open in this process and can be of shared memory: other libraries have theirs."""
    ours = {f"socket:[{inode}]" for inode in _seqpacket_inodes()}
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:  # the one that lists them
            continue
        if target in ours or "memfd:aipod" in target:
            found.append(f"{link.name} → {target}")
    return sorted(found)


def _seqpacket_inodes() -> Iterator[str]:
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        _, _, _, _, kind, _, inode, *_ = line.split()
        if int(kind, 16) == socket.SOCK_SEQPACKET:
            yield inode


def mappings() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:aipod")


@contextlib.contextmanager
def door(prefix: str = PREFIX) -> Iterator[tuple[socket.socket, str]]:
    """Listen as something else than a listener, under a name."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        name = f"{prefix}test-{os.getpid()}"
        sock.bind("\0" + name)
        sock.listen()
        yield sock, name


def is_over(sock: socket.socket) -> bool:
    """Wait for the other side to close."""
    sock.settimeout(BOUND)
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:  # it had not read all that was sent
        return True


@contextlib.contextmanager
def knock(listener: Listener) -> Iterator[socket.socket]:
    """Stand at the door without a word."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(BOUND)
        sock.connect("\0" + listener.name)
        yield sock


def send_memory(sock: socket.socket, token: bytes, size: int = GRAIN) -> None:
    region = Region(GRAIN)
    Greeting(token, size, SIZE).send(sock, region.fd)
    region.close()


def serves(listener: Listener) -> bool:
    """Whether a client that is as it should be is served as it should be."""
    with listener.ticket() as ticket, connect(ticket.invitation, SIZE) as link:
        return talks(link, ticket.link)


def lends(link: Link | None) -> bool:
    """Whether a link is open, on this side."""
    assert link is not None
    loan = link.arena.lend(1)
    if loan is not None:
        loan.take_back()
    return loan is not None


def talks(one: Link, other: Link | None) -> bool:
    assert other is not None
    for sender, receiver in ((one, other), (other, one)):
        loan = sender.arena.lend(MIB)
        assert loan is not None
        np.frombuffer(loan.view, np.uint8)[:] = 9
        if np.frombuffer(receiver.borrowed.borrow(loan.place), np.uint8).min() != 9:
            return False
    return True

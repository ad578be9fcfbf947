"""Descriptors that are no region, as a hostile peer may send them."""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import tempfile
from collections.abc import Callable

import numpy as np
import pytest

from aipod.errors import InvalidArgument
from aipod.shm.region import GRAIN, PAGE, PeerRegion, Region

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def memory(nbytes: int = PAGE + GRAIN, seals: int = SEALS) -> int:
    fd = os.memfd_create("hostile", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, nbytes)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def file(directory: str | None = None) -> int:
    with tempfile.TemporaryFile(dir=directory) as opened:
        opened.truncate(PAGE + GRAIN)
        return os.dup(opened.fileno())


def one_of(pair: tuple[int, int]) -> int:
    os.close(pair[1])
    return pair[0]


def write_only() -> int:
    fd = memory()
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)
    finally:
        os.close(fd)


def one_socket() -> int:
    one, other = socket.socketpair()
    other.close()
    return one.detach()


HOSTILE: dict[str, Callable[[], int]] = {
    "no seals": lambda: memory(seals=0),
    "may shrink": lambda: memory(seals=SEALS & ~fcntl.F_SEAL_SHRINK),
    "may grow": lambda: memory(seals=SEALS & ~fcntl.F_SEAL_GROW),
    "a page short": lambda: memory(GRAIN),
    "a byte long": lambda: memory(PAGE + GRAIN + 1),
    "empty": lambda: memory(0),
    "huge": lambda: memory(2**62),
    "write-only": write_only,
    "a file": file,
    "a file in memory": lambda: file("/dev/shm"),
    "a pipe": lambda: one_of(os.pipe()),
    "a socket": one_socket,
    "a directory": lambda: os.open("/", os.O_RDONLY),
    "a device": lambda: os.open("/dev/zero", os.O_RDWR),
    "a path": lambda: os.open("/", os.O_PATH),
    "none": lambda: 10_000,
}


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_a_descriptor_that_is_no_region_is_refused_and_closed(make):
    fd = make()
    with pytest.raises((InvalidArgument, OSError)) as refused:
        PeerRegion(fd, GRAIN, GRAIN)
    assert make is HOSTILE["none"] or refused.type is InvalidArgument
    assert not is_open(fd)


@pytest.mark.parametrize("size", [0, -GRAIN, GRAIN - 1, GRAIN + PAGE, 3 * GRAIN, 2**63, 2**64 - GRAIN])
def test_a_size_that_no_region_has_is_refused(size):
    fd = memory(PAGE + 3 * GRAIN)
    with pytest.raises(InvalidArgument, match=f"a region of {size} bytes is not mapped; send one of at most"):
        PeerRegion(fd, size, 2 * GRAIN)
    assert not is_open(fd)


def test_no_memory_of_huge_pages_has_the_size_of_a_region():
    """Where it has no page, such memory ends the process that reads it."""
    region = Region(GRAIN)
    assert (region.size // PAGE) % 2 == 0
    assert (os.fstat(region.fd).st_size // PAGE) % 2 == 1
    region.close()


def test_nobody_changes_the_size_of_a_region():
    region = Region(GRAIN)
    for size in (0, PAGE, region.size, 2 * region.size):
        with pytest.raises(PermissionError):
            os.ftruncate(region.fd, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(region.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    region.close()


@pytest.mark.parametrize(
    ("asked", "size"), [(0, GRAIN), (1, GRAIN), (GRAIN, GRAIN), (2 * GRAIN - 1, GRAIN), (2 * GRAIN, 2 * GRAIN)]
)
def test_a_region_is_never_larger_than_was_asked_for_but_for_the_smallest(asked, size):
    region = Region(asked)
    assert region.size == size
    region.close()


def test_what_has_no_memory_reads_as_zeros():
    region = Region(4 * GRAIN)
    peer = PeerRegion(os.dup(region.fd), region.size, region.size)
    assert not peer.slice(0, peer.size).any()
    region.slice(5, 3)[:] = 7
    assert peer.slice(4, 5).tolist() == [0, 7, 7, 7, 0]
    region.close()


def test_the_owner_of_a_region_writes_to_it_and_its_peer_cannot():
    region = Region(GRAIN)
    peer = PeerRegion(os.dup(region.fd), region.size, region.size)
    for shared in (peer.slice(0, 10), peer.marks):
        assert not shared.flags.writeable
        with pytest.raises(ValueError, match="WRITEABLE"):
            shared.flags.writeable = True
    region.close()


def test_a_region_is_closed_once():
    region = Region(GRAIN)
    fd = region.fd
    kept = region.slice(0, 10)
    region.close()
    other = os.dup(0)
    assert other == fd
    region.close()
    assert is_open(other)
    os.close(other)
    assert kept.tolist() == [0] * 10


def test_a_region_that_cannot_be_leaves_no_descriptor(monkeypatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(12, "no address space")

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(mmap, "mmap", refuse)
    with pytest.raises(OSError, match="no address space"):
        Region(GRAIN)
    fd = memory()
    with pytest.raises(InvalidArgument, match="cannot be mapped"):
        PeerRegion(fd, GRAIN, GRAIN)
    monkeypatch.undo()
    assert os.listdir("/proc/self/fd") == before


def test_a_region_has_a_slot_for_every_byte_of_its_marks():
    region = Region(GRAIN)
    assert len(region.marks) == PAGE
    assert not np.frombuffer(region.marks, np.uint8).any()
    region.close()

"""The memory itself: a sealed memfd that one process writes to and another one maps to read.

A region is one page of *marks* and then the data, sparse: only what :meth:`Region.back` was asked for takes memory. Its
size is sealed, so that neither side can make the other's mapping longer than the file. It is an odd number of pages,
which a memfd of huge pages cannot have: to touch such a one where it is not backed would be SIGBUS.

The marks are what the owner says about memory that it *borrowed*, one byte for each slot of the lender's: the byte
changes when the slot's loan is over. So nobody ever writes to memory of the other's.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import sys
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from aipod.errors import InvalidArgument

__all__ = ["GRAIN", "PAGE", "SLOTS", "Bytes", "PeerRegion", "Place", "Region"]

Bytes = npt.NDArray[np.uint8]

PAGE = mmap.PAGESIZE
# A page of marks, a byte each.
SLOTS = PAGE
# The data's size is a multiple of this, and so, with the marks, the region's is an odd number of pages.
GRAIN = 16 * PAGE

# Of Linux's memfd.h since 6.3, and not in Python's os: nobody can execute it. Hosts may insist on it.
_MFD_NOEXEC_SEAL = 0x8


class Place(NamedTuple):
    """Where in the lender's region something lies, for one message.

    Attributes:
        offset: Of its first byte in the data.
        nbytes: Its length.
        slot: The number of the loan, of which the borrower tells when it is over. Others have it afterwards.
    """

    offset: int
    nbytes: int
    slot: int


class Region:
    """Memory of this process that one other process may read.

    Arrays and views of it keep the mapping alive, after :meth:`close` too.

    Args:
        max_bytes: The size of the data, rounded down to a multiple of :data:`GRAIN`, and one at least.

    Attributes:
        size: The bytes of data.
        fd: The descriptor to hand over; -1 once closed.
        marks: One byte per slot of what is borrowed from the other.

    Raises:
        OSError: The system has no such memory, no more descriptors, or no address space.
    """

    def __init__(self, max_bytes: int) -> None:
        self.size = max(GRAIN, max_bytes // GRAIN * GRAIN)
        self.fd = _memfd()
        try:
            os.ftruncate(self.fd, PAGE + self.size)
            os.posix_fallocate(self.fd, 0, PAGE)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _seals())
            self._mapping = _map(self.fd, PAGE + self.size, mmap.PROT_READ | mmap.PROT_WRITE)
        except BaseException:
            os.close(self.fd)
            raise
        self.marks = memoryview(self._mapping)[:SLOTS]
        self.address: int = np.frombuffer(self._mapping, np.uint8).ctypes.data + PAGE

    def slice(self, offset: int, nbytes: int) -> Bytes:
        """Give a part of the data that can be written to."""
        return _slice(self._mapping, offset, nbytes)

    def back(self, start: int, end: int) -> None:
        """Put memory behind a part of the data, in whole pages; it is zeros, or what was there.

        Raises:
            OSError: There is not so much memory.
        """
        os.posix_fallocate(self.fd, PAGE + start, end - start)

    def unback(self, start: int, end: int) -> None:
        """Give the memory behind a part of the data back to the system; it reads as zeros, on either side."""
        self._mapping.madvise(mmap.MADV_REMOVE, PAGE + start, end - start)

    def close(self) -> None:
        """Close the descriptor, and leave the mapping to those who still refer to it; again is fine."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
            del self._mapping, self.marks


class PeerRegion:
    """Another process's region, mapped to be read and nothing else.

    Args:
        fd: What the other one handed over; it is closed, whatever happens.
        size: How many bytes of data that is meant to be.
        max_bytes: More than that is refused.

    Attributes:
        size: The bytes of data.
        marks: What the other one says about the slots of ours.

    Raises:
        InvalidArgument: It is no region of that size, or cannot be mapped.
    """

    def __init__(self, fd: int, size: int, max_bytes: int) -> None:
        try:
            _check(fd, size, max_bytes)
            self._mapping = _map(fd, PAGE + size, mmap.PROT_READ)
        except (OSError, ValueError) as error:
            raise InvalidArgument(f"the descriptor that came cannot be mapped ({error}); send a sealed memfd") from None
        finally:
            os.close(fd)
        self.size = size
        self.marks: Bytes = np.frombuffer(self._mapping, np.uint8, SLOTS)

    def slice(self, offset: int, nbytes: int) -> Bytes:
        """Give a read-only part of the data."""
        return _slice(self._mapping, offset, nbytes)


def _check(fd: int, size: int, max_bytes: int) -> None:
    if not 0 < size <= max_bytes or size % GRAIN:
        raise InvalidArgument(
            f"a region of {size} bytes is not mapped; send one of at most {max_bytes}, in multiples of {GRAIN}"
        )
    # Only memory has seals: a file, a socket or a pipe is an OSError.
    if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _seals() != _seals():
        raise InvalidArgument("the memory that came is not sealed against a change of its size; seal it")
    actual = os.fstat(fd).st_size
    if actual != PAGE + size:
        raise InvalidArgument(f"the memory that came has {actual} bytes instead of {PAGE + size}; send its own size")


def _slice(mapping: mmap.mmap, offset: int, nbytes: int) -> Bytes:
    # An array of its own right on the mapping, and not a part of a larger one: numpy lets an array that is derived from
    # others refer to the last array of the chain, and this has to be it for as long as anything derived from it lives.
    return np.frombuffer(mapping, np.uint8, nbytes, PAGE + offset)


def _memfd() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("aipod", flags | _MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create("aipod", flags)


def _seals() -> int:
    # Not a constant of the module, which other systems import too.
    return fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def _map(fd: int, nbytes: int, protection: int) -> mmap.mmap:
    if sys.version_info >= (3, 13):
        # Before, a mapping keeps a descriptor of its own, for what nobody does here.
        return mmap.mmap(fd, nbytes, flags=mmap.MAP_SHARED, prot=protection, trackfd=False)
    return mmap.mmap(fd, nbytes, flags=mmap.MAP_SHARED, prot=protection)

"""Memory for large messages, used again and again: most of what one costs in new memory are the page faults.

A block is *lent* for as long as anything refers to its memory, be it a view, or an array that a model keeps. Then it is
*kept* for the next message of about its size. What is kept is bounded, and goes back to the system when there was no
large message for a while.

Rules of this file:

- What is lent is an array of its own right on the block's mapping: numpy has whatever is derived from it refer to it,
  and to nothing behind it, so it dies when the last of them does.
- Blocks come back in finalizers, which run on any thread and in the middle of anything, of what is done under the lock
  too. So they never wait: they append to ``_returned``, and whoever had the lock looks there afterwards.
- Only while ``_watched`` there is a thread that is going to give back what is kept; what comes back later is not kept.
- Mappings are private: a process that was forked from ours has copies, which it lets go when it is done with them.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
import time
import weakref
from collections import deque

import numpy as np

__all__ = ["Buffers"]

# Smaller ones are malloc's, which uses them again as well, and in less time.
_LEAST_BYTES = 256 * 1024
_MOST_BYTES = 1 << 30
_IDLE_SECONDS = 10.0
# Behind the first of them pages of two megabytes are asked for, which make new memory cheaper; not before, so that a
# peer that announces much and sends little costs little.
_HUGE_PAGE = 2 << 20
# The largest block that glibc learns from: once one of that size was freed, be it the program's or ours, it keeps what
# smaller ones free, up to twice as much.
_LESSON_BYTES = (32 << 20) - 4 * mmap.PAGESIZE
# How many sizes of blocks there are between a power of two and the next, as a power of two itself.
_STEPS = 3


class Buffers:
    """Lends memory. Its methods may be called from any thread.

    Args:
        max_bytes: How much is kept at most, besides what is lent.
        idle_seconds: After so long without :meth:`take` nothing is kept any more.
    """

    def __init__(self, max_bytes: int = _MOST_BYTES, idle_seconds: float = _IDLE_SECONDS) -> None:
        self._max_bytes = max_bytes
        self._idle_seconds = idle_seconds
        self._pid = os.getpid()
        self._lock = threading.Lock()
        # By their size; the sizes in the order in which blocks of them came back.
        self._kept: dict[int, list[mmap.mmap]] = {}
        self._kept_bytes = 0
        self._returned: deque[mmap.mmap] = deque()
        self._taken = 0.0
        self._watched = self._closed = False
        self._gate = threading.Lock()
        self._gate.acquire()

    def __repr__(self) -> str:
        return f"<Buffers, {self._kept_bytes} bytes kept>"

    @property
    def kept_bytes(self) -> int:
        """What waits to be used again."""
        return self._kept_bytes

    def take(self, nbytes: int) -> memoryview | None:
        """Lend so many bytes, which hold anything; None if the system has not so many.

        They can be written to, and are free again once nothing refers to them. New ones take memory only as far as they
        are written to.
        """
        if nbytes < _LEAST_BYTES:
            return np.empty(nbytes, np.uint8).data
        size = _rounded(nbytes)
        block = self._find(size) or _map(size)
        if block is None:
            return None
        memory = np.frombuffer(block, np.uint8, nbytes)
        # Not at the end of the program, when somebody may still look at them.
        weakref.finalize(memory, self._come_back, block).atexit = False
        return memory.data

    def room(self, nbytes: int) -> memoryview | None:
        """As :meth:`take`, for a message that is going to leave; None also for one that is small."""
        return self.take(nbytes) if nbytes >= _LEAST_BYTES else None

    def close(self) -> None:
        """Keep nothing any more; what is lent stays as it is. Waits for nobody: the cycle collector may call it."""
        self._closed = True
        with contextlib.suppress(RuntimeError):
            self._gate.release()

    def _find(self, size: int) -> mmap.mmap | None:
        block = None
        with self._lock:
            self._taken = time.monotonic()
            self._watch()
            self._collect()
            blocks = self._kept.get(size)
            if blocks:
                block = blocks.pop()
                self._kept_bytes -= size
        self._settle()
        return block

    def _come_back(self, block: mmap.mmap) -> None:
        if self._watched and os.getpid() == self._pid:
            self._returned.append(block)
            self._settle()

    def _settle(self) -> None:
        """Take in what has come back; who has the lock does it in our stead."""
        while self._returned and self._lock.acquire(blocking=False):
            try:
                self._collect()
            finally:
                self._lock.release()

    def _collect(self) -> None:
        while self._returned:
            block = self._returned.popleft()
            size = len(block)
            if not self._watched or size > self._max_bytes:
                continue
            self._kept[size] = [*self._kept.pop(size, ()), block]
            self._kept_bytes += size
            while self._kept_bytes > self._max_bytes:
                self._drop_oldest()

    def _drop_oldest(self) -> None:
        size, blocks = next(iter(self._kept.items()))
        if blocks:
            blocks.pop()
            self._kept_bytes -= size
        else:
            del self._kept[size]

    def _watch(self) -> None:
        if not self._watched and not self._closed:
            # If no thread can begin, nothing is kept.
            with contextlib.suppress(RuntimeError):
                threading.Thread(target=self._wait, name="aipod-buffers", daemon=True).start()
                self._watched = True
            # The pieces in which messages travel are gRPC's and Python's own: without this each would be new memory.
            np.empty(_LESSON_BYTES, np.uint8)

    def _wait(self) -> None:
        while True:
            with self._lock:
                pause = self._taken + self._idle_seconds - time.monotonic()
                is_over = pause <= 0 or self._closed
                if is_over:
                    self._watched = False
                    gone, self._kept, self._kept_bytes = self._kept, {}, 0
            self._settle()
            if is_over:
                # Without the lock, since it takes the system a while.
                gone.clear()
                return
            self._gate.acquire(timeout=pause)


def _rounded(nbytes: int) -> int:
    """The size of the block for so many bytes: a little more, so that messages that are nearly alike use the same."""
    step = max(mmap.PAGESIZE, 1 << max(0, nbytes.bit_length() - 1 - _STEPS))
    return -(-nbytes // step) * step


def _map(size: int) -> mmap.mmap | None:
    try:
        block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError):
        return None
    if size > _HUGE_PAGE:
        # Of Linux alone, and not of every Linux.
        with contextlib.suppress(AttributeError, OSError):
            block.madvise(mmap.MADV_HUGEPAGE, _HUGE_PAGE)
    return block

"""How much memory this process holds, and how it handles what was freed."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys

__all__ = ["collect_seldom", "resident_bytes", "reuse_freed_memory", "settle_heap"]

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGEST_MMAP_THRESHOLD = 32 * 1024 * 1024


def resident_bytes() -> int:
    """Resident memory now, in bytes; where the system does not tell, the largest that it ever was."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def settle_heap() -> None:
    """Take what is there now out of the garbage collector's sight: what was imported is never garbage.

    Looking at it again and again, at every eviction too, costs milliseconds in which no thread of Python's runs.
    """
    gc.collect()
    gc.freeze()


def collect_seldom() -> None:
    """Have the garbage collector look less often: for a process that holds many objects for a while, none in cycles.

    A stream's open windows are thousands of messages; with Python's thresholds every few hundred new ones bring a look
    at the young, and those soon one at all of them.
    """
    gc.set_threshold(50_000, 20, 100)


def reuse_freed_memory() -> None:
    """Have this process keep what large messages free, and use it for the next ones.

    glibc gives every block of more than some 100 KiB back at once, and most of the cost of a large array is the page
    faults on the next one. With one arena instead of one a thread, what a thread freed is there for all.

    ``serve`` does it; a program that calls with large arrays all day does well to do it too, before its threads start.
    It is for the whole process, which is why no client does it unasked. Elsewhere than on glibc it does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_M_ARENA_MAX, 1)
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    mallopt(_M_TRIM_THRESHOLD, 8 * _LARGEST_MMAP_THRESHOLD)

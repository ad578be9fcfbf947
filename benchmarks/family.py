"""All processes of one server, whatever it forks, spawns or leaves behind. Linux tells, in ``/proc``."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["VARIABLE", "born", "cpu_seconds", "end", "members", "pss_bytes"]

# A process and whatever it starts have this variable with the same value. Some processes write over what they had in
# their environment; those are found by their parents.
VARIABLE = "BENCHMARK_FAMILY"
_TICKS = os.sysconf("SC_CLK_TCK")
_STATE, _PARENT, _CPU, _BORN = 0, 1, slice(11, 15), 19
_LOOK = 0.02


def members(name: str) -> list[int]:
    """The processes of a family that live now."""
    mark = f"{VARIABLE}={name}".encode()
    parents = dict(_parents())
    found = {pid for pid in parents if mark in _read(pid, "environ").split(b"\0")} - {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


def cpu_seconds(pids: list[int]) -> float:
    """User's and system's of these, and of their children that have ended."""
    return sum(int(ticks) for pid in pids for ticks in _stat(pid)[_CPU]) / _TICKS


def pss_bytes(pids: list[int]) -> int:
    """Their memory; what several share counts once."""
    lines = (line.split() for pid in pids for line in _read(pid, "smaps_rollup").splitlines())
    return sum(int(line[1]) * 1024 for line in lines if line[0] == b"Pss:")


def born(pids: Iterable[int]) -> dict[int, bytes]:
    """When those of them that live were started, which tells them from later ones of the same numbers."""
    stats = {pid: _stat(pid) for pid in pids}
    return {pid: stat[_BORN] for pid, stat in stats.items() if stat and stat[_STATE] != b"Z"}


def end(name: str, grace: float, before: dict[int, bytes]) -> None:
    """Wait for all of a family to be gone; those that are not after ``grace`` seconds are killed.

    Args:
        before: Those that were born before the end began: some are found by parents that may be gone by now.
    """
    until = time.monotonic() + grace
    while left := {*members(name), *(pid for pid, when in born(before).items() if when == before[pid])}:
        if time.monotonic() > until:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(_LOOK)


def _parents() -> Iterator[tuple[int, int]]:
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (stat := _stat(int(entry))) and stat[_STATE] != b"Z":
            yield int(entry), int(stat[_PARENT])


def _stat(pid: int) -> list[bytes]:
    """What follows the name, which may contain anything; nothing of a process that has ended."""
    return _read(pid, "stat").rpartition(b")")[2].split()


def _read(pid: int, file: str) -> bytes:
    with suppress(OSError):
        return (Path("/proc") / str(pid) / file).read_bytes()
    return b""

"""A whole server and a whole client, a process each, which share memory while one or the other is killed."""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from served import Served
from waiting import BOUND, eventually

from aipod.process import Child
from aipod.shm.link import PREFIX

pytestmark = pytest.mark.chaos

ECHO = Path(__file__).with_name("echo.py")
SHARER = Path(__file__).with_name("sharer.py")
KILLS = 100
# Enough for one client, so that what the dead did not give back is missed.
SHARED_BYTES = 64 * 2**20


class Sharer:
    """The program of that name."""

    def __init__(self, address: str, dice: random.Random) -> None:
        command = [sys.executable, "-W", "error", str(SHARER), address, str(dice.randrange(2**32))]
        self._child = Child.start(command)
        self._child.lifeline.settimeout(6 * BOUND)

    @property
    def pid(self) -> int:
        return self._child.pid

    def answered(self, count: int) -> None:
        """Returns when so many answers more were right."""
        for _ in range(count):
            assert self._hear() == b"."

    def rest(self) -> None:
        """Have it make no calls; returns when it shares memory and holds nothing of it."""
        self._child.lifeline.sendall(b"r")
        while self._hear() != b"!":
            pass

    def go(self) -> None:
        self._child.lifeline.sendall(b"g")

    def kill(self) -> None:
        self._child.kill()
        assert self._child.ended.result(BOUND).signal == "SIGKILL"
        self._child.close()

    def end(self) -> int:
        """Have it end in peace; its exit code."""
        self._child.lifeline.shutdown(socket.SHUT_WR)
        code = self._child.ended.result(BOUND).code
        self._child.close()
        return code

    def _hear(self) -> bytes:
        said = self._child.lifeline.recv(1)
        assert said, f"the client gave up: {self._child.ended.result(BOUND)}"
        return said


@pytest.fixture
def start_sharer(dice: random.Random) -> Iterator[Callable[[Served], Sharer]]:
    sharers: list[Sharer] = []

    def start(server: Served) -> Sharer:
        sharers.append(Sharer(server.address, dice))
        return sharers[-1]

    yield start
    for sharer in sharers:
        sharer._child.end(0.0)


def test_servers_and_clients_that_share_memory_are_killed_a_hundred_times(
    serve, start_sharer, dice, say, tmp_path, monkeypatch
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    files = _shared_files()
    server = serve(ECHO, shared_memory_bytes=SHARED_BYTES)
    sharer = start_sharer(server)
    sharer.rest()
    # At rest every server, and every client, has the same: those that saw the others die, too.
    of_server, of_sharer = _held(server.pid), _held(sharer.pid)
    sharer.go()
    killed: Counter[str] = Counter()
    for _ in range(KILLS):
        # Now and then while the two are only about to share.
        sharer.answered(dice.choice((0, dice.randrange(60))))
        for _ in range(dice.randrange(3000)):
            pass
        if dice.random() < 0.5:
            killed["servers"] += 1
            door = _door(server.pid)
            assert server.stop(signal.SIGKILL) == -signal.SIGKILL
            assert door not in _names()
            server.start()
        else:
            killed["clients"] += 1
            sharer.kill()
            eventually(lambda: not _memory(server.pid))
            sharer = start_sharer(server)
        if dice.random() < 0.7:
            sharer.rest()
            eventually(lambda: _held(server.pid) == of_server)
            eventually(lambda sharer=sharer: _held(sharer.pid) == of_sharer)
            sharer.go()
    sharer.answered(1)
    assert sharer.end() == 0
    eventually(lambda: not _memory(server.pid))
    door = _door(server.pid)
    assert server.stop(signal.SIGTERM) == 0
    assert door not in _names()
    assert not server.faults()
    assert not list(scratch.iterdir())
    assert _shared_files() <= files
    say(f"{killed['servers']} servers and {killed['clients']} clients killed")


def _held(pid: int) -> Counter[str]:
    """Count the descriptors of a process by what they are of, and its mappings of shared memory."""
    found = Counter(target.partition(":")[0] for target in _targets(pid))
    maps = Path(f"/proc/{pid}/maps").read_text()
    assert "/dev/shm" not in maps
    found["mappings"] = maps.count("memfd:")
    return found


def _memory(pid: int) -> int:
    """Count the descriptors and the mappings of shared memory."""
    held = _held(pid)
    return held["/memfd"] + held["mappings"]


def _door(pid: int) -> str:
    """The name under which a server waits for those who share memory with it."""
    inodes = {f"socket:[{inode}]": name for name, inode in _names().items()}
    (name,) = {inodes[target] for target in _targets(pid) if target in inodes}
    return name


def _targets(pid: int) -> Iterator[str]:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(link)
        except FileNotFoundError:  # it was just closed
            continue
        assert not target.startswith("/dev/shm"), target
        yield target


def _names() -> dict[str, str]:
    """The inodes of listening sockets of ours on this machine, by name."""
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    # Those that accepted a client have its name, too, and another state.
    return {row[7]: row[6] for row in rows if len(row) > 7 and row[7].startswith(f"@{PREFIX}") and row[5] == "01"}


def _shared_files() -> set[Path]:
    return set(Path("/dev/shm").glob("*aipod*"))

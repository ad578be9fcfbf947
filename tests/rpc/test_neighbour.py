"""The client's end of shared memory, found out about by many threads at once, or by none that could begin."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from aipod.rpc.trunk.neighbour import Neighbour
from aipod.rpc.v1 import trunk_pb2 as pb
from aipod.shm import Listener, Ticket

MIB = 1 << 20
THREADS = 8
TIMES = 100


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener(max_bytes=MIB, total_bytes=MIB) as listener:
        yield listener


@pytest.fixture
def _switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def invited(ticket: Ticket) -> Neighbour:
    name, token, size = ticket.invitation
    return Neighbour(pb.SharedMemory(name=name, token=token, bytes=size), MIB)


@pytest.mark.usefixtures("_switching_often")
def test_threads_that_ask_for_memory_at_the_same_moment_all_get_it(listener: Listener) -> None:
    together = threading.Barrier(THREADS)

    def ask(neighbour: Neighbour) -> object:
        together.wait()
        return neighbour.wait()

    with ThreadPoolExecutor(THREADS) as threads:
        for _ in range(TIMES):
            with listener.ticket() as ticket:
                neighbour = invited(ticket)
                links = set(threads.map(ask, [neighbour] * THREADS))
                assert len(links) == 1 and None not in links
                neighbour.close()


def test_where_no_thread_can_begin_nothing_is_shared_for_now(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with listener.ticket() as ticket:
        neighbour = invited(ticket)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            assert neighbour.link() is None
            assert neighbour.wait() is None
        assert neighbour.wait() is not None
        neighbour.close()

"""Memory for large messages that is used again: never while anybody can see it, and never more than was allowed."""

from __future__ import annotations

import gc
import mmap
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import pytest
from raw_trunk import RawTrunk, call
from waiting import BOUND, eventually

from aipod.codec import encode_call
from aipod.errors import Overloaded
from aipod.memory import resident_bytes
from aipod.model import AIModelBase
from aipod.rpc.client import AIClient
from aipod.rpc.server import Server
from aipod.rpc.trunk.buffers import Buffers
from aipod.rpc.v1 import trunk_pb2 as pb

MIB = 1 << 20


@pytest.fixture
def buffers() -> Iterator[Buffers]:
    buffers = Buffers(max_bytes=8 * MIB)
    yield buffers
    buffers.close()


def take(buffers: Buffers, nbytes: int) -> memoryview:
    memory = buffers.take(nbytes)
    assert memory is not None and len(memory) == nbytes
    return memory


def address(memory: memoryview) -> int:
    return int(np.frombuffer(memory, np.uint8).ctypes.data)


def scattered(memory: memoryview) -> list[Callable[[memoryview], Any]]:
    """Ways to hold on to a part of it."""
    return [
        lambda view: view[5:9],
        lambda view: view.toreadonly().cast("B"),
        lambda view: np.frombuffer(view, np.uint8)[7:],
        lambda view: np.ndarray((3, 4), np.float32, view, 64).T[1:],
        lambda view: np.ndarray((8,), np.int16, view[64:]).view(np.int64).reshape(2, 1),
    ]


class TestLending:
    @pytest.mark.parametrize("way", range(5))
    def test_memory_is_lent_again_when_the_last_view_of_it_has_died_and_not_before(self, buffers, way):
        memory = take(buffers, MIB)
        place = address(memory)
        held = scattered(memory)[way](memory)
        del memory
        gc.collect()
        other = take(buffers, MIB)
        assert address(other) != place and buffers.kept_bytes == 0
        del held
        assert address(take(buffers, MIB)) == place

    def test_messages_that_are_nearly_alike_use_the_same_memory(self, buffers):
        place = address(take(buffers, MIB + 100))
        assert address(take(buffers, MIB + 30_000)) == place
        # And those that are not, not: a small one would keep a large one from others.
        assert address(take(buffers, 4 * MIB)) != place

    def test_it_begins_at_a_page(self, buffers):
        assert address(take(buffers, 300_001)) % mmap.PAGESIZE == 0

    def test_small_ones_are_left_to_malloc(self, buffers):
        held = take(buffers, 100_000)
        held[:] = bytes(100_000)
        del held
        take(buffers, MIB)
        eventually(lambda: buffers.kept_bytes == MIB)
        assert buffers.room(100_000) is None and len(buffers.room(300_000)) == 300_000

    def test_what_no_system_has_is_none(self, buffers):
        assert buffers.take(1 << 62) is None
        assert buffers.take(1 << 80) is None

    def test_what_is_never_written_to_takes_no_memory(self, buffers):
        before = resident_bytes()
        memory = [take(buffers, 256 * MIB) for _ in range(4)]
        assert resident_bytes() - before < 64 * MIB
        del memory

    def test_no_memory_has_two_owners_among_many_threads(self, buffers, background):
        def work(number: int) -> None:
            dice = np.random.default_rng(number)
            for _ in range(300):
                view = np.frombuffer(take(buffers, int(dice.integers(1, 3)) * 300_000), np.uint8)
                view[::999] = number
                held = view[::999]
                del view
                assert (held == number).all()

        for one in [background(work, number) for number in range(1, 9)]:
            one.result(BOUND)


class TestKeeping:
    def test_no_more_is_kept_than_was_allowed(self, buffers):
        memory = [take(buffers, MIB) for _ in range(20)]
        assert buffers.kept_bytes == 0
        del memory
        eventually(lambda: buffers.kept_bytes >= 7 * MIB)
        assert buffers.kept_bytes <= 8 * MIB
        take(buffers, 9 * MIB)
        assert buffers.kept_bytes <= 8 * MIB

    def test_what_was_used_last_is_kept_rather_than_what_was_not(self, buffers):
        old = [take(buffers, MIB) for _ in range(8)]
        new = [take(buffers, 2 * MIB) for _ in range(3)]
        del old
        places = {address(one) for one in new}
        del new
        assert {address(one) for one in [take(buffers, 2 * MIB) for _ in range(3)]} == places

    def test_what_nobody_needs_for_a_while_goes_back_to_the_system(self):
        buffers = Buffers(idle_seconds=0.05)
        before = resident_bytes()
        memory, late = (take(buffers, 64 * MIB) for _ in range(2))
        for view in (memory, late):
            np.frombuffer(view, np.uint8)[:] = 1
        assert resident_bytes() - before > 96 * MIB
        del memory, view
        eventually(lambda: buffers.kept_bytes == 0)
        eventually(lambda: not any(thread.name == "aipod-buffers" for thread in threading.enumerate()))
        # There is nobody any more who would give this back later.
        del late
        assert buffers.kept_bytes == 0
        assert resident_bytes() - before < 32 * MIB

    def test_it_begins_again_after_a_rest(self):
        buffers = Buffers(idle_seconds=0.05)
        for _ in range(3):
            place = address(take(buffers, MIB))
            assert address(take(buffers, MIB)) == place
            eventually(lambda: buffers.kept_bytes == 0)
        buffers.close()

    def test_closed_it_keeps_nothing_and_what_is_lent_stays(self, buffers):
        memory, other = take(buffers, MIB), take(buffers, MIB)
        memory[:] = bytes([7]) * MIB
        del other
        buffers.close()
        buffers.close()
        eventually(lambda: buffers.kept_bytes == 0)
        assert bytes(memory[-3:]) == b"\7\7\7"
        del memory
        take(buffers, MIB)
        assert buffers.kept_bytes == 0

    def test_what_comes_back_while_somebody_is_at_it_is_taken_in_by_him(self, buffers):
        memory = take(buffers, MIB)
        with buffers._lock:
            # As when the cycle collector runs in the middle of take().
            del memory
        take(buffers, 2 * MIB)
        eventually(lambda: buffers.kept_bytes >= 3 * MIB)


FORKS = """
import os
from aipod.rpc.trunk.buffers import Buffers

buffers = Buffers()
kept, dropped = buffers.take(300_000), buffers.take(300_000)
kept[:3] = dropped[:3] = b"old"
child = os.fork()
if not child:
    kept[:3] = b"new"
    del dropped
    os._exit(buffers.kept_bytes + len(buffers._returned) > 0)
assert os.waitpid(child, 0)[1] == 0
assert bytes(kept[:3]) == bytes(dropped[:3]) == b"old"
"""


def test_a_child_after_a_fork_has_a_copy_and_gives_nothing_back_of_ours() -> None:
    # In a process of its own: a test runner full of threads is no place to fork.
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKS], check=True, timeout=BOUND)


class Keeper(AIModelBase):
    """Returns what it gets, and keeps it too."""

    kept: ClassVar[list[Any]] = []

    def predict(self, x: Any, keep: bool = False) -> Any:
        if keep:
            type(self).kept.append(x)
        return x


class TestCalls:
    """Through the socket alone."""

    @pytest.fixture
    def server(self, server_of: Callable[..., Server]) -> Iterator[Server]:
        Keeper.kept = []
        yield server_of(Keeper, shared_memory_bytes=0)
        Keeper.kept = []

    @pytest.fixture
    def client(self, server: Server, client_of: Callable[..., AIClient]) -> AIClient:
        client = client_of(server)
        assert client.connect(BOUND)
        return client

    def test_what_a_model_keeps_stays_what_it_was_and_so_does_a_kept_answer(self, client):
        arrays = [np.full(MIB, number, np.uint8) for number in range(6)]
        answers = [client.predict(x=array, keep=True) for array in arrays]
        for _ in range(10):
            client.predict(x=np.full(MIB, 99, np.uint8))
        for array, answer, kept in zip(arrays, answers, Keeper.kept, strict=True):
            assert (answer == array).all() and (kept == array).all()

    def test_a_steady_load_takes_no_new_memory(self, client, server, monkeypatch):
        array = np.ones(5 * MIB, np.uint8)
        client.predict(x=array)
        eventually(lambda: server._trunks.buffers.kept_bytes >= 10 * MIB)
        monkeypatch.setattr("aipod.rpc.trunk.buffers._map", lambda size: None)
        for _ in range(5):
            assert (client.predict(x=array) == array).all()
            eventually(lambda: server._trunks.buffers.kept_bytes >= 10 * MIB)

    def test_arrays_lie_well_on_both_sides(self, client):
        answer = client.predict(x=np.zeros(MIB), keep=True)
        assert answer.ctypes.data % 64 == Keeper.kept[0].ctypes.data % 64 == 0

    def test_a_request_for_which_the_server_has_no_memory_is_refused_alone(self, server, monkeypatch):
        monkeypatch.setattr(server._trunks.buffers, "take", lambda nbytes: None)
        with RawTrunk(server.address) as trunk:
            trunk.send(call(1, size=100_000))
            status, sentence = trunk.answer(1)
            assert (status, sentence) == (
                "RESOURCE_EXHAUSTED",
                "the server has no memory for a request of 100000 bytes",
            )
            # What of it was on its way already is passed over.
            trunk.send(pb.ClientFrame(chunk=pb.Chunk(number=1, data=bytes(100_000))))
            trunk.send(call(2, encode_call("v", {"x": 1})))
            assert trunk.answer(2).status == "OK"

    def test_an_answer_for_which_the_client_has_no_memory_is_an_error_of_that_call(self, client, monkeypatch):
        array = np.ones(MIB, np.uint8)
        monkeypatch.setattr(client._connections[0]._trunks.buffers, "take", lambda nbytes: None)
        with pytest.raises(Overloaded, match=r"no memory here for a result of \d+ bytes; ask for less"):
            client.predict(x=array)
        monkeypatch.undo()
        assert (client.predict(x=array) == array).all()

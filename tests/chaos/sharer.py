"""A client that has arrays sent back to it through shared memory: ``python sharer.py ADDRESS SEED``.

Its input is a socket, on which it says ``.`` after each right answer. Any byte that comes has it rest, which it
confirms with a ``!``; the next one has it go on. It ends with the socket.
"""

from __future__ import annotations

import gc
import random
import socket
import sys
import threading
from typing import Any

import numpy as np
from traffic import Traffic

from aipod.rpc.client import AIClient

# As many tries as a restart may take on a busy machine.
PATIENT = 60
THREADS = 3
SMALLEST, LARGEST = 2**13, 2**17
KEPT = 8


class Sharer:
    """Asks for the same arrays back, keeps some of the answers, and sees that they stay as they were."""

    def __init__(self, client: AIClient, sock: socket.socket) -> None:
        self._client = client.options(retry=PATIENT)
        self._sock = sock
        self._lock = threading.Lock()
        self._kept: list[tuple[Any, Any]] = []

    def ask(self, dice: random.Random) -> str:
        count, first = dice.randrange(SMALLEST, LARGEST), dice.randrange(2**40)
        array = self._client.empty(count, np.int64) if dice.random() < 0.3 else np.empty(count, np.int64)
        array[:] = np.arange(first, first + count)
        answer = self._client.predict(x=array)["x"]
        _check(answer, range(first, first + count))
        if dice.random() < 0.2:
            self._keep(answer, range(first, first + count))
        self._sock.sendall(b".")
        return "right"

    def rest(self) -> None:
        """Be connected in each way, share memory, and hold nothing of it."""
        for answer, numbers in self._kept:
            _check(answer, numbers)
        self._kept.clear()
        assert self._client.admin.info().wire_version == 1
        assert self._client.connect(60.0)
        trunks = self._client._connections[0]._trunks
        assert trunks is not None
        link = trunks._up[0].neighbour.wait()
        assert link is not None, "nothing is shared"
        answer = self._client.predict(x=np.arange(LARGEST))["x"]
        _check(answer, range(LARGEST))
        assert len(link.borrowed._open) == 1, "the answer did not come through shared memory"
        del answer
        gc.collect()

    def _keep(self, answer: Any, numbers: range) -> None:
        with self._lock:
            self._kept.append((answer, numbers))
            oldest = self._kept.pop(0) if len(self._kept) > KEPT else None
        if oldest is not None:
            _check(*oldest)


def _check(answer: Any, numbers: range) -> None:
    assert np.array_equal(answer, np.arange(numbers.start, numbers.stop)), "another answer than was asked for"


def main(address: str, seed: int) -> None:
    dice = random.Random(seed)
    with socket.socket(fileno=0) as sock, AIClient(address, "v", timeout=120.0) as client:
        sharer = Sharer(client, sock)
        while True:
            with Traffic(dice) as traffic:
                traffic.add(THREADS, sharer.ask)
                is_over = not sock.recv(1)
            if is_over:
                break
            assert not traffic.surprises, traffic.surprises[0]
            sharer.rest()
            sock.sendall(b"!")
            if not sock.recv(1):
                break


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

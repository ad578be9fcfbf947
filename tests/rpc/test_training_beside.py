"""A version answers while it is trained: every call, from the old revision or from the new one, and nothing else."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from waiting import BOUND, eventually

from aipod.rpc.client import AIClient

COUNTED = """
    from aipod.model import AIModelBase
    from aipod.rpc.server import serve

    class Counted(AIModelBase):
        def train(self, number, seconds=0.0):
            import time
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                sum(range(1000))
            for part in "ab":
                (self.model_dir() / part).write_text(str(number))
            return number

        def load(self):
            self.parts = [(self.model_dir() / part).read_text() for part in "ab"]

        def predict(self):
            return self.parts

    serve(Counted)
"""


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_no_call_fails_while_a_version_is_trained_swapped_and_rolled_back(process_of, isolation):
    server = process_of(COUNTED, AIPOD_ISOLATION=isolation)
    stop = threading.Event()

    def ask(client: AIClient) -> set[str]:
        seen = set()
        while not stop.is_set():
            first, second = client.predict()
            assert first == second
            seen.add(first)
        return seen

    with AIClient(server.address) as client, ThreadPoolExecutor(4) as pool:
        assert client.train(number=1) == 1
        callers = [pool.submit(ask, client) for _ in range(4)]
        for number in (2, 3):
            assert client.train(number=number, seconds=0.3) == number
            # What a train has returned from is served.
            assert client.predict() == [str(number)] * 2
        assert client.admin.rollback("default", 1) == 1
        eventually(lambda: client.predict() == ["1", "1"])
        stop.set()
        assert set().union(*(caller.result(BOUND) for caller in callers)) == {"1", "2", "3"}

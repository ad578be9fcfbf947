"""Messages above two gigabytes, which neither gRPC nor protobuf carries whole."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from heavy import pattern, samples
from waiting import eventually

from aipod.rpc.client import AIClient, AsyncAIClient

pytestmark = pytest.mark.chaos

HEAVY = Path(__file__).with_name("heavy.py")
GIB = 1 << 30
SIZE = 2 * GIB + 12_345
# One side's array, its message, and the message on the other side.
NEEDED = 4 * SIZE
LIMIT = 8 * GIB


@pytest.fixture(autouse=True)
def _room() -> None:
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    if free < NEEDED:
        pytest.skip(f"it takes {NEEDED >> 30} GiB of free memory, and {free >> 30} are there")


@pytest.mark.parametrize("shared", [0, 3 * GIB], ids=["in chunks", "through shared memory"])
def test_an_array_above_two_gigabytes_goes_there_and_comes_back(serve, say, shared):
    server = serve(HEAVY, max_message_bytes=LIMIT, max_queue_bytes=LIMIT, shared_memory_bytes=shared)
    with AIClient(server.address, "v", timeout=300.0, max_message_bytes=LIMIT) as client:
        # Both are there before the first large one.
        assert client.connect() and (client.empty(1).base is not None) == bool(shared)
        array = pattern(SIZE)
        assert client.predict(x=array) == samples(array)
        del array
        array = client.predict(size=SIZE)
        assert array.nbytes == SIZE
        assert samples(array) == samples(pattern(SIZE))
        (trunk,) = client._connections[0]._trunks._up
        link = trunk.neighbour.link()
        assert (link is not None and link.arena.statistics()["backed_bytes"] >= SIZE) == bool(shared)
    say(f"at most {server.peak_bytes() >> 20} MiB with the server")
    eventually(lambda: server.rss_bytes() < GIB)
    assert server.faults() == []


def test_the_first_call_of_a_client_may_be_that_large(serve):
    server = serve(HEAVY, max_message_bytes=LIMIT, max_queue_bytes=LIMIT)
    array = np.zeros(SIZE, np.uint8)

    async def main() -> None:
        async with AsyncAIClient(server.address, "v", timeout=300.0) as client:
            assert (await client.predict(x=array))[-1] == 0

    asyncio.run(main())
    with AIClient(server.address, "v", timeout=300.0) as client:
        assert client.predict(x=array)[-1] == 0

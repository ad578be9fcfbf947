"""Trunks under a server that dies over and over, and a thousand of them that nobody uses."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from served import PATIENT
from traffic import Traffic
from waiting import eventually

from aipod.rpc.client import AIClient, AsyncAIClient

pytestmark = pytest.mark.chaos

ECHO = Path(__file__).with_name("echo.py")
IDLERS = Path(__file__).with_name("idlers.py")
KILLS = 100
CALLERS = 8
COROUTINES = 64
PACE = 0.005
# Most are small; some go in chunks.
SIZES = (0, 10, 1000, 60_000, 70_000, 300_000, 2_000_000)
WEIGHTS = (20, 20, 20, 5, 5, 3, 1)

FLEETS, FLEET = 4, 250
# What a stream that does nothing may cost the server.
MOST_BYTES = 64 * 1024
CALLS = 2000


def something(dice: random.Random) -> dict[str, Any]:
    return {"x": dice.random(), "data": dice.randbytes(dice.choices(SIZES, WEIGHTS)[0])}


def test_a_server_that_is_killed_a_hundred_times_costs_no_predict(serve, dice, say):
    server = serve(ECHO)
    trunks: set[object] = set()
    with server.client(timeout=120.0) as client:
        assert client.predict(x=1) == {"x": 1}

        def ask(dice: random.Random) -> str:
            kwargs = something(dice)
            assert client.predict(**kwargs) == kwargs
            trunks.update(client._connections[0]._trunks._up)
            return "predicts of threads"

        def crowd(dice: random.Random) -> str:
            # A client of its own each time, for clients come and go, too.
            async def main() -> None:
                async with AsyncAIClient(server.address, "v", timeout=120.0) as crowded:
                    patient = crowded.options(retry=PATIENT)
                    await asyncio.gather(*(work(patient) for _ in range(COROUTINES)))

            async def work(patient: AsyncAIClient) -> None:
                for _ in range(10):
                    kwargs = something(dice)
                    assert await patient.predict(**kwargs) == kwargs

            asyncio.run(main())
            return f"crowds of {COROUTINES} coroutines"

        pause = threading.Event()
        with Traffic(dice) as traffic:
            traffic.add(CALLERS, ask, PACE)
            traffic.add(1, crowd, PACE)
            for _ in range(KILLS):
                pause.wait(dice.uniform(0.05, 1.5))
                assert server.stop(signal.SIGKILL) == -signal.SIGKILL
                server.start()
        # While it restarts calls go alone, and a stream follows when there is somebody to open it to.
        say(f"{traffic}, {len(trunks)} trunks")
        assert not traffic.surprises, traffic.surprises[0]
        assert min(traffic.counts.values()) > 0
        assert len(trunks) > KILLS / 10
        assert client.predict(x=2) == {"x": 2}
    assert server.faults() == []
    eventually(lambda: not any(thread.name == "aipod-trunk" for thread in threading.enumerate()))


def test_a_thousand_idle_trunks_hurt_no_busy_one(serve, say):
    server = serve(ECHO)
    with AIClient(server.address, "v") as busy:
        assert busy.connect()
        for number in range(CALLS):
            assert busy.predict(x=number) == {"x": number}
        before, threads = server.rss_bytes(), server.threads()
        fleets = [_fleet(server.address) for _ in range(FLEETS)]
        try:
            for fleet in fleets:
                assert fleet.stdout.readline() == "connected\n"
            each = (server.rss_bytes() - before) / (FLEETS * FLEET)
            say(f"{each / 1024:.1f} KiB of the server's memory for each")
            assert each <= MOST_BYTES
            # Half-open streams hold no thread.
            assert server.threads() <= threads + 2
            for number in range(CALLS):
                assert busy.predict(x=number) == {"x": number}
            # Half of them end without a word, the others as they should.
            for number, fleet in enumerate(fleets):
                if number % 2:
                    fleet.kill()
                    fleet.wait()
                else:
                    output, _ = fleet.communicate(timeout=120)
                    assert (output, fleet.returncode) == ("done\n", 0)
        finally:
            for fleet in fleets:
                fleet.kill()
                fleet.communicate()
        for number in range(CALLS):
            assert busy.predict(x=number) == {"x": number}
    assert server.faults() == []


def _fleet(address: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(IDLERS), address, str(FLEET)]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, **pipes)

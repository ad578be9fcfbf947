"""Hundreds of thousands of damaged requests at a real server, many at a time."""

from __future__ import annotations

import signal
from pathlib import Path

import grpc
import pytest
from mutations import VERSION, Mutations
from volley import Volley

pytestmark = pytest.mark.chaos

REQUESTS = 200_000
MOST_GROWTH_BYTES = 128 * 2**20

ECHO = Path(__file__).with_name("echo.py")


def test_no_request_hurts_a_server(serve, dice, say, tmp_path):
    server = serve(ECHO, strict_versions=True, log_level="ERROR", model_pool_size=4)
    mutations, before = Mutations(dice), {}
    with server.client(VERSION) as client, grpc.insecure_channel(server.address) as channel:
        client.initialize()
        volley = Volley(channel)
        for sent in range(REQUESTS):
            if sent == REQUESTS // 10:
                before = {"rss": server.rss_bytes(), "descriptors": server.descriptors()}
            volley.send(*mutations.request())
        volley.wait()
        grown = server.peak_bytes() - before["rss"]
        say(f"{dict(volley.statuses)}, grew by {grown / 2**20:.1f} MiB at most")
        assert not volley.faults, "\n".join(volley.faults)
        assert server.alive
        assert grown <= MOST_GROWTH_BYTES
        assert server.descriptors() <= before["descriptors"] + 20
        assert client.predict(x=1) == {"x": 1}
    assert server.stop(signal.SIGTERM) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "log-0"]

"""Strangers who open connections and streams and leave them so."""

from __future__ import annotations

import random
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from http2 import Intruder
from served import Served
from traffic import Traffic
from waiting import eventually

from aipod.rpc.arguments import DEFAULT_RETRY
from aipod.rpc.client import AIClient
from aipod.rpc.methods import LEGACY_METHODS, MODEL_METHODS

pytestmark = pytest.mark.chaos

INTRUDERS = 10
STREAMS_EACH = 100
IDLE = 300
RESETS = 20_000
CALLS = 500
MOST_GROWTH_BYTES = 96 * 2**20


def caller(client: AIClient, retry: int = 0) -> Callable[[random.Random], str]:
    patient = client.options(retry=retry, timeout=10.0)

    def ask(dice: random.Random) -> str:
        x = dice.random()
        assert patient.predict(x=x)["x"] == x
        return "predicts"

    return ask


def connect(server: Served) -> socket.socket:
    host, _, port = server.address.rpartition(":")
    return socket.create_connection((host, int(port)))


def test_half_open_streams_and_idle_connections_harm_nobody(serve, dice, say):
    server = serve()
    with server.client() as client, ExitStack() as open_ones:
        client.initialize(number=1)
        threads, descriptors, rss = server.threads(), server.descriptors(), server.rss_bytes()
        for _ in range(IDLE):
            open_ones.enter_context(connect(server))
        for number in range(INTRUDERS):
            intruder = open_ones.enter_context(Intruder(server.address))
            methods = MODEL_METHODS if number % 2 else LEGACY_METHODS
            intruder.open_streams(list(methods.values())[number % 4], STREAMS_EACH)
        eventually(lambda: server.descriptors() >= descriptors + IDLE + INTRUDERS)
        with Traffic(dice) as traffic:
            traffic.add(4, caller(client))
            with server.client() as newcomer:
                traffic.add(4, caller(newcomer))
                eventually(lambda: traffic.counts.total() > CALLS)
                traffic.stop()
        say(f"{traffic} beside {INTRUDERS * STREAMS_EACH} half-open streams and {IDLE} idle connections")
        assert not traffic.surprises, "\n".join(traffic.surprises)
        # Its workers start with the first calls.
        assert server.threads() <= threads + 12
        assert server.peak_bytes() - rss <= MOST_GROWTH_BYTES
    eventually(lambda: server.descriptors() <= descriptors + 5)
    assert server.stop(signal.SIGTERM) == 0
    assert not server.faults()


def test_calls_that_are_reset_as_soon_as_they_are_begun_harm_nobody(serve, dice, say):
    server = serve()
    with server.client() as client:
        client.initialize(number=1)
        rss = server.rss_bytes()
        with Intruder(server.address) as intruder, Traffic(dice) as traffic:
            # gRPC sheds load by itself, whosever it is: with more than a thousand calls that no handler has yet, it
            # cancels some of them.
            traffic.add(4, caller(client, retry=DEFAULT_RETRY))
            for _ in range(RESETS // 1000):
                intruder.open_streams(MODEL_METHODS["predict"], 1000, reset=True)
            eventually(lambda: traffic.counts.total() > CALLS)
            traffic.stop()
            say(f"{traffic} beside {RESETS} resets, grew by {(server.peak_bytes() - rss) / 2**20:.1f} MiB at most")
            assert not traffic.surprises, "\n".join(traffic.surprises)
        assert server.peak_bytes() - rss <= MOST_GROWTH_BYTES
    assert server.stop(signal.SIGTERM) == 0
    assert not server.faults()

"""Minutes of everything at once: nothing grows, nothing is miscounted, nothing is left."""

from __future__ import annotations

import os
import random
import signal
import threading
from statistics import median

import grpc
import numpy
import pytest
from served import Served, wounds
from traffic import Traffic
from waiting import eventually

from aipod.codec import encode_call
from aipod.errors import AipodError, DeadlineExceeded, ModelError, Overloaded
from aipod.rpc.methods import MODEL_METHODS

pytestmark = pytest.mark.chaos

SECONDS = 180
# By then every kind of traffic was there, and malloc has what it keeps.
WARM_UP_SECONDS = 60
VERSIONS = ("a", "b", "c")
# What a server may be larger by at the end than after the warm-up; the requests of a moment weigh about half of it.
MOST_GROWTH_BYTES = 48 * 2**20
MOST_MORE = 4


class Mixture:
    """What the threads do, each against one server with a pool of one."""

    def __init__(self, server: Served) -> None:
        self._clients = {version: server.client(version) for version in VERSIONS}
        self._array = numpy.random.default_rng(0).standard_normal(2**17)
        self._number = 1
        for client in self._clients.values():
            client.initialize(number=1)

    def tiny(self, dice: random.Random) -> str:
        x = dice.random()
        assert self._clients[dice.choice(VERSIONS)].predict(x=x)["x"] == x
        return "tiny"

    def large(self, dice: random.Random) -> str:
        answer = self._clients[dice.choice(VERSIONS)].predict(x=self._array)
        assert numpy.array_equal(answer["x"], self._array)
        return "large"

    def failing(self, dice: random.Random) -> str:
        with pytest.raises(ModelError, match="ValueError: as it was told"):
            self._clients[dice.choice(VERSIONS)].predict(fail=True)
        return "failing"

    def late(self, dice: random.Random) -> str:
        # Far apart: a machine that stands still for a moment may see the answer before the deadline.
        with pytest.raises((DeadlineExceeded, Overloaded)):
            self._clients[dice.choice(VERSIONS)].options(timeout=dice.uniform(0.001, 0.04)).predict(seconds=0.4)
        return "late"

    def training(self, dice: random.Random) -> str:
        self._number += 1
        client = self._clients[dice.choice(VERSIONS)]
        client.train(number=self._number)
        assert client.log()
        return "training"

    def unloading(self, dice: random.Random) -> str:
        self._clients["a"].admin.unload(dice.choice(VERSIONS))
        return "unloading"

    def close(self) -> None:
        for client in self._clients.values():
            client.close()


class Cancels:
    """A caller that goes away, at once or a little later."""

    def __init__(self, server: Served) -> None:
        self._channel = grpc.insecure_channel(server.address)
        self._send = self._channel.unary_unary(MODEL_METHODS["predict"])

    def __call__(self, dice: random.Random) -> str:
        call = self._send.future(encode_call(dice.choice(VERSIONS), {"seconds": 0.02, "x": bytes(100_000)}), timeout=60)
        done = threading.Event()
        call.add_done_callback(lambda _: done.set())
        done.wait(dice.choice((0.0, 0.005, 0.05)))
        call.cancel()
        return "cancelled"

    def close(self) -> None:
        self._channel.close()


class Measures:
    """What the server weighs, second by second."""

    def __init__(self, server: Served) -> None:
        self._server = server
        self.rss: list[int] = []
        self.threads: list[int] = []
        self.descriptors: list[int] = []
        self.here: list[int] = []

    def take(self) -> None:
        self.rss.append(self._server.rss_bytes())
        self.threads.append(self._server.threads())
        self.descriptors.append(self._server.descriptors())
        self.here.append(len(os.listdir("/proc/self/fd")))

    def growth(self, values: list[int]) -> float:
        """By how much the last third is above the first third after the warm-up, at the median."""
        values = values[WARM_UP_SECONDS * len(values) // SECONDS :]
        third = len(values) // 3
        return median(values[-third:]) - median(values[:third])


def test_minutes_of_everything_leave_a_server_as_it_was(serve, dice, say):
    server = serve(model_pool_size=1, rpc_max_workers=4)
    mixture, cancels, measures, tick = Mixture(server), Cancels(server), Measures(server), threading.Event()
    with Traffic(dice) as traffic:
        traffic.add(3, mixture.tiny, 0.01)
        traffic.add(1, mixture.large, 0.05)
        traffic.add(1, mixture.failing, 0.05)
        traffic.add(1, mixture.late, 0.05)
        traffic.add(1, mixture.training, 0.5)
        traffic.add(1, mixture.unloading, 1.0)
        traffic.add(1, cancels, 0.02)
        for _ in range(SECONDS):
            tick.wait(1.0)
            measures.take()
    cancels.close()
    say(traffic)
    say(
        f"grew by {measures.growth(measures.rss) / 2**20:.1f} MiB to {measures.rss[-1] / 2**20:.1f},"
        f" by {measures.growth(measures.threads)} threads to {measures.threads[-1]},"
        f" by {measures.growth(measures.descriptors)} descriptors to {measures.descriptors[-1]}"
    )
    assert not traffic.surprises, "\n".join(traffic.surprises)
    assert measures.growth(measures.rss) <= MOST_GROWTH_BYTES
    for values in (measures.threads, measures.descriptors, measures.here):
        assert measures.growth(values) <= MOST_MORE, values
    assert_quiet(server)
    mixture.close()
    assert server.stop(signal.SIGTERM) == 0
    assert not wounds(server.data)


def assert_quiet(server: Served) -> None:
    """The counters of a server that nobody calls any more."""
    with server.client() as client:

        def rests() -> bool:
            statistics = client.admin.statistics()
            busy = [lane for lane in statistics.lanes if lane.queued or lane.running or lane.held_bytes]
            return not busy and statistics.workers_busy == 0 and statistics.pool.waiting == 0

        eventually(rests)
        statistics = client.admin.statistics()
        assert 0 <= statistics.pool.size <= 1
        assert statistics.pool.loads > len(VERSIONS)
        assert statistics.pool.load_failures == 0
        assert all(number >= 0 for lane in statistics.lanes for number in lane[2:-1])
        assert all(lane.batches is None for lane in statistics.lanes)
        try:
            client.predict()
        except AipodError as error:
            assert "initialize()" in str(error)  # nobody ever initialized this one

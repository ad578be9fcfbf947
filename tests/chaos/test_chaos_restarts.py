"""A server under load that ends and comes back, over and over."""

from __future__ import annotations

import random
import signal
import threading
from collections import Counter

import pytest
from served import Served, ran, wounds
from traffic import Traffic

from aipod.errors import TrainingInProgress, Unavailable
from aipod.rpc.client import AIClient

pytestmark = pytest.mark.chaos

RESTARTS = 20
CALLERS = 6
PACE = 0.012


class Writer:
    """Initializes and trains one version, over and over, and remembers what became of each number.

    Attributes:
        acknowledged: The last number that was answered: whoever asks from now on gets it, or a later one.
        outcomes: By number.
    """

    def __init__(self, client: AIClient) -> None:
        self.acknowledged = 0
        self.outcomes: dict[int, Unavailable | None] = {}
        self._client = client
        self._idle = threading.Lock()
        self._held = False

    def __call__(self, dice: random.Random) -> str:
        with self._idle:
            if self._held:
                return "writes held"
            number = len(self.outcomes) + 1
            method = dice.choice(("initialize", "train"))
            try:
                getattr(self._client, method)(number=number, kilobytes=dice.choice((1, 64, 1024)))
            except TrainingInProgress:
                # One in doubt was queued when its server ended, and goes on.
                return "writes that waited for another"
            except Unavailable as error:
                self.outcomes[number] = error
                return f"{method}s in doubt" if error.may_have_run else f"{method}s not run"
            self.outcomes[number] = None
            self.acknowledged = number
            return f"{method}s done"

    def hold(self) -> None:
        """Begin no more writes; one may be on its way."""
        self._held = True

    def let_go(self) -> None:
        self._held = False

    def rested(self) -> threading.Lock:
        """A lock to be had once no write is on its way."""
        return self._idle

    def contradictions(self, server: Served, drained: bool) -> list[str]:
        """What the model's own account says otherwise than the caller was told.

        Args:
            server: What was written to.
            drained: It was asked to end each time, so that whatever began was finished and answered.
        """
        times = Counter(number for _, number in ran(server.data))
        found = [f"{number} ran {count} times" for number, count in times.items() if count > 1]
        for number, error in self.outcomes.items():
            if error is None:
                found += [] if times[number] else [f"{number} was answered and never ran"]
            elif times[number] and (drained or not error.may_have_run):
                found.append(f"{number} ran, and its caller heard: {error}")
        return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_predict_fails_and_no_write_runs_twice(serve, dice, say, number):
    server = serve(drain_seconds=10)
    with server.client() as client:
        writer = Writer(client)
        assert writer(dice).endswith("done")

        def ask(dice: random.Random) -> str:
            at_least, x = writer.acknowledged, dice.random()
            answer = client.predict(x=x)
            assert answer["x"] == x
            assert answer["whole"], answer
            assert answer["number"] >= at_least, f"{at_least} was answered before {answer['number']} was served"
            return "predicts"

        pause = threading.Event()
        with Traffic(dice) as traffic:
            traffic.add(CALLERS, ask, PACE)
            traffic.add(1, writer, PACE)
            for _ in range(RESTARTS):
                pause.wait(dice.uniform(0.3, 1.5))
                writer.hold()
                status = server.stop(number)
                assert status == (0 if number is signal.SIGTERM else -number)
                server.start()
                with writer.rested():
                    assert not wounds(server.data, "v")
                writer.let_go()
        say(traffic)
        assert not traffic.surprises, "\n".join(traffic.surprises)
        assert not writer.contradictions(server, drained=number is signal.SIGTERM)
    assert not server.faults()

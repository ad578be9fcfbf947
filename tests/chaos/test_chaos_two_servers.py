"""Two servers on one data path, every verb from several clients, and now and then one of the two dies."""

from __future__ import annotations

import itertools
import random
import signal
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from served import Served, ran, wounds
from traffic import Traffic

from aipod.errors import (
    Conflict,
    InvalidArgument,
    LoadError,
    NotInitialized,
    TrainingInProgress,
    Unavailable,
    VersionNotFound,
)
from aipod.model import manifest
from aipod.model.store import Store

pytestmark = pytest.mark.chaos

SECONDS = 60
VERSIONS = ("a", "b", "c")
ALIASES = ("live", "next")
# What somebody who shares versions with others has to be ready for; all that it says has to be in its sentence.
EXPECTED = (Conflict, TrainingInProgress, Unavailable, VersionNotFound, NotInitialized, InvalidArgument)


class Crowd:
    """Clients that do anything to any version, through either server."""

    def __init__(self, servers: list[Served]) -> None:
        names = (*VERSIONS, *ALIASES)
        self._clients = {name: [server.client(name) for server in servers] for name in names}
        self._numbers = itertools.count(1)
        self.written: dict[str, set[int]] = defaultdict(set)
        verbs: dict[Callable[[random.Random], str], int] = {
            self.predict: 60,
            self.initialize: 4,
            self.train: 8,
            self.rollback: 3,
            self.set_alias: 3,
            self.drop_alias: 2,
            self.unload: 4,
            self.delete: 2,
            self.look: 3,
        }
        self._verbs, self._weights = list(verbs), list(verbs.values())

    def __call__(self, dice: random.Random) -> str:
        [verb] = dice.choices(self._verbs, self._weights)
        try:
            return verb(dice)
        except EXPECTED as error:
            return f"{type(error).__name__} of {verb.__name__}"
        except LoadError as error:
            # Whoever loads a version while somebody deletes it may hear so; any other reason is a surprise.
            if "there is no" in str(error):
                return f"LoadError of {verb.__name__}"
            raise

    def predict(self, dice: random.Random) -> str:
        name, x = dice.choice((*VERSIONS, *VERSIONS, *ALIASES)), dice.random()
        answer = dice.choice(self._clients[name]).predict(x=x)
        assert answer["x"] == x
        assert answer["whole"], answer
        of = {name} if name in VERSIONS else set(VERSIONS)
        assert any(answer["number"] in self.written[version] for version in of), (name, answer)
        return "predict"

    def initialize(self, dice: random.Random) -> str:
        return self._write("initialize", dice)

    def train(self, dice: random.Random) -> str:
        return self._write("train", dice, seconds=dice.choice((0.0, 0.3)))

    def _write(self, method: str, dice: random.Random, **arguments: float) -> str:
        version, number = dice.choice(VERSIONS), next(self._numbers)
        self.written[version].add(number)
        answer = getattr(dice.choice(self._clients[version]), method)(number=number, **arguments)
        assert answer
        return method

    def rollback(self, dice: random.Random) -> str:
        version = dice.choice(VERSIONS)
        assert dice.choice(self._clients[version]).admin.rollback(version) > 0
        return "rollback"

    def set_alias(self, dice: random.Random) -> str:
        version = dice.choice(VERSIONS)
        dice.choice(self._clients[version]).admin.set_alias(dice.choice(ALIASES), version)
        return "set_alias"

    def drop_alias(self, dice: random.Random) -> str:
        dice.choice(self._clients["a"]).admin.drop_alias(dice.choice(ALIASES))
        return "drop_alias"

    def unload(self, dice: random.Random) -> str:
        version = dice.choice(VERSIONS)
        for client in self._clients[version]:
            client.admin.unload(version)
        return "unload"

    def delete(self, dice: random.Random) -> str:
        version = dice.choice(VERSIONS)
        for client in self._clients[version]:
            client.admin.unload(version)
        dice.choice(self._clients[version]).admin.delete(version)
        return "delete"

    def look(self, dice: random.Random) -> str:
        admin = dice.choice(self._clients["a"]).admin
        versions = {one.version for one in admin.versions()}
        assert versions <= {*VERSIONS, *ALIASES}, versions
        assert all(one.held_bytes >= 0 and one.queued >= 0 for one in admin.statistics().lanes)
        return "look"

    def close(self) -> None:
        for client in itertools.chain(*self._clients.values()):
            client.close()


def contradictions(data: Path) -> list[str]:
    """What is wrong with the data path that all of that left."""
    store = Store(data)
    store.open()
    found = wounds(data)
    for version in store.versions():
        for one in store.revisions(version):
            directory = data / "revisions" / version / str(one.number)
            found += [f"revision {one.number} of {version}: {wound}" for wound in manifest.damage(directory)]
    aliases = store.aliases()
    found += [f"alias {alias} names {version}" for alias, version in aliases.items() if version not in store.versions()]
    found += [
        f"{job.id} still runs" for version in VERSIONS for job in store.jobs.of(version) if job.state == "running"
    ]
    found += [f"{number} ran {count} times" for (_, number), count in Counter(ran(data)).items() if count > 1]
    return found


def test_two_servers_on_one_data_path_tear_nothing(serve, dice, say, tmp_path):
    servers = [serve(model_pool_size=2), serve(model_pool_size=2)]
    crowd = Crowd(servers)
    pause, kills = threading.Event(), Counter()
    with Traffic(dice) as traffic:
        traffic.add(8, crowd, 0.01)
        left = float(SECONDS)
        while left > 0:
            wait = dice.uniform(1.0, 4.0)
            pause.wait(wait)
            left -= wait
            victim, number = dice.choice(servers), dice.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
            victim.stop(number)
            kills[number.name] += 1
            victim.start()
    crowd.close()
    say(f"{traffic}; {dict(kills)}")
    assert not traffic.surprises, "\n".join(traffic.surprises)
    for server in servers:
        assert server.stop(signal.SIGTERM) == 0
        assert not server.faults()
    assert not contradictions(tmp_path / "data")

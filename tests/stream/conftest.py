"""A real broker for every test that needs one.

One server serves the whole session, so a test names everything it makes with :meth:`Nats.unique`. A test that restarts
or kills its broker takes ``own_nats``, which is nobody else's.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from brokers import Nats
from stream_lab import Lab, start_model

from aipod.stream.dev import DevServer

__all__ = ["Nats"]


@pytest.fixture(scope="session")
def _broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevServer]:
    with DevServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
def nats(_broker: DevServer) -> Nats:
    assert _broker.running, "a test ended the broker that all share: it should have taken own_nats"
    return Nats(_broker)


@pytest.fixture
def own_nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    with DevServer(tmp_path_factory.mktemp("own-nats")) as server:
        yield Nats(server)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a model server in a process of its own."""
    child, address = start_model(tmp_path_factory.mktemp("model"))
    yield address
    child.stop()


@pytest.fixture
def lab(nats: Nats, model: str) -> Lab:
    return Lab(nats.url, nats.unique("lab"), model)

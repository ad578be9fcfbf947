"""An engine on a data path of its own, threads that call it, and a model whose every step a test can hold up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from waiting import BOUND

from aipod.engine import Engine
from aipod.model import AIModelBase


class Watched(AIModelBase):
    """A predict-only model that writes down what happens to it. Each test gets a class of its own."""

    loads: list[str]
    disposals: list[str]
    hold_load: dict[str, threading.Event]
    hold_predict: dict[str, threading.Event]
    running: list[str]

    def load(self) -> None:
        self.loads.append(self.version)
        if self.version in self.hold_load:
            assert self.hold_load[self.version].wait(BOUND)

    def predict(self, value: object = None) -> object:
        assert not self.disposed
        self.running.append(self.version)
        if self.version in self.hold_predict:
            assert self.hold_predict[self.version].wait(BOUND)
        assert not self.disposed
        return {"version": self.version, "value": value}

    def dispose(self) -> None:
        self.disposed = True
        self.disposals.append(self.version)


@pytest.fixture
def watched() -> type[Watched]:
    return type("Watched", (Watched,), dict(loads=[], disposals=[], hold_load={}, hold_predict={}, running=[]))


@pytest.fixture
def engine_of(tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    """Makes engines, opened, on one data path; closed after the test, when nothing may run any more."""
    engines: list[Engine] = []

    def make(model: type[AIModelBase], **settings: Any) -> Engine:
        engine = Engine(model, **{"data_path": tmp_path / "data", "rpc_max_workers": 4, **settings})
        engine.open()
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        assert engine.close(BOUND), "something was still running at the end of the test"


@pytest.fixture
def background() -> Iterator[Callable[..., Future[Any]]]:
    with ThreadPoolExecutor(64) as threads:
        yield threads.submit

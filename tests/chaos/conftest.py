"""Dice whose seed is told, and servers that end with their test. ``CHAOS_SEED=… make chaos`` throws the same dice."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from served import LEDGER, Served


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Callable[[object], None]:
    """Prints past pytest's capture: what chaos counted is worth reading when it went well, too."""

    def say(text: object) -> None:
        with capsys.disabled():
            print(f"\n  {request.node.name}: {text}", flush=True)

    return say


@pytest.fixture
def dice(say: Callable[[object], None]) -> random.Random:
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(2**32))
    say(f"CHAOS_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Starts scripts that serve, by default the ledger, by default on one data path."""
    servers: list[Served] = []

    def start(script: Path = LEDGER, data: Path | None = None, **settings: Any) -> Served:
        servers.append(Served(script, data or tmp_path / "data", tmp_path / f"log-{len(servers)}", **settings))
        return servers[-1]

    yield start
    for server in servers:
        server.end()

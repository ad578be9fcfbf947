"""What the tests of streams share: the broker that a test is given, and how a coroutine waits."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from aipod.stream.dev import DevServer


@dataclass(frozen=True)
class Nats:
    server: DevServer

    @property
    def url(self) -> str:
        return self.server.url

    def unique(self, name: str = "x") -> str:
        """Make a name that is legal for streams, consumers, buckets and as one token of a subject."""
        return f"{name}_{secrets.token_hex(4)}"


async def until(condition: Callable[[], object], bound: float = 20.0) -> None:
    """Wait for a condition."""
    end = time.monotonic() + bound
    while not condition():
        assert time.monotonic() < end, "it never came true"
        await asyncio.sleep(0.002)

"""Ports for servers that are started again on the port that they had."""

from __future__ import annotations

import contextlib
import random
import socket

__all__ = ["free_port"]


def free_port() -> int:
    """A port that nothing outgoing is given while its server is away; see :mod:`aipod.stream.dev`."""
    while True:
        # Not from the dice that every worker has in the same state when a test begins.
        port = random.SystemRandom().randrange(10_000, 18_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port

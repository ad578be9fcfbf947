"""Pipelines to measure, ours and by other hands: what they run as, and one run of each."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.broker import MAX_ACK_PENDING, RESULTS, SOURCE, Broker, Observed
from benchmarks.harness import Process, Server
from benchmarks.peers import environment

FASTSTREAM = environment("faststream")
_OURS, _PEERS = "ours", "peer"
_TASK = """\
[[task]]
name = "bench"
nats = "{broker}"
stream = "{source}"
subject = "{source}"
durable = "{durable}"
ack_wait = "1m"
max_ack_pending = {max_ack_pending}
window = "{window}"
key = "{key}"
columns = {{ values = "value" }}
model = "{model}"
sink = "nats:{sink}"
"""


@dataclass(frozen=True)
class Side:
    """A consumer's process, and what it reads as whom."""

    process: Process
    source: str
    durable: str


class Pipelines:
    """Each takes means over windows of the field ``value``; only one runs at a time.

    Args:
        broker: That all of them use.
        model: The model that all of them ask.
        directory: For what they are told in files.
    """

    def __init__(self, broker: Broker, model: Server, directory: Path) -> None:
        self._broker = broker
        self._model = model
        self._directory = directory

    def ours(self, window: str, key: str = "", source: str = SOURCE) -> Side:
        task = _TASK.format(
            broker=self._broker.url,
            source=source,
            durable=_OURS,
            max_ack_pending=MAX_ACK_PENDING,
            window=window,
            key=key,
            model=self._model.address,
            sink=f"{RESULTS}.{{key}}" if key else RESULTS,
        )
        file = self._directory / f"{source}.toml"
        file.write_text(task, encoding="utf-8")
        return Side(
            Process(sys.executable, "-m", "aipod", "stream", "run", str(file), "--log-level", "warning"), source, _OURS
        )

    def peer(self, name: str) -> Side:
        """One of ``peers/stream_*.py``; windows of 100."""
        python = str(FASTSTREAM) if name == "faststream" else sys.executable
        command = [python, "-m", f"benchmarks.peers.stream_{name}", self._broker.url, SOURCE, _PEERS]
        if name != "pulls":
            command += [RESULTS, self._model.address]
        return Side(Process(*command), SOURCE, _PEERS)

    def observe(self, side: Side, messages: int, results: int = 0) -> Observed:
        """Let a pipeline read its source from the beginning until all is acknowledged and all results are there."""

        async def observe() -> Observed:
            async with self._broker.connection() as connection:
                await connection.fresh(RESULTS)
                await connection.forget(side.source, side.durable)
                if side.durable == _PEERS:  # ours makes its own
                    await connection.add_consumer(side.source, side.durable)
                with side.process as process:
                    return await connection.observe(process, side.source, side.durable, messages, results)

        return asyncio.run(observe())

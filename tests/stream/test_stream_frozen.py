"""A consumer that is frozen for longer than its lease, and then goes on: with and without a successor."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stream_child import Child
from stream_lab import Lab, run

from aipod.stream.status import Standing, look

# Of a sink that nobody can read back, everything that was ever written is there.
SINK = """
import os

def write(result):
    with open("written.txt", "a", encoding="utf-8") as file:
        file.write(f"{os.getpid()} {result.recorded.id}\\n")
"""


class Consumers:
    """Processes of the lab's task, which has its windows in flight for a while; ended with the block."""

    def __init__(self, lab: Lab, directory: Path, seconds: float) -> None:
        self._lab = lab
        self._directory = directory
        self._children: list[Child] = []
        (directory / "out.py").write_text(SINK)
        table = {
            "name": lab.name,
            "durable": lab.name,
            "nats": lab.url,
            "subject": f"{lab.name}.in.>",
            "key": "k",
            "window": "count:4",
            "model": lab.model,
            "version": f"slow-{seconds}",
            "lease_ttl": 1.0,
            "ack_wait": 5.0,
            "sink": "out:write",
        }
        lines = [f"{name} = {json.dumps(value)}" for name, value in table.items()]
        (directory / "tasks.toml").write_text("[[task]]\n" + "\n".join(lines))

    def __enter__(self) -> Consumers:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            child.end()

    def start(self, name: str) -> Child:
        child = Child("stream", "run", "tasks.toml", directory=self._directory, name=name)
        self._children.append(child)
        child.start()
        return child

    def written(self) -> list[tuple[int, str]]:
        """Who wrote which window, by process id."""
        path = self._directory / "written.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(pid), window) for pid, window in map(str.split, lines)]


def values(count: int, keys: int = 1) -> list[dict[str, Any]]:
    return [{"k": number % keys, "v": number} for number in range(count)]


async def says(lab: Lab, what: Callable[[Standing], bool]) -> None:
    """Wait until something is true of what the broker knows of the task."""

    async def is_true() -> bool:
        (standing,) = await look(lab.connection, lab.task())
        return what(standing)

    await lab.until(is_true)


def test_who_wakes_to_a_successor_writes_nothing(lab: Lab, tmp_path: Path) -> None:
    async def main() -> None:
        async with lab:
            with Consumers(lab, tmp_path, seconds=3.0) as consumers:
                frozen = consumers.start("frozen")
                await lab.until(lambda: "running from" in frozen.said())
                await lab.publish(values(16, keys=4))
                await says(lab, lambda standing: standing.gauge("in_flight") == 4)
                frozen.send(signal.SIGSTOP)
                # The model's answers are there when it wakes.
                successor = consumers.start("successor")
                windows = [(successor.pid, f"s{first}") for first in range(1, 5)]
                await lab.until(lambda: sorted(consumers.written()) == windows)
                frozen.send(signal.SIGCONT)
                await lab.until(lambda: "another process has taken over; standing by" in frozen.said())
                await lab.floor_is(16)
                assert sorted(consumers.written()) == windows
                assert "nobody else had it" not in frozen.said() + successor.said()
                assert [child.stop() for child in (frozen, successor)] == [0, 0]
                assert "Traceback" not in frozen.said()

    run(main())


def test_who_wakes_to_no_successor_goes_on_as_if_nothing_had_happened(lab: Lab, tmp_path: Path) -> None:
    async def main() -> None:
        async with lab:
            with Consumers(lab, tmp_path, seconds=0.1) as consumers:
                frozen = consumers.start("frozen")
                await lab.until(lambda: "running from" in frozen.said())
                await lab.publish(values(6))
                await says(lab, lambda standing: standing.ack_pending + standing.count("results") > 0)
                frozen.send(signal.SIGSTOP)
                await says(lab, lambda standing: standing.state == "nobody")
                frozen.send(signal.SIGCONT)
                await lab.publish(values(2))
                await lab.floor_is(8)
                assert consumers.written() == [(frozen.pid, "s1"), (frozen.pid, "s5")]
                said = frozen.said()
                assert "nobody else had it" in said
                assert said.count("running from") == 1 and "taken over" not in said
                assert frozen.stop() == 0

    run(main())

"""A fleet of pumps is watched for anomalies, from the training to the table of what was found.

It brings its own broker and its own server, and ends with 0 if all that is wrong was found, and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import nats
from fleet import BEGIN, INTERVAL, Fault, Fleet
from model import Anomalies

from aipod.stream.dev import DevServer
from aipod.testing import served

HERE = Path(__file__).parent
HEALTHY, WATCHED = 600, 480
LONGEST = 60.0


@dataclass(frozen=True)
class Alarm:
    """A window that the model found anomalous; times in unix seconds."""

    pump: str
    start: float
    end: float
    score: float

    def shows(self, fault: Fault) -> bool:
        begin, end = (BEGIN + reading * INTERVAL for reading in (fault.first, fault.last))
        return self.pump == fault.pump and self.start <= end and self.end >= begin


async def publish(url: str, messages: Iterable[dict[str, Any]]) -> None:
    client = await nats.connect(url)
    jetstream = client.jetstream()
    await jetstream.add_stream(name="SENSORS", subjects=["sensors.*"])
    for message in messages:
        await jetstream.publish(f"sensors.{message['pump']}", json.dumps(message).encode())
    await client.close()


def watch(directory: Path, broker: str, model: str) -> None:
    """Run the task of ``sensors.toml`` with these addresses until it has nothing more to do."""
    task = (HERE / "sensors.toml").read_text(encoding="utf-8")
    task = task.replace("nats://localhost:4222", broker).replace("localhost:50051", model)
    (directory / "sensors.toml").write_text(task, encoding="utf-8")
    command = [sys.executable, "-m", "aipod", "stream", "run", "sensors.toml", "--once", "--log-level", "warning"]
    subprocess.run(command, cwd=directory, timeout=LONGEST, check=True)


def alarms(database: Path) -> tuple[int, list[Alarm]]:
    """Read how many windows were judged, and those that are anomalous."""
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute('SELECT "key", "start", "end", result FROM anomalies ORDER BY "start"').fetchall()
    found = []
    for pump, start, end, result in rows:
        verdict = json.loads(result)
        if verdict["anomalous"]:
            found.append(Alarm(pump, start, end, verdict["score"]))
    return len(rows), found


def report(faults: list[Fault], found: list[Alarm]) -> bool:
    """Hold what was found against what was injected; whether they are the same."""
    missed = 0
    for fault in faults:
        scores = [alarm.score for alarm in found if alarm.shows(fault)]
        missed += not scores
        begin = datetime.fromtimestamp(BEGIN + fault.first * INTERVAL, timezone.utc)
        verdict = f"found in {len(scores)} windows, score {max(scores):.1f}" if scores else "MISSED"
        say(fault.pump, f"{fault.kind:5} at {begin:%H:%M}, {fault.last - fault.first + 1:2} readings: {verdict}")
    false = [alarm for alarm in found if not any(alarm.shows(fault) for fault in faults)]
    say("", f"faults: {len(faults)}, missed: {missed}, false alarms: {len(false)}")
    return not missed and not false


def say(topic: str, text: str) -> None:
    print(f"{topic:9}{text}", flush=True)


def main() -> int:
    fleet = Fleet()
    with (
        tempfile.TemporaryDirectory(prefix="aipod-sensors-") as directory,
        DevServer(Path(directory, "nats")) as broker,
        served(Anomalies, version="fleet") as model,
    ):
        model.initialize(size=32)
        learnt = model.train(readings=fleet.healthy(HEALTHY))
        say("model", f"learnt from {learnt['windows']:,} healthy windows of {len(fleet.pumps)} pumps")
        readings, faults = fleet.faulty(WATCHED)
        asyncio.run(publish(broker.url, fleet.messages(readings)))
        say(
            "sensors",
            f"{len(fleet.pumps) * WATCHED:,} readings published to sensors.*, in which {len(faults)} pumps fail",
        )
        watch(Path(directory), broker.url, model.address)
        windows, found = alarms(Path(directory, "anomalies.db"))
        say("stream", f"{windows} windows judged, {len(found)} of them anomalous")
    return 0 if report(faults, found) else 1


if __name__ == "__main__":
    sys.exit(main())

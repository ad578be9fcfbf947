"""What a task would do, said before it does anything."""

from __future__ import annotations

from dataclasses import dataclass

from aipod.errors import AipodError
from aipod.stream.broker.connection import Connection
from aipod.stream.broker.consumer import ConsumerState, ensure
from aipod.stream.pipeline import consumer_of
from aipod.stream.sinks.streams import find_stream
from aipod.stream.tasks import SinkSpec, StreamTask, Template

__all__ = ["Finding", "outline", "plan"]

# Sinks that can say after a crash what is in them.
_RECORDS = ("nats", "sql", "file")


@dataclass(frozen=True)
class Finding:
    """One thing that a task needs, and how it is.

    Attributes:
        what: The thing.
        how: How it is, in words.
        good: Whether the task can run with that.
    """

    what: str
    how: str
    good: bool = True


def outline(task: StreamTask) -> list[Finding]:
    """Say what a task does, without asking anybody."""
    source = task.source
    findings = [
        Finding("source", f"{', '.join(source.subjects)} at {source.connect.where}, as consumer {source.durable}"),
        Finding("windows", f"{task.window}, {f'by {task.key}' if task.key else 'without a key'}, time: {task.time}"),
        Finding("model", f"version {task.model.version} at {task.model.address}"),
        *(Finding("sink", str(sink)) for sink in task.sinks),
        Finding("dead letters", task.dead_subject),
    ]
    if not any(sink.kind in _RECORDS for sink in task.sinks):
        findings.append(
            Finding(
                "guarantee", "at least once: no sink can say what it holds, so windows may be cut anew after a crash"
            )
        )
    return findings


async def plan(conn: Connection, task: StreamTask) -> list[Finding]:
    """Look at everything on the broker that a task needs. Nothing is made or changed.

    Raises:
        Unavailable: The broker is away.
    """
    findings = [await _consumer(conn, task, partition) for partition in range(task.partitions)]
    for sink in (inner for outer in task.sinks for inner in outer.all()):
        if sink.kind == "nats":
            findings.append(await _sink(conn, task, sink))
    dead = task.dead_letters
    findings.append(await _stream(conn, "dead letters", task.dead_subject, dead.stream, dead.create))
    return findings


async def _consumer(conn: Connection, task: StreamTask, partition: int) -> Finding:
    spec = consumer_of(task, partition)
    try:
        state = await ensure(conn, spec, create=False)
    except AipodError as error:
        return Finding("source", str(error), good=False)
    return Finding("source", _said_of(state))


def _said_of(state: ConsumerState) -> str:
    if state.exists:
        return f"consumer {state.durable} of stream {state.stream} goes on behind message {state.floor}"
    return f"consumer {state.durable} of stream {state.stream} would be made"


async def _sink(conn: Connection, task: StreamTask, sink: SinkSpec) -> Finding:
    pattern = Template(sink.target).wildcard(task.name)
    return await _stream(conn, f"sink {sink}", pattern, sink.options["stream"], sink.options["create"])


async def _stream(conn: Connection, what: str, pattern: str, name: str | None, create: bool) -> Finding:
    try:
        found = await find_stream(conn, pattern, name=name)
    except AipodError as error:
        if create and not (await conn.api("STREAM.NAMES", {"subject": pattern})).get("streams"):
            return Finding(what, f"a stream for {pattern} would be made")
        return Finding(what, str(error), good=False)
    return Finding(what, f"{pattern} is in stream {found['name']}")

"""What a task would do, said before it does anything."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass

from aipod.errors import AipodError
from aipod.stream.broker.bucket import foresee
from aipod.stream.broker.connection import Connection
from aipod.stream.broker.consumer import ConsumerState, ensure
from aipod.stream.pipeline import BUCKET, consumer_of
from aipod.stream.sinks.interface import Foreseeing
from aipod.stream.sinks.opening import open_sink
from aipod.stream.sinks.streams import find_stream
from aipod.stream.tasks import SinkSpec, StreamTask, Template
from aipod.stream.version import find_version

__all__ = ["Finding", "outline", "plan"]

# Sinks that can say after a crash what is in them.
_RECORDS = ("nats", "sql", "file")
# Sinks that have another side, which can be looked at.
_FORESEEING = ("nats", "sql", "file", "model")


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
    """Look at everything that a task needs: on the broker, at its models, in its sinks. Nothing is made or changed.

    Raises:
        Unavailable: The broker is away.
    """
    findings = [await _consumer(conn, task, partition) for partition in range(task.partitions)]
    if task.lease:
        findings.append(await _asked("lease", foresee(conn, BUCKET)))
    findings.append(await _asked("model", find_version(task.model.address, task.model.version)))
    sinks = [inner for outer in task.sinks for inner in outer.all()]
    findings += [await _sink(conn, task, sink) for sink in sinks if sink.kind in _FORESEEING]
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


async def _sink(conn: Connection, task: StreamTask, spec: SinkSpec) -> Finding:
    what = f"sink {spec}"
    if spec.kind == "nats":
        pattern = Template(spec.target).wildcard(task.name)
        return await _stream(conn, what, pattern, spec.options["stream"], spec.options["create"])
    return await _asked(what, _foreseen(conn, task, spec))


async def _foreseen(conn: Connection, task: StreamTask, spec: SinkSpec) -> str:
    sink = open_sink(spec, task.name, conn)
    try:
        assert isinstance(sink, Foreseeing), spec.kind
        return await sink.foresee()
    finally:
        await sink.close()


async def _asked(what: str, answer: Awaitable[str]) -> Finding:
    try:
        return Finding(what, await answer)
    except AipodError as error:
        return Finding(what, str(error), good=False)


async def _stream(conn: Connection, what: str, pattern: str, name: str | None, create: bool) -> Finding:
    try:
        found = await find_stream(conn, pattern, name=name)
    except AipodError as error:
        if create and not (await conn.api("STREAM.NAMES", {"subject": pattern})).get("streams"):
            return Finding(what, f"a stream for {pattern} would be made")
        return Finding(what, str(error), good=False)
    return Finding(what, f"{pattern} is in stream {found['name']}")

"""From a sink as a task says it to one that can be opened."""

from __future__ import annotations

from pathlib import Path

from aipod.errors import ConfigError
from aipod.stream.broker.connection import Connection
from aipod.stream.sinks.files import FileSink
from aipod.stream.sinks.function import FunctionSink
from aipod.stream.sinks.interface import Sink
from aipod.stream.sinks.model import ModelSink
from aipod.stream.sinks.stdout import StdoutSink
from aipod.stream.sinks.subject import SubjectSink
from aipod.stream.tasks import functions
from aipod.stream.tasks.sinkspec import SinkSpec, split_model

__all__ = ["open_sink"]


def open_sink(spec: SinkSpec, task: str, connection: Connection | None = None, *, partition: int | None = None) -> Sink:
    """Make a sink, whose own ``open`` is the next thing to call.

    Args:
        task: The task's name.
        connection: To the broker; None where there is none, as when a task is tried on a file.
        partition: Which share of the task writes there, None if it is all of it; each has files of its own.

    Raises:
        ConfigError: It cannot be made like this.
    """
    options = dict(spec.options)
    if spec.kind == "nats":
        if connection is None:
            raise ConfigError([f"sink {spec} needs a broker; without one, use stdout or a file"])
        return SubjectSink(connection, spec.target, task, **options)
    if spec.kind == "sql":
        return _make_sql(spec, task)
    if spec.kind == "file":
        directory = Path(spec.target) if partition is None else Path(spec.target) / f"partition-{partition}"
        return FileSink(str(directory), task, **options)
    if spec.kind == "stdout":
        return StdoutSink(task)
    if spec.kind == "model":
        address, version = split_model(spec.target)
        inside = options.pop("sink")
        then = None if inside is None else open_sink(inside, task, connection, partition=partition)
        return ModelSink(address, version or "default", then=then, **options)
    return FunctionSink(functions.load(spec.target), spec.target)


def _make_sql(spec: SinkSpec, task: str) -> Sink:
    try:
        from aipod.stream.sinks.sql import SqlSink  # noqa: PLC0415  # SQLAlchemy is an extra
    except ImportError as error:
        raise ConfigError(["a database as a sink needs SQLAlchemy: pip install 'aipod[stream]'"]) from error
    return SqlSink(spec.target, task=task, **spec.options)

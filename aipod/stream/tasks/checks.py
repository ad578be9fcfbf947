"""What is wrong with a task's parts together, and with tasks together. A rule is a function of parts that are right."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from aipod.errors import ConfigError
from aipod.stream.tasks.decode import WHOLE, decoder
from aipod.stream.tasks.keys import key_finder, needs_fields
from aipod.stream.tasks.prepare import preparing
from aipod.stream.tasks.sinkspec import SinkSpec
from aipod.stream.tasks.source import PRESSURE, Source
from aipod.stream.tasks.subjects import overlap
from aipod.stream.tasks.template import Template
from aipod.stream.tasks.times import time_finder
from aipod.stream.windows import WindowSpec

if TYPE_CHECKING:
    from aipod.stream.tasks.task import StreamTask

__all__ = ["problems", "problems_together"]


def problems(good: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with the fields of one task together.

    Args:
        good: The fields that are right by themselves. Rules about others are passed over, so that one mistake is said
            once. Of a source that is wrong it may have ``subjects``, and of several sinks those that are right.
    """
    found: list[str] = []
    if "source" in good:
        good = {**good, "subjects": good["source"].subjects}
    for rule in _RULES:
        names = rule.__code__.co_varnames[: rule.__code__.co_argcount]
        if all(name in good for name in names):
            found += rule(**{name: good[name] for name in names})
    return found


def problems_together(tasks: Sequence[StreamTask]) -> list[str]:
    """Say what is wrong with tasks that are to run side by side."""
    found = []
    for at, task in enumerate(tasks):
        if any(task.name == other.name for other in tasks[:at]):
            found.append(f"task {task.name!r}: there are two of that name; each needs its own")
    for one, other in combinations(tasks, 2):
        if one.name == other.name or one.source.connect != other.source.connect:
            continue
        both = f"tasks {one.name!r} and {other.name!r}"
        streams = (one.source.stream, other.source.stream)
        if None in streams or streams[0] == streams[1]:
            shared = sorted(_durables(one) & _durables(other))
            found += [
                f"{both} have the same durable {name!r}; they would share its messages out" for name in shared[:1]
            ]
        for mine in _published(one.sinks, one.name):
            for its in _published(other.sinks, other.name):
                if overlap(mine, its):
                    found.append(f"{both} both publish to {mine!r}; a task's results need subjects of their own")
    return found


def _decode(decode: str) -> Iterator[str]:
    yield from _tried("decode", decoder, decode)


def _key(key: str) -> Iterator[str]:
    yield from _tried("key", key_finder, key)


def _time(time: str, time_unit: str) -> Iterator[str]:
    yield from _tried("time", time_finder, time, time_unit)


def _prepare(prepare: str, columns: Mapping[str, str]) -> Iterator[str]:
    yield from _tried("", preparing, prepare, columns)


def _fields(decode: str, key: str, time: str, columns: Mapping[str, str]) -> Iterator[str]:
    if decode not in WHOLE:
        return
    for name, text in (("key", key), ("time", time)):
        if needs_fields(text):
            yield f"{name}: {decode} has no fields, so there is no {text!r}; take a header or a token of the subject"
    for name, path in columns.items():
        if path != ".":
            yield f"columns: {name}: {decode} has no fields; write '.' for the value itself"


def _bounds(window: WindowSpec, source: Source) -> Iterator[str]:
    # A consumer hands out no more than that before something is acknowledged, which here is when a window is done: a
    # larger one would wait for its last messages, and be closed early each time.
    counted = window.kind in ("count", "sliding")
    most = int(window.size) if counted else window.max_messages
    if most > PRESSURE * source.max_ack_pending:
        what = f"its {most} messages" if counted else f"its max_messages of {most}"
        yield (
            f"window: {what} cannot be waiting all at a time, since max_ack_pending is {source.max_ack_pending};"
            f" make the window smaller, or max_ack_pending at least {math.ceil(most / PRESSURE)}"
        )


def _loops(name: str, subjects: tuple[str, ...], sinks: tuple[SinkSpec, ...]) -> Iterator[str]:
    for pattern in _published(sinks, name):
        for subject in subjects:
            if overlap(pattern, subject):
                yield f"sinks: results go to {pattern!r}, which the task reads with {subject!r}: it would feed itself"


def _dead_loops(name: str, subjects: tuple[str, ...], sinks: tuple[SinkSpec, ...], dead_letters: Any) -> Iterator[str]:
    dead = Template(dead_letters.subject, ("task",)).render(task=name)
    for subject in subjects:
        if overlap(dead, subject):
            yield f"dead_letters: they go to {dead!r}, which the task reads with {subject!r}: it would feed itself"
    for pattern in _published(sinks, name):
        if overlap(dead, pattern):
            yield f"dead_letters: they go to {dead!r}, where results go, too ({pattern!r}); give them one of their own"


def _keyed(key: str, sinks: tuple[SinkSpec, ...]) -> Iterator[str]:
    for sink in _all(sinks):
        if key and sink.kind == "nats" and "key" not in Template(sink.target).variables:
            yield (
                f"sinks: {str(sink)!r} has no {{key}}, and the task has keys; a restart finds the last result of each"
                f" key by its subject, so write {{key}} into it"
            )


def _partitioned(key: str, partitions: int) -> Iterator[str]:
    if partitions > 1 and not key:
        yield f"partitions is {partitions}, and without a key there is nothing to part by; add a key"


_RULES: tuple[Callable[..., Iterator[str]], ...] = (
    _decode,
    _key,
    _time,
    _prepare,
    _fields,
    _bounds,
    _loops,
    _dead_loops,
    _keyed,
    _partitioned,
)


def _durables(task: StreamTask) -> set[str]:
    # Each partition has a consumer of its own.
    name = task.source.durable
    return {name} if task.partitions == 1 else {f"{name}-{partition}" for partition in range(task.partitions)}


def _tried(name: str, build: Callable[..., Any], *arguments: Any) -> list[str]:
    try:
        build(*arguments)
    except ConfigError as error:
        return [f"{name}: {problem}" if name else problem for problem in error.problems]
    return []


def _all(sinks: tuple[SinkSpec, ...]) -> Iterator[SinkSpec]:
    for sink in sinks:
        yield from sink.all()


def _published(sinks: tuple[SinkSpec, ...], task: str) -> list[str]:
    return [Template(sink.target).wildcard(task) for sink in _all(sinks) if sink.kind == "nats"]

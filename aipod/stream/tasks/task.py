"""One configured stream, as frozen data that has been checked: where from, how to read, cut, predict, where to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from aipod.config.kinds import Kind, choice, whole
from aipod.errors import ConfigError
from aipod.stream.tasks import checks
from aipod.stream.tasks.items import Part, defaults_of, duration, item, one, read_items, word, yes_or_no
from aipod.stream.tasks.model import DeadSpec, ModelSpec
from aipod.stream.tasks.prepare import Prepare, preparing
from aipod.stream.tasks.reading import Reading
from aipod.stream.tasks.sinkspec import SinkSpec
from aipod.stream.tasks.source import Source
from aipod.stream.tasks.table import parts_of, subjects_of
from aipod.stream.tasks.template import Template
from aipod.stream.windows import WindowSpec

__all__ = ["DeadSpec", "ModelSpec", "SinkSpec", "Source", "StreamTask"]


def _sinks(value: object) -> tuple[SinkSpec, ...]:
    sinks, problems = _each_sink(value)
    if problems:
        raise ConfigError(problems)
    if not sinks:
        raise TypeError(value)
    return sinks


def _each_sink(value: object) -> tuple[tuple[SinkSpec, ...], list[str]]:
    """Read the sinks that can be read, and say what is wrong with the others."""
    values = [value] if isinstance(value, (str, SinkSpec, Mapping)) else value
    sinks, problems = [], []
    for at, each in enumerate(values if isinstance(values, (list, tuple)) else ()):
        try:
            sinks.append(SinkSpec.parse(each))
        except ConfigError as error:
            place = f"[{at}]: " if len(values) > 1 else ""  # type: ignore[arg-type]
            problems += [place + problem for problem in error.problems]
    return tuple(sinks), problems


def _columns(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(
        isinstance(name, str) and name and isinstance(path, str) for name, path in value.items()
    ):
        raise TypeError(value)
    return dict(value)


_NAME = word(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}", "up to 100 ASCII letters, digits, _ and -, not starting with -")
_TEXT = word(r".*", "a text")


@dataclass(frozen=True)
class StreamTask(Part):
    """One stream of windows.

    Attributes:
        name: For the lease, the record and the logs; no two tasks of a broker have the same.
        source: Where messages come from.
        window: How they are cut.
        model: What predicts.
        sinks: Where results go; a window is done when it is in all of them.
        decode: ``json``, ``msgpack``, ``raw``, ``npy`` or ``module:function`` (bytes to a value).
        key: What messages are grouped by: ``""``; a field, as ``device``, ``a.b`` or ``field:device``; ``header:Name``;
            ``subject:1``, a token counted from 0; ``module:function`` (a Message to a text or a number).
        time: The same for a message's own time, or ``stored``, the server's. Numbers are in ``time_unit``; texts are
            ISO 8601, in UTC if they name no offset.
        time_unit: ``s``, ``ms``, ``us`` or ``ns``.
        prepare: ``module:function`` (a Window to the keywords of predict); ``""`` gives messages and window.
        columns: Instead of it: the model's argument to the field of which it is the array.
        dead_letters: Where messages go that cannot be used.
        pressure: What to do when open windows hold all that may be unacknowledged: ``close`` the oldest or ``pause``.
        lease: Whether one process alone may run it at a time.
        lease_ttl: Seconds after which another takes over from one that is gone.
        partitions: How many processes can share the task, by key.

    Raises:
        ConfigError: With one sentence for each problem.
    """

    name: str = item(_NAME)
    source: Source = item(one(Source, "a Source"))
    window: WindowSpec = item(one(WindowSpec, 'a window, such as "count:32"'))
    model: ModelSpec = item(one(ModelSpec, "a ModelSpec"))
    sinks: tuple[SinkSpec, ...] = item(Kind("a sink, or a list of them", _sinks))
    decode: str = item(_TEXT, "json")
    key: str = item(_TEXT, "")
    time: str = item(_TEXT, "stored")
    time_unit: Literal["s", "ms", "us", "ns"] = item(choice("s", "ms", "us", "ns"), "s")
    prepare: str = item(_TEXT, "")
    columns: Mapping[str, str] = item(Kind("a table of arguments and the fields for them", _columns), dict)
    dead_letters: DeadSpec = item(one(DeadSpec, "a DeadSpec"), DeadSpec())
    pressure: Literal["close", "pause"] = item(choice("close", "pause"), "close")
    lease: bool = item(yes_or_no(), True)
    lease_ttl: float = item(duration(0.5, 300.0), 5.0)
    partitions: int = item(whole(1, 1024), 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        # Whose time counts is said once, by the task.
        own = self.time != "stored"
        if self.window.own_time != own:
            object.__setattr__(self, "window", replace(self.window, own_time=own))

    @classmethod
    def cross(cls, good: Mapping[str, Any]) -> list[str]:
        return checks.problems(good)

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], place: str = "") -> StreamTask:
        """Read a table as a file has it: see :mod:`aipod.stream.tasks.table` for its fields.

        Args:
            table: The fields.
            place: What to say in front of each problem, such as the file's name.

        Raises:
            ConfigError: With one sentence for each problem.
        """
        parts, problems = parts_of(table)
        said: list[str] = []
        if not problems:
            try:
                return cls(**parts)
            except ConfigError as error:
                said = error.problems
        good, more = read_items(cls, {**defaults_of(cls), **parts})
        readable = {"subjects": subjects_of(table), "sinks": _each_sink(parts["sinks"])[0]}
        problems = problems + more + checks.problems({**readable, **good}) or said
        name = table.get("name")
        where = f"{place}: " if place else ""
        where += f"task {name!r}: " if isinstance(name, str) else ""
        raise ConfigError([where + problem for problem in problems])

    @property
    def dead_subject(self) -> str:
        return Template(self.dead_letters.subject, ("task",)).render(task=self.name)

    def reading(self) -> Reading:
        """Build what fills in a message's value, key and time."""
        return Reading(decode=self.decode, key=self.key, time=self.time, time_unit=self.time_unit)

    def preparing(self) -> Prepare:
        """Build what makes the keywords of predict from a window."""
        return preparing(self.prepare, self.columns)

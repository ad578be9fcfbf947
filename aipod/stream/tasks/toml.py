"""Tasks from a file::

    [defaults]
    nats = "nats://localhost:4222"
    model = "localhost:50051"

    [[task]]
    name = "vibration"
    subject = "sensors.>"
    key = "device"
    window = "sliding:32:8"
    sink = "nats:results.vibration.{key}"

``[defaults]`` has the fields of a task (:mod:`aipod.stream.tasks.table`), for tasks that do not have their own. Where
both are tables, the task's fields replace those of the default one by one.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from aipod.errors import ConfigError
from aipod.stream.tasks.checks import problems_together
from aipod.stream.tasks.items import nearest
from aipod.stream.tasks.table import renamed
from aipod.stream.tasks.task import StreamTask

__all__ = ["load", "loads"]

_MAX_BYTES = 16 << 20
_TABLES = ("defaults", "task")


def load(path: str | Path) -> list[StreamTask]:
    """Read a file of tasks.

    Raises:
        ConfigError: With all that is wrong, each with its place.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError([f"{path}: it cannot be read ({error.strerror})"]) from error
    if len(data) > _MAX_BYTES:
        raise ConfigError([f"{path.name}: it is larger than {_MAX_BYTES >> 20} MiB, which is no file of tasks"])
    return loads(data, path.name)


def loads(data: bytes | str, place: str = "tasks") -> list[StreamTask]:
    """Read the text of such a file.

    Args:
        data: TOML; as bytes, in UTF-8.
        place: What to say in front of each problem.

    Raises:
        ConfigError: With all that is wrong, each with its place.
    """
    document = _parsed(data, place)
    problems = [
        f"{place}: there is no table {name!r}; {nearest(name, _TABLES)}" for name in document if name not in _TABLES
    ]
    defaults, more = _defaults(document.get("defaults", {}), place)
    problems += more
    tables = document.get("task", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        problems.append(f"{place}: a task begins with [[task]], in two brackets, since there can be several")
        tables = []
    elif not tables:
        problems.append(f"{place}: there is no task in it; a task begins with [[task]]")
    tasks, own = [], []
    shared = _Shared(defaults)
    for at, table in enumerate(tables, 1):
        try:
            tasks.append(StreamTask.from_dict(_merged(defaults, table), _place(place, at, table)))
        except ConfigError as error:
            own += shared.without(error.problems)
    problems += [*(f"{place}: defaults: {problem}" for problem in shared.found), *own]
    problems += [f"{place}: {problem}" for problem in problems_together(tasks)]
    if problems:
        raise ConfigError(problems)
    return tasks


def _place(place: str, at: int, table: Mapping[str, Any]) -> str:
    # A task is called by its name where it has one.
    return place if isinstance(table.get("name"), str) else f"{place}: task {at}"


def _parsed(data: bytes | str, place: str) -> dict[str, Any]:
    try:
        # What some editors put in front of a text is no part of it.
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError([f"{place}: line {line} is not UTF-8; save it as UTF-8"]) from error
    try:
        document: dict[str, Any] = _parser().loads(text)
    except ValueError as error:
        raise ConfigError([f"{place}: it is no TOML: {error}"]) from error
    except RecursionError as error:
        raise ConfigError([f"{place}: it is nested too deeply"]) from error
    return document


def _parser() -> Any:
    # The second is the first as Python 3.10 has it.
    for name in ("tomllib", "tomli"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise ConfigError(["a file of tasks needs the package tomli on this Python: pip install 'aipod[stream]'"])


def _defaults(value: object, place: str) -> tuple[dict[str, Any], list[str]]:
    if not isinstance(value, dict):
        return {}, [f"{place}: defaults is no table; write [defaults]"]
    defaults, problems = renamed(value)
    if "name" in defaults:
        problems.append("name is each task's own")
    return defaults, [f"{place}: defaults: {problem}" for problem in problems]


class _Shared:
    """What is wrong with the defaults themselves, so that it is said once and not by every task that has them.

    Attributes:
        found: Those problems that a task has, too; one that every task replaces is none.
    """

    # What a task must have, and defaults need not.
    _REST: ClassVar = {"subjects": "x", "window": "count:1", "model": "localhost:1", "sinks": "stdout"}

    def __init__(self, defaults: Mapping[str, Any]) -> None:
        self.found: list[str] = []
        self._problems: list[str] = []
        try:
            StreamTask.from_dict({"name": "defaults", **self._REST, **defaults})
        except ConfigError as error:
            self._problems = [problem.removeprefix("task 'defaults': ") for problem in error.problems]

    def without(self, problems: Sequence[str]) -> list[str]:
        """Give those problems of a task that are its own."""
        own = []
        for problem in problems:
            mine = next((each for each in self._problems if problem.endswith(f": {each}")), None)
            if mine is None:
                own.append(problem)
            elif mine not in self.found:
                self.found.append(mine)
        return own


def _merged(defaults: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    own, _ = renamed(table)
    merged = dict(defaults)
    # Unknown fields, and those given under both their names, stay for the task to say.
    for name, value in table.items() if len(own) != len(table) else own.items():
        default = defaults.get(name)
        merged[name] = {**default, **value} if isinstance(default, Mapping) and isinstance(value, Mapping) else value
    return merged

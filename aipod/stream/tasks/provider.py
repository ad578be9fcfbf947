"""Tasks that appear, change and vanish while others run: somebody is asked for them again every so often."""

from __future__ import annotations

import asyncio
import decimal
import importlib
import inspect
import json
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from aipod.errors import ConfigError, Unavailable
from aipod.stream.tasks import functions
from aipod.stream.tasks.checks import problems_together
from aipod.stream.tasks.database import read_url, sqlite_file
from aipod.stream.tasks.items import read_secret
from aipod.stream.tasks.task import StreamTask

__all__ = ["Provider", "TaskProvider", "open_provider", "read_tasks"]

Given = Iterable[StreamTask | Mapping[str, Any]]


class TaskProvider(Protocol):
    """What a user writes to say which tasks there are; ``def`` or ``async def``."""

    def tasks(self) -> Given | Awaitable[Given]:
        """All tasks that are to run now; those not among them end."""


class Provider:
    """Asks a source of tasks, and checks what it says. Nothing in it blocks the event loop.

    Args:
        source: What to ask.
        place: For errors.
        only: Of its tasks those of these names alone; none means all.
    """

    def __init__(self, source: TaskProvider, place: str, only: Collection[str] = ()) -> None:
        self._source = source
        self._place = place
        self._only = only

    def __repr__(self) -> str:
        return f"Provider({self._place!r})"

    async def tasks(self) -> list[StreamTask]:
        """Ask once.

        Raises:
            ConfigError: What it said makes no sense; with all that is wrong.
            Unavailable: It could not be asked.
        """
        given = await asyncio.to_thread(self._asked, self._source.tasks)
        if inspect.isawaitable(given):
            with self._telling():
                given = await given
        return await asyncio.to_thread(self._asked, lambda: self._read(given))

    async def close(self) -> None:
        close = getattr(self._source, "close", None)
        if close is not None:
            answer = await asyncio.to_thread(close)
            if inspect.isawaitable(answer):
                await answer

    def _asked(self, question: Callable[[], Any]) -> Any:
        with self._telling():
            return question()

    def _read(self, given: Any) -> list[StreamTask]:
        # All of them, so that what is wrong with one is seen, whoever runs it. A generator runs while it is read.
        tasks = read_tasks(given, self._place)
        return [task for task in tasks if not self._only or task.name in self._only]

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except (ConfigError, Unavailable):
            raise
        except functions.FAILURES as error:
            raise Unavailable(f"the tasks cannot be asked for: {functions.sentence(self._place, error)}") from error


def read_tasks(given: Any, place: str) -> list[StreamTask]:
    """Check what a provider gave: tasks, or tables as :meth:`StreamTask.from_dict` reads them.

    Raises:
        ConfigError: With all that is wrong.
    """
    if not isinstance(given, Iterable) or isinstance(given, (str, bytes, Mapping)):
        raise ConfigError(
            [f"{place}: it gave {type(given).__name__}; it must give a list of tasks, or of their tables"]
        )
    tasks: list[StreamTask] = []
    problems: list[str] = []
    for at, each in enumerate(given, 1):
        if isinstance(each, StreamTask):
            tasks.append(each)
        elif isinstance(each, Mapping):
            where = place if isinstance(each.get("name"), str) else f"{place}: task {at}"
            try:
                tasks.append(StreamTask.from_dict(each, where))
            except ConfigError as error:
                problems += error.problems
        else:
            problems.append(f"{place}: task {at} is {type(each).__name__}; it must be a StreamTask or a table")
    problems += [f"{place}: {problem}" for problem in problems_together(tasks)]
    if problems:
        raise ConfigError(problems)
    return tasks


def open_provider(text: str, only: Collection[str] = ()) -> Provider:
    """Make a provider of its text.

    Args:
        text: ``module:function``, of what gives tasks or an object that has ``tasks()``; or ``sql:URL#SELECT …``, whose
            rows are tables of tasks with the columns as fields. There, JSON stands for lists and tables, and
            ``sql:file:PATH#SELECT …`` reads the URL from a file.
        only: As for :class:`Provider`.

    Raises:
        ConfigError: It says neither, or what it names is not there.
    """
    text = text.strip()
    if text.startswith("sql:"):
        url, hash_, query = text.removeprefix("sql:").partition("#")
        if not hash_ or not query.strip() or not url:
            raise ConfigError(["a provider of SQL needs a query; write sql:URL#SELECT …"])
        url = read_secret(url.removeprefix("file:")) if url.startswith("file:") else url
        return Provider(_Rows(url, query), "sql", only)
    if not functions.is_target(text):
        raise ConfigError([f"{text!r} names no provider; write module:function or sql:URL#SELECT …"])
    found = functions.find(text)
    if isinstance(found, type):
        try:
            found = found()
        except functions.FAILURES as error:
            raise ConfigError([functions.sentence(text, error)]) from error
    if hasattr(found, "tasks"):
        return Provider(found, text, only)
    if not callable(found):
        raise ConfigError([f"{text} is {type(found).__name__}; it must be a function, or have a method tasks()"])
    return Provider(_Function(found), text, only)


class _Function:
    def __init__(self, function: Any) -> None:
        self.tasks = function


class _Rows:
    """The rows of a query."""

    def __init__(self, url: str, query: str) -> None:
        parsed = read_url(url)
        self._sql: Any = importlib.import_module("sqlalchemy")
        self._file = sqlite_file(parsed)
        try:
            # Asked rarely, and from any thread: no connection is kept.
            self._engine = self._sql.create_engine(parsed, poolclass=self._sql.pool.NullPool)
        except (self._sql.exc.SQLAlchemyError, ImportError) as error:
            raise ConfigError([f"the driver of the provider's database is not usable: {error}"]) from error
        self._query = self._sql.text(query)

    def tasks(self) -> list[dict[str, Any]]:
        if self._file is not None and not self._file.exists():  # SQLite would make it
            raise Unavailable(f"there is no database {self._file}; name one that is there")
        try:
            with self._engine.connect() as connection:
                rows = connection.execute(self._query)
                return [{name: _plain(value) for name, value in row.items()} for row in rows.mappings()]
        except self._sql.exc.SQLAlchemyError as error:
            reason = " ".join(str(getattr(error, "orig", None) or type(error).__name__).split())
            raise Unavailable(f"the provider's query failed: {reason}") from error

    def close(self) -> None:
        self._engine.dispose()


def _plain(value: Any) -> Any:
    """A column's value as a field's: databases have other numbers than we, and text for what they have no type for."""
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value

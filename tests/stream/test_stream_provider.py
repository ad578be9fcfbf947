"""Tasks from a function or a query, asked for again and again."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from aipod.errors import ConfigError, Unavailable
from aipod.stream.tasks import StreamTask, open_provider

HERE = __name__
TABLE = {"subject": "s.>", "window": "count:2", "model": "h:1", "sink": "stdout"}
NUMBER = 5


def plain() -> list[Any]:
    assert threading.current_thread() is not threading.main_thread()
    return [{"name": "a", **TABLE}, StreamTask.from_dict({"name": "b", **TABLE})]


async def waiting() -> list[Any]:
    await asyncio.sleep(0)
    return [{"name": "a", **TABLE}]


def decorated() -> Any:
    return waiting()


class Waiting:
    closed = False

    async def tasks(self) -> list[Any]:
        return await waiting()

    async def close(self) -> None:
        Waiting.closed = True


class Callable_:
    async def __call__(self) -> list[Any]:
        return await waiting()


CALLABLE = Callable_()


def generating() -> Iterator[Any]:
    yield {"name": "a", **TABLE}
    raise OSError("the directory is away")


async def failing() -> list[Any]:
    raise OSError("the directory is away")


def leaving() -> None:
    sys.exit(1)


def nothing() -> None:
    """Forgot its return."""


def wrong() -> list[Any]:
    return [{"name": "a", **TABLE, "windw": 1}, 5, {**TABLE}, {"name": "b", **TABLE}, {"name": "b", **TABLE}]


class Directory:
    def __init__(self) -> None:
        self.asked = 0

    def tasks(self) -> list[Any]:
        self.asked += 1
        return [{"name": f"t{at}", **TABLE} for at in range(self.asked)]


class Unbuildable:
    def __init__(self) -> None:
        raise OSError("no directory")


def ask(text: str) -> list[str]:
    async def asked() -> list[str]:
        provider = open_provider(text)
        try:
            return [task.name for task in await provider.tasks()]
        finally:
            await provider.close()

    return asyncio.run(asked())


@pytest.mark.parametrize(
    ("name", "names"), [("plain", ["a", "b"]), ("waiting", ["a"]), ("decorated", ["a"]), ("CALLABLE", ["a"])]
)
def test_a_function_says_which_tasks_there_are(name: str, names: list[str]) -> None:
    assert ask(f"{HERE}:{name}") == names


def test_an_object_may_be_asynchronous_from_its_first_answer_to_its_end() -> None:
    assert ask(f"{HERE}:Waiting") == ["a"]
    assert Waiting.closed


def test_an_object_is_asked_again_each_time() -> None:
    async def asked() -> list[int]:
        provider = open_provider(f"{HERE}:Directory")
        return [len(await provider.tasks()) for _ in range(3)]

    assert asyncio.run(asked()) == [1, 2, 3]


@pytest.mark.parametrize("name", ["generating", "failing"])
def test_a_provider_that_fails_is_unavailable(name: str) -> None:
    with pytest.raises(Unavailable, match=rf"{name} raised OSError: the directory is away"):
        ask(f"{HERE}:{name}")


def test_a_provider_that_exits_ends_nothing() -> None:
    with pytest.raises(Unavailable, match="leaving raised SystemExit"):
        ask(f"{HERE}:leaving")


def test_a_provider_that_gives_no_list_is_told_so() -> None:
    with pytest.raises(ConfigError, match="it gave NoneType; it must give a list of tasks"):
        ask(f"{HERE}:nothing")


def test_all_that_is_wrong_with_its_tasks_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        ask(f"{HERE}:wrong")
    assert [problem.split(";")[0].removeprefix(f"{HERE}:wrong: ") for problem in raised.value.problems] == [
        "task 'a': there is no field 'windw'",
        "task 2 is int",
        "task 3: name is missing",
        "task 'b': there are two of that name",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "names no provider"),
        ("tasks.toml", "names no provider"),
        ("nowhere:f", "there is no module 'nowhere'"),
        (f"{HERE}:NUMBER", "is int; it must be a function"),
        (f"{HERE}:Unbuildable", "raised OSError: no directory"),
        ("sql:sqlite:///x.db", "needs a query"),
        ("sql:#SELECT 1", "needs a query"),
        ("sql:file:/no/such#SELECT 1", "cannot be read"),
    ],
)
def test_what_is_no_provider_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        open_provider(text)


class TestSql:
    @pytest.fixture
    def database(self, tmp_path: Path) -> Path:
        pytest.importorskip("sqlalchemy")
        path = tmp_path / "tasks.db"
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(
                "CREATE TABLE t (name TEXT, subjects TEXT, window TEXT, model TEXT, sink TEXT, key TEXT, lease INT,"
                " timeout NUMERIC, columns TEXT)"
            )
            connection.execute(
                "INSERT INTO t VALUES ('a', ?, 'count:2', 'h:1', 'stdout', NULL, 0, 2.5, ?)",
                (json.dumps(["x.>", "y"]), json.dumps({"value": "v"})),
            )
        return path

    def test_a_row_is_a_task(self, database: Path) -> None:
        provider = open_provider(f"sql:sqlite:///{database}#SELECT * FROM t")
        [task] = asyncio.run(provider.tasks())
        assert task == StreamTask.from_dict(
            {
                "name": "a",
                "subjects": ["x.>", "y"],
                "window": "count:2",
                "model": {"address": "h:1", "timeout": 2.5},
                "sink": "stdout",
                "lease": False,
                "columns": {"value": "v"},
            }
        )
        asyncio.run(provider.close())

    def test_rows_come_and_go(self, database: Path) -> None:
        provider = open_provider(f"sql:sqlite:///{database}#SELECT * FROM t")
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("DELETE FROM t")
        assert asyncio.run(provider.tasks()) == []
        asyncio.run(provider.close())

    def test_a_url_comes_out_of_a_file(self, database: Path, tmp_path: Path) -> None:
        (tmp_path / "url").write_text(f"sqlite:///{database}\n")
        assert ask(f"sql:file:{tmp_path}/url#SELECT * FROM t") == ["a"]

    def test_a_query_that_fails_is_unavailable(self, database: Path) -> None:
        with pytest.raises(Unavailable, match="the provider's query failed: no such table: nope"):
            ask(f"sql:sqlite:///{database}#SELECT * FROM nope")

    def test_a_row_that_makes_no_sense_is_named(self, database: Path) -> None:
        with pytest.raises(ConfigError, match="sql: task 'a': there is no field 'colour'"):
            ask(f"sql:sqlite:///{database}#SELECT *, 'red' AS colour FROM t")

    @pytest.mark.parametrize("url", ["nonsense", "nosuch://u:s3cret@h/d", "postgresql+nosuch://u:s3cret@h/d"])
    def test_a_url_that_makes_no_sense_is_refused_without_its_password(self, url: str) -> None:
        pytest.importorskip("sqlalchemy")
        with pytest.raises(ConfigError, match="no URL of a database") as raised:
            open_provider(f"sql:{url}#SELECT 1")
        assert "s3cret" not in str(raised.value)

    def test_a_database_that_is_not_there_is_not_made(self, tmp_path: Path) -> None:
        pytest.importorskip("sqlalchemy")
        with pytest.raises(Unavailable, match=r"there is no database .*no.db; name one that is there"):
            ask(f"sql:sqlite:///{tmp_path}/no.db#SELECT 1")
        assert list(tmp_path.iterdir()) == []

    def test_of_its_tasks_those_are_given_that_are_wanted(self, database: Path) -> None:
        for names, expected in (((), ["a"]), (("a", "x"), ["a"]), (("x",), [])):
            provider = open_provider(f"sql:sqlite:///{database}#SELECT * FROM t", names)
            assert [task.name for task in asyncio.run(provider.tasks())] == expected
            asyncio.run(provider.close())

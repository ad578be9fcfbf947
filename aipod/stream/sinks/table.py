"""A table of results: its columns, and a result as a row of it.

``recorded_at`` is the writer's clock, and never goes back: it is what the order of a key's results is read from.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from sqlalchemy import BigInteger, Column, Engine, Float, Index, Integer, MetaData, Table, Text, inspect
from sqlalchemy.exc import NoSuchTableError

from aipod.errors import ConfigError
from aipod.stream.result import Recorded, Result

__all__ = ["KEY", "check_table", "key_of", "recorded_of", "result_of", "results_table", "row_of"]

KEY = ("task", "key", "window", "revision")


def results_table(name: str) -> Table:
    """Describe the table; ``name`` may begin with a schema and a dot."""
    schema, _, plain = name.rpartition(".")
    table = Table(
        plain,
        MetaData(),
        Column("task", Text, primary_key=True),
        Column("key", Text, primary_key=True),
        Column("window", Text, primary_key=True),
        Column("revision", Integer, primary_key=True, autoincrement=False),
        Column("start", Float(53), nullable=False),
        Column("end", Float(53), nullable=False),
        Column("reason", Text, nullable=False),
        Column("count", BigInteger, nullable=False),
        Column("first_seq", BigInteger, nullable=False),
        Column("last_seq", BigInteger, nullable=False),
        Column("members", Text, nullable=False),
        Column("source", Text),
        Column("dropped", Text, nullable=False),
        Column("result", Text, nullable=False),
        Column("recorded_at", Float(53), nullable=False),
        schema=schema or None,
    )
    Index(f"{plain}_recorded", table.c.task, table.c.recorded_at)
    Index(f"{plain}_members", table.c.task, table.c.last_seq)
    return table


def check_table(engine: Engine, table: Table) -> bool:
    """Whether the table is there.

    Raises:
        ConfigError: It is there, and cannot hold results.
    """
    look = inspect(engine)
    try:
        columns = {column["name"] for column in look.get_columns(table.name, table.schema)}
    except NoSuchTableError:
        return False
    if not columns:  # SQLite, where somebody made it while we were looking
        return False
    missing = [column.name for column in table.columns if column.name not in columns]
    if missing:
        raise ConfigError([f"table {table.fullname!r} has no column {', '.join(missing)}; name another, or add them"])
    primary = look.get_pk_constraint(table.name, table.schema)["constrained_columns"]
    constraints = [set(one["column_names"]) for one in look.get_unique_constraints(table.name, table.schema)]
    indexes = [set(one["column_names"]) for one in look.get_indexes(table.name, table.schema) if one["unique"]]
    if set(KEY) not in (set(primary), *constraints, *indexes):
        raise ConfigError([f"table {table.fullname!r} must have the primary key ({', '.join(KEY)})"])
    return True


def row_of(result: Result) -> dict[str, Any]:
    """Write a result as a row, but for ``recorded_at``.

    Raises:
        SerializationError: The model returned something that JSON cannot say.
    """
    recorded = result.recorded
    document = json.loads(result.encode())
    return {
        **key_of(result.task, recorded),
        "start": recorded.start,
        "end": recorded.end,
        "reason": recorded.reason,
        "count": result.count,
        "first_seq": recorded.first,
        "last_seq": recorded.last,
        "members": json.dumps(document["window"]["members"]),
        "source": recorded.source,
        "dropped": json.dumps(document["dropped"]),
        "result": json.dumps(document["result"], ensure_ascii=False),
    }


def key_of(task: str, recorded: Recorded) -> dict[str, Any]:
    """Give the part of a window's row that is the primary key."""
    return {"task": task, "key": _shown(recorded.key), "window": recorded.id, "revision": recorded.revision}


def recorded_of(row: Mapping[str, Any]) -> Recorded:
    """Read a row; members of ours, whoever made the table.

    Raises:
        ConfigError: Somebody else has written it.
    """
    try:
        members = tuple((int(first), int(last)) for first, last in json.loads(row["members"]))
        return Recorded(
            key=_read(row["key"]),
            id=row["window"],
            revision=row["revision"],
            start=row["start"],
            end=row["end"],
            reason=row["reason"],
            members=members,
            source=sys.intern(row["source"] or ""),  # one text for all that are recalled
        )
    except (ValueError, TypeError) as error:
        raise ConfigError([f"the row of window {row['window']!r}, key {row['key']!r} is none of ours"]) from error


def result_of(row: Mapping[str, Any]) -> Result:
    dropped = tuple((int(first), int(last)) for first, last in json.loads(row["dropped"]))
    return Result(row["task"], recorded_of(row), json.loads(row["result"]), dropped)


def _shown(key: str) -> str:
    # PostgreSQL's texts have no NUL.
    return key.replace("\\", "\\\\").replace("\0", "\\0")


def _read(text: str) -> str:
    pieces = text.split("\\\\")
    return "\\".join(piece.replace("\\0", "\0") for piece in pieces)

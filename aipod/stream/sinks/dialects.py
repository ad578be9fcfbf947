"""What a database means by its errors, and what it has to be told before it can be relied on.

SQLite says it in words, PostgreSQL in the codes of SQLSTATE (its manual, appendix A).
"""

from __future__ import annotations

import enum
import sqlite3
import time
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, IntegrityError

from aipod.errors import AipodError, ConfigError, Unavailable

__all__ = ["Meaning", "arguments_for", "as_error", "meaning_of", "prepare"]

_BUSY_SECONDS = 5.0
_PAUSE = 0.02
_CONNECT_SECONDS = 5
_STATEMENT_SECONDS = 30


class Meaning(enum.Enum):
    DUPLICATE = "that key is there"
    AGAIN = "try again at once"
    AWAY = "try again later"
    WRONG = "somebody must mend it"


# By their beginnings; the first that fits counts.
_SQLSTATES = {
    "40": Meaning.AGAIN,  # deadlock, or cannot be serialized
    "08": Meaning.AWAY,  # connection
    "25006": Meaning.AWAY,  # read only: a standby that is about to be promoted
    "53": Meaning.AWAY,  # no room, no memory, too many connections
    "55": Meaning.AWAY,  # locked, in use
    "57": Meaning.AWAY,  # cancelled, shutting down
    "58": Meaning.AWAY,  # the disk
    "": Meaning.WRONG,
}
# Of SQLite, and of a connection that PostgreSQL refused, which has no code.
_PHRASES = {
    "database is locked": Meaning.AWAY,
    "database table is locked": Meaning.AWAY,
    "disk is full": Meaning.AWAY,
    "disk i/o error": Meaning.AWAY,
    "authentication failed": Meaning.WRONG,
    "no password supplied": Meaning.WRONG,
    "does not exist": Meaning.WRONG,
    "no pg_hba.conf entry": Meaning.WRONG,
    "connection": Meaning.AWAY,
    "resolve": Meaning.AWAY,
    "timeout": Meaning.AWAY,
}


def meaning_of(error: DBAPIError) -> Meaning:
    if isinstance(error, IntegrityError):
        return Meaning.DUPLICATE
    state = getattr(error.orig, "sqlstate", None)
    if state:
        return next(meaning for start, meaning in _SQLSTATES.items() if state.startswith(start))
    text = str(error.orig).lower()
    for phrase, meaning in _PHRASES.items():
        if phrase in text:
            return meaning
    return Meaning.AWAY if error.connection_invalidated else Meaning.WRONG


def as_error(doing: str, error: DBAPIError) -> AipodError:
    """Say it in our own tree."""
    lines = str(error.orig).strip().splitlines()
    reason = lines[0] if lines else type(error.orig).__name__
    if meaning_of(error) is Meaning.WRONG:
        if "unable to open database file" in reason:
            reason += "; name a file in a directory that is there and that this user may write to"
        return ConfigError([f"{doing}: the database refuses: {reason}"])
    if "full" in reason or getattr(error.orig, "sqlstate", None) == "53100":
        reason = f"{reason}; the database's disk needs room"
    return Unavailable(f"{doing}: {reason}", may_have_run=True)


def arguments_for(url: URL) -> dict[str, Any]:
    """What the driver needs, so that no call lasts for ever."""
    if url.get_backend_name() == "sqlite":
        return {"timeout": _BUSY_SECONDS}
    if url.get_driver_name() in ("psycopg", "psycopg2"):
        # A server that vanished without a word is noticed within half a minute.
        alive = {"keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
        given = {"connect_timeout": _CONNECT_SECONDS, "tcp_user_timeout": 30_000, **alive}
        return {name: value for name, value in given.items() if name not in url.query}
    return {}


def prepare(engine: Engine) -> None:
    """Have each new connection told to be durable, and to give up in time."""
    statements = {
        "sqlite": ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL"),
        "postgresql": ("SET synchronous_commit TO on", f"SET statement_timeout TO {_STATEMENT_SECONDS * 1000}"),
    }.get(engine.dialect.name, ())

    @event.listens_for(engine, "connect")
    def tell(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        try:
            for statement in statements:
                _tell(cursor, statement)
        finally:
            cursor.close()
        connection.commit()


def _tell(cursor: Any, statement: str) -> None:
    # To become a WAL is refused at once, without SQLite's own patience, where another does the same to a new file.
    end = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            cursor.execute(statement)
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(_PAUSE)

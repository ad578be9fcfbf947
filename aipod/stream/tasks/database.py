"""The URL of a database, as SQLAlchemy reads it; which is imported when there is one to read."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from aipod.errors import ConfigError

__all__ = ["read_record_url", "read_url", "sqlite_file"]


def read_url(text: str) -> Any:
    """Read a URL into SQLAlchemy's; ``postgresql:`` alone means the driver psycopg.

    Raises:
        ConfigError: It is none; the sentence does not quote it, since it can hold a password.
    """
    try:
        sql: Any = importlib.import_module("sqlalchemy")
    except ImportError as error:
        raise ConfigError(["a database needs the package sqlalchemy: pip install 'aipod[stream]'"]) from error
    try:
        url = sql.make_url(text)
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        url.get_dialect()
    except (sql.exc.ArgumentError, sql.exc.NoSuchModuleError, ImportError, ValueError):
        raise ConfigError(
            ["that is no URL of a database; write sqlite:///results.db or postgresql://host/name"]
        ) from None
    return url


def read_record_url(text: str) -> Any:
    """The same, of a database that keeps what is written to it.

    Raises:
        ConfigError: As :func:`read_url`; or it keeps nothing.
    """
    url = read_url(text)
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise ConfigError(["a database in memory records nothing; name a file, such as sqlite:///results.db"])
    return url


def sqlite_file(url: Any) -> Path | None:
    """The file of a SQLite database; None for any other, one in memory, or one that is named in SQLite's own way."""
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:") or "uri" in url.query:
        return None
    return Path(url.database)

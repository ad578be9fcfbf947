"""The stream that takes a subject: found, made if asked, and checked."""

from __future__ import annotations

import re
from typing import Any

from aipod.errors import ConfigError, Unavailable
from aipod.stream.broker.connection import Connection
from aipod.stream.errors import NoTaker, Refused

__all__ = ["find_stream"]

_IN_USE = (10058, 10065)  # the name; the subject


async def find_stream(
    connection: Connection, pattern: str, *, name: str | None = None, create: bool = False, dedup: float = 120.0
) -> dict[str, Any]:
    """Find the stream that stores what is published to ``pattern``.

    Args:
        name: The stream's name; None for whichever it is, and for a name of ours where one is made.
        create: Make it if there is none.
        dedup: Seconds for which one that is made remembers what it has.

    Returns:
        Its configuration, as the broker gives it.

    Raises:
        NoTaker: There is none.
        Unavailable: The broker is away.
        ConfigError: It cannot be made, or what is there cannot do what a sink promises.
    """
    try:
        answer = await connection.api("STREAM.NAMES", {"subject": pattern})
        found = list(answer.get("streams") or ())
        if not found and create:
            found = [await _create(connection, name or re.sub(r"[^A-Za-z0-9_-]+", "-", pattern), pattern, dedup)]
        if not found:
            raise NoTaker(pattern)
        if len(found) > 1 or (name is not None and found != [name]):
            raise ConfigError(_misplaced(pattern, found, name))
        info = await connection.api(f"STREAM.INFO.{found[0]}")
    except Refused as error:
        if error.is_no_stream:  # it went in this very moment
            raise Unavailable(str(error)) from error
        raise ConfigError([str(error)]) from error
    except Unavailable as error:
        if why := connection.denial(error):
            raise ConfigError([f"the broker does not permit what is needed for subject {pattern!r}: {why}"]) from error
        raise
    config: dict[str, Any] = info["config"]
    problems = list(_problems(config))
    if problems:
        raise ConfigError(problems)
    return config


async def _create(connection: Connection, name: str, pattern: str, dedup: float) -> str:
    config = {"name": name, "subjects": [pattern], "duplicate_window": int(dedup * 1e9), "allow_direct": True}
    try:
        await connection.api(f"STREAM.CREATE.{name}", config)
    except Refused as error:
        if error.err_code not in _IN_USE:
            raise
        raise ConfigError(
            [f"a stream for subject {pattern!r} cannot be made as {name!r}: {error.description}; make it by hand"]
        ) from error
    return name


def _misplaced(pattern: str, found: list[str], name: str | None) -> list[str]:
    have = " and ".join(repr(one) for one in sorted(found))
    if name is None:
        return [f"subject {pattern!r} is in streams {have}; one stream must have all of it"]
    return [f"subject {pattern!r} is in {have}, not in {name!r} alone"]


def _problems(config: dict[str, Any]) -> list[str]:
    name = config["name"]
    problems = []
    if config.get("no_ack"):
        problems.append(f"stream {name!r} acknowledges nothing (no_ack), so nobody knows what it has")
    if config.get("persist_mode") == "async":
        problems.append(f"stream {name!r} acknowledges what it has not stored yet (persist_mode async)")
    if config.get("sealed"):
        problems.append(f"stream {name!r} is sealed and takes nothing")
    if config.get("mirror"):
        problems.append(f"stream {name!r} is a mirror and takes nothing")
    return problems

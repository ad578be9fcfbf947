"""A task as a table, which is what a file, a row of a database and the flags of a command all come down to.

====================================================================  ==================================================
``name``                                                              of the task
``nats``                                                              a URL, a list of them, or a table of ``servers``,
                                                                      ``user``, ``password``, ``token``, ``creds``,
                                                                      ``nkey_seed``, ``tls_ca``, ``tls_cert``,
                                                                      ``tls_key``, ``domain``, ``name``
``subject`` or ``subjects``, ``stream``, ``durable``, ``start``,      the source
``ack_wait``, ``max_ack_pending``, ``max_bytes``, ``on_deleted``
``decode``, ``key``, ``time``, ``time_unit``                          how a message is read
``window``, ``lateness``, ``max_wait``, ``max_messages``,             a text such as ``"count:32"``, and what else there
``max_ahead``, ``late``, ``retain``, ``early``, ``align``             is to say; or all of it as one table
``prepare`` or ``columns``                                            what the model is given
``model``, ``version``, ``timeout``, ``concurrency``                  the model; ``model`` may be a table of the others
                                                                      with ``address``
``sink`` or ``sinks``                                                 a text, a table, or a list of them
``dead_letters``                                                      a subject, or a table
``pressure``, ``lease``, ``lease_ttl``, ``partitions``                how it runs
====================================================================  ==================================================

``password``, ``user`` and ``token`` may be ``file:PATH``. A field that is None is one that is not given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from aipod.config.kinds import Kind, choice, whole
from aipod.errors import ConfigError
from aipod.stream.broker.address import Connect
from aipod.stream.tasks.items import (
    ABSENT,
    WRONG,
    Part,
    duration,
    existing_file,
    item,
    maybe,
    nearest,
    number,
    read_items,
    secret,
    word,
)
from aipod.stream.tasks.model import DeadSpec, ModelSpec
from aipod.stream.tasks.sinkspec import split_model
from aipod.stream.tasks.source import Source
from aipod.stream.windows import WindowSpec

__all__ = ["ALIASES", "KNOWN", "parts_of", "renamed", "subjects_of"]

P = TypeVar("P", bound=Part)

ALIASES = {"subject": "subjects", "sink": "sinks"}

_SOURCE = ("stream", "subjects", "durable", "start", "ack_wait", "max_ack_pending", "max_bytes", "on_deleted")
_MODEL = ("version", "timeout", "concurrency")
# Fields of the task itself.
_PLAIN = (
    *("name", "sinks", "decode", "key", "time", "time_unit", "prepare", "columns"),
    *("pressure", "lease", "lease_ttl", "partitions"),
)


def _servers() -> Kind[tuple[str, ...]]:
    def read(value: object) -> tuple[str, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
            raise TypeError(value)
        return tuple(part.strip() for part in parts)

    return Kind("the URL of a NATS server, such as nats://localhost:4222, or a list of them", read)


@dataclass(frozen=True)
class _Nats(Part):
    """What :class:`Connect` takes, with secrets out of files; hidden where the secret itself can stand by mistake."""

    servers: tuple[str, ...] | None = item(maybe(_servers()), None, hidden=True)
    user: str | None = item(secret(), None, hidden=True)
    password: str | None = item(secret(), None, hidden=True)
    token: str | None = item(secret(), None, hidden=True)
    creds: str | None = item(existing_file(), None, hidden=True)
    nkey_seed: str | None = item(existing_file(), None, hidden=True)
    tls_ca: str | None = item(existing_file(), None)
    tls_cert: str | None = item(existing_file(), None)
    tls_key: str | None = item(existing_file(), None, hidden=True)
    domain: str | None = item(maybe(word(r".*", "a text")), None)
    name: str | None = item(maybe(word(r".+", "a text")), None)


_BOUNDS = ("kind", "size", "step")
# What may stand beside a window's text, and in its table.
_WINDOW: dict[str, Kind[Any]] = {
    "lateness": duration(0.0),
    "max_wait": duration(0.001),
    "max_messages": whole(1),
    "max_ahead": duration(0.0),
    "late": choice("drop", "dead_letter", "amend"),
    "retain": duration(0.0),
    "early": whole(0),
    "align": number(-1e12, 1e12),
}

KNOWN = (*_PLAIN, "nats", *_SOURCE, "window", *_WINDOW, "model", *_MODEL, "dead_letters")


def renamed(table: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Give each field its one name, drop those that are None, and say which are no fields."""
    given: dict[str, Any] = {}
    problems = []
    for name, value in table.items():
        field = ALIASES.get(name, name)
        if value is None:
            continue
        if field not in KNOWN:
            problems.append(f"there is no field {name!r}; {_hint(name)}")
        elif field in given:
            problems.append(f"{name} and {_other(name)} are the same field; keep one")
        else:
            given[field] = value
    return given, problems


def _hint(name: object) -> str:
    hint = nearest(str(name), (*KNOWN, *ALIASES))
    return hint if hint.startswith("the nearest") else "the documentation lists those that there are"


def _other(name: str) -> str:
    return ALIASES.get(name) or next(alias for alias, field in ALIASES.items() if field == name)


def parts_of(table: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Take a table apart into the fields of a task.

    Returns:
        The fields, those that are no parts of their own still to be read, and the problems.
    """
    given, problems = renamed(table)
    parts = {name: given[name] for name in _PLAIN if name in given}
    for name in ("name", "sinks"):
        parts.setdefault(name, ABSENT)
    builders: dict[str, Callable[[Mapping[str, Any]], Any]] = {
        "source": _source,
        "window": _window,
        "model": _model,
        "dead_letters": _dead_letters,
    }
    for name, build in builders.items():
        try:
            parts[name] = build(given)
        except ConfigError as error:
            parts[name] = WRONG
            problems += error.problems
    return parts, problems


def _source(given: Mapping[str, Any]) -> Source:
    parts = {name: given[name] for name in _SOURCE if name in given}
    parts.setdefault("subjects", ABSENT)
    parts.setdefault("durable", f"aipod-{_slug(given.get('name'))}")
    problems = []
    try:
        parts["connect"] = _connect(given.get("nats", {}))
        return Source(**parts)
    except ConfigError as error:
        problems += error.problems
    if "connect" not in parts:
        good, more = read_items(Source, parts)
        problems += more + Source.cross(good)
    raise ConfigError(problems)


def subjects_of(table: Mapping[str, Any]) -> tuple[str, ...]:
    """Read the subjects alone, whatever else is wrong; none if they are."""
    given, _ = renamed(table)
    good, _ = read_items(Source, {"subjects": given.get("subjects", WRONG)})
    return tuple(good.get("subjects", ()))


def _slug(name: object) -> str:
    # Of a name that is none, which is said elsewhere, nothing more is to be said.
    return re.sub(r"[^A-Za-z0-9_-]", "-", str(name))[:100]


def _connect(value: object) -> Connect:
    table = value if isinstance(value, Mapping) else {"servers": value}
    nats = _part(_Nats, table, "nats")
    given = {field.name: getattr(nats, field.name) for field in fields(nats)}
    try:
        return Connect(**{name: kept for name, kept in given.items() if kept is not None})
    except ConfigError as error:
        raise ConfigError([f"nats: {problem}" for problem in error.problems]) from error


def _window(given: Mapping[str, Any]) -> WindowSpec:
    value = given.get("window", ABSENT)
    own = {name: given[name] for name in _WINDOW if name in given}
    problems: list[str] = []
    if isinstance(value, Mapping):
        bounds = [str(value[name]) for name in _BOUNDS if name in value]
        strangers = [name for name in value if name not in (*_BOUNDS, *_WINDOW)]
        problems += [f"window: there is no field {name!r}; {nearest(str(name), _WINDOW)}" for name in strangers]
        own = {**{name: value[name] for name in _WINDOW if name in value}, **own}
        value = ":".join(bounds)
    more, wrong = _options(own)
    if not problems:
        problems += wrong
        try:
            spec = _spec(value, more)
        except ConfigError as error:
            problems += [f"window: {problem}" for problem in error.problems]
    if problems:
        raise ConfigError(problems)
    return spec


def _options(own: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    options, problems = {}, []
    for name, value in own.items():
        try:
            options[name] = _WINDOW[name].read(value)
        except (ValueError, TypeError, OverflowError):
            problems.append(f"{name} is {value!r}; it must be {_WINDOW[name].allowed}")
    return options, problems


def _spec(value: object, more: dict[str, Any]) -> WindowSpec:
    if isinstance(value, WindowSpec):
        return replace(value, **more)
    if not isinstance(value, str) or not value.strip():
        raise ConfigError([f'it is {value!r}; write a text such as "count:32" or "tumbling:60s"'])
    return WindowSpec.parse(value, **more)


def _model(given: Mapping[str, Any]) -> ModelSpec:
    value = given.get("model", ABSENT)
    own = {name: given[name] for name in _MODEL if name in given}
    if isinstance(value, Mapping):
        return _part(ModelSpec, {"address": ABSENT, **value, **own}, "model")
    table = {"address": value, **own}
    if isinstance(value, str):
        try:
            table["address"], version = split_model(value)
        except ConfigError as error:
            raise ConfigError([f"model: {problem}" for problem in error.problems]) from error
        if version is not None and "version" in own:
            raise ConfigError([f"model: the version is given twice, in {value!r} and as version; keep one"])
        if version is not None:
            table["version"] = version
    return _part(ModelSpec, table, "model")


def _dead_letters(given: Mapping[str, Any]) -> DeadSpec:
    value = given.get("dead_letters", {})
    return _part(DeadSpec, value if isinstance(value, Mapping) else {"subject": value}, "dead_letters")


def _part(cls: type[P], table: Mapping[str, Any], place: str) -> P:
    known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    problems = [
        f"{place}: there is no field {name!r}; {nearest(str(name), known)}" for name in table if name not in known
    ]
    try:
        part = cls(**{name: value for name, value in table.items() if name in known})
    except ConfigError as error:
        problems = [f"{place}: {problem}" for problem in error.problems] + problems
    if problems:
        raise ConfigError(problems)
    return part

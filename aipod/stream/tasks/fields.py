"""Fields of decoded values: ``device``, ``position.x``, ``values.0``; ``.`` is the value itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aipod.errors import ConfigError
from aipod.stream.errors import Unreadable

__all__ = ["Getter", "getter"]

Getter = Callable[[Any], Any]

# What looking for a field in a value of the wrong sort raises; a structured array has a ValueError for it.
_LOOKUP = (LookupError, TypeError, ValueError)


def getter(path: str) -> Getter:
    """Build what takes a field out of a value, and raises :class:`Unreadable` where there is none.

    Raises:
        ConfigError: That is no path.
    """
    if path == ".":
        return lambda value: value
    names = path.split(".")
    if "" in names or len(path) > 256:
        raise ConfigError([f"{path!r} is no field; write name, or outer.inner"])
    return _one(path) if len(names) == 1 else _deep(names, path)


def _one(name: str) -> Getter:
    missing = f"there is no field {name!r}"
    place = _place(name)

    def get(value: Any) -> Any:
        try:
            return value[name]
        except _LOOKUP:
            if place is not None and isinstance(value, list) and place < len(value):
                return value[place]
            raise Unreadable(missing) from None

    return get


def _deep(names: list[str], path: str) -> Getter:
    steps = [_one(name) for name in names]

    def get(value: Any) -> Any:
        try:
            for step in steps:
                value = step(value)
        except Unreadable:
            raise Unreadable(f"there is no field {path!r}") from None
        return value

    return get


def _place(name: str) -> int | None:
    return int(name) if name.isascii() and name.isdecimal() and len(name) < 10 else None

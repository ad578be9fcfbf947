"""Frozen data that reads itself: each field has a kind, as each of the server's settings has.

So a task means the same whether it comes from a file, a database or Python, texts and values alike ("10s" is 10.0), and
all that is wrong with it is said at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from aipod.config.kinds import Kind, flag
from aipod.errors import ConfigError

__all__ = [
    "ABSENT",
    "WRONG",
    "Part",
    "defaults_of",
    "duration",
    "existing_file",
    "item",
    "maybe",
    "nearest",
    "number",
    "one",
    "read_items",
    "read_secret",
    "secret",
    "word",
    "yes_or_no",
]

T = TypeVar("T")

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+) ?(ms|s|m|h|d)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}
_SHOWN = 64
_LIKENESS = 0.6


class _Mark:
    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


# What stands for a field that has no default and was not given, and for one about which all has been said.
ABSENT: Any = _Mark("missing")
WRONG: Any = _Mark("wrong")


def item(kind: Kind[Any], default: Any = dataclasses.MISSING, *, hidden: bool = False) -> Any:
    """Declare a field of a :class:`Part`; the value of a ``hidden`` one appears in no error.

    Where ``default`` is a class, such as ``dict``, each has one of its own.
    """
    metadata = {"kind": kind, "hidden": hidden}
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata, repr=not hidden)


class Part:
    """Base of frozen dataclasses whose fields are declared with :func:`item`.

    Raises:
        ConfigError: With one sentence for each field that is wrong.
    """

    def __post_init__(self) -> None:
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        good, problems = read_items(type(self), given)
        for name, value in good.items():
            object.__setattr__(self, name, value)
        problems += self.cross(good)
        if problems:
            raise ConfigError(problems)

    @classmethod
    def cross(cls, good: Mapping[str, Any]) -> list[str]:
        """Say what is wrong with fields together; ``good`` has those that are right by themselves."""
        return []


def read_items(cls: type[Part], given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Read the fields that are given: those that are right, and a sentence for each problem."""
    good: dict[str, Any] = {}
    problems: list[str] = []
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if given.get(field.name, WRONG) is WRONG:
            continue
        kind, value = field.metadata["kind"], given[field.name]
        try:
            good[field.name] = kind.read(value)
        except ConfigError as error:
            # Of one in a list, the problem begins with its place.
            problems += [
                f"{field.name}{'' if problem.startswith('[') else ': '}{problem}" for problem in error.problems
            ]
        except (ValueError, TypeError, OverflowError):
            shown = "not what it must be" if field.metadata["hidden"] and value is not ABSENT else _shown(value)
            problems.append(f"{field.name} is {shown}; it must be {kind.allowed}")
    return good, problems


def defaults_of(cls: type[Part]) -> dict[str, Any]:
    """List the defaults of the fields that have one."""
    defaults = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.default is not dataclasses.MISSING:
            defaults[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            defaults[field.name] = field.default_factory()
    return defaults


def nearest(name: str, known: Collection[str]) -> str:
    """Say what somebody who wrote ``name`` can have meant."""
    close = difflib.get_close_matches(name.casefold(), known, n=1, cutoff=_LIKENESS)
    return f"the nearest is {close[0]}" if close else f"there are {', '.join(known)}"


def duration(low: float, high: float = 365 * 86400.0) -> Kind[float]:
    """Seconds, as a number or as "250ms", "10s", "5m", "1h", "1d"."""

    def read(value: object) -> float:
        if isinstance(value, str):
            match = _DURATION.fullmatch(value.strip())
            if match is None:
                raise ValueError(value)
            value = float(match[1]) * _SECONDS[match[2]]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(value)
        if not (math.isfinite(value) and low <= value <= high):
            raise ValueError(value)
        return float(value)

    return Kind(f'seconds from {low:.15g} to {high:.15g}, as a number or like "250ms", "10s", "5m", "1h"', read)


def number(low: float, high: float) -> Kind[float]:
    """A number above ``low`` and up to ``high``."""

    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(value)
        if not low < value <= high:
            raise ValueError(value)
        return float(value)

    return Kind(f"a number above {low:.15g} and at most {high:.15g}", read)


def yes_or_no() -> Kind[bool]:
    """True or false, also as the 1 or 0 that databases without truth values have."""
    kind = flag()
    return Kind(kind.allowed, lambda value: bool(value) if type(value) is int and value in (0, 1) else kind.read(value))


def word(pattern: str, allowed: str) -> Kind[str]:
    """A text that matches a regular expression from its beginning to its end."""
    compiled = re.compile(pattern)

    def read(value: object) -> str:
        if not isinstance(value, str):
            raise TypeError(value)
        if not compiled.fullmatch(value.strip()):
            raise ValueError(value)
        return value.strip()

    return Kind(allowed, read)


def one(cls: type[T], allowed: str) -> Kind[T]:
    """An instance of a class, as it is."""

    def read(value: object) -> T:
        if not isinstance(value, cls):
            raise TypeError(value)
        return value

    return Kind(allowed, read)


def maybe(kind: Kind[T]) -> Kind[T | None]:
    """What ``kind`` takes, or None."""
    return Kind(kind.allowed, lambda value: None if value is None else kind.read(value))


def secret() -> Kind[str | None]:
    """A text, or ``file:PATH`` of a file that holds it, so that it need not stand beside the rest."""

    def read(value: object) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str):
            raise TypeError(value)
        if value.startswith("file:"):
            value = read_secret(value.removeprefix("file:"))
        if not value or not value.isprintable():
            raise ValueError("hidden")
        return value

    return Kind("a text in one line, or file:PATH of a file that holds it", read)


def read_secret(path: str) -> str:
    """Read the one line of a file.

    Raises:
        ConfigError: It cannot be read, or is empty.
    """
    try:
        text = Path(path).read_text("utf-8-sig").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError([f"the file that file:{path} names cannot be read ({reason})"]) from error
    if not text:
        raise ConfigError([f"the file that file:{path} names is empty"])
    return text


def existing_file() -> Kind[str | None]:
    def read(value: object) -> str | None:
        if value is None:
            return None
        path = os.fspath(value)  # type: ignore[call-overload]
        if not isinstance(path, str) or not Path(path).is_file():
            raise ValueError(value)
        return path

    return Kind("the path of a file that is there", read)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"

"""``module:function``, as it is written in a task, to the function."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aipod.errors import ConfigError
from aipod.stream.errors import Unreadable

__all__ = ["find", "for_messages", "is_target", "load", "plain", "sentence"]

# What a user's function can raise; it may well call sys.exit().
FAILURES = (Exception, SystemExit)

_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def is_target(text: str) -> bool:
    """Whether a text has the form of ``module:function``."""
    return _TARGET.fullmatch(text) is not None


def load(target: str) -> Callable[..., Any]:
    """Import the function that ``target`` names.

    Raises:
        ConfigError: As :func:`find`, or it cannot be called.
    """
    found = find(target)
    if not callable(found):
        raise ConfigError([f"{target} is {type(found).__name__}, and cannot be called"])
    return found  # type: ignore[no-any-return]


def find(target: str) -> Any:
    """Import what ``target`` names, with the current directory on ``sys.path``.

    Raises:
        ConfigError: There is no such thing, or its module does not import.
    """
    if not is_target(target):
        raise ConfigError([f"{target!r} names no function; write module:function"])
    module_name, _, name = target.partition(":")
    found: Any = _module(module_name)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise ConfigError([f"{module_name} has no {name!r}"])
    return found


def plain(target: str) -> Callable[..., Any]:
    """Load a function that is called on the event loop.

    Raises:
        ConfigError: There is none, or it is a coroutine's.
    """
    function = load(target)
    asked = (function, getattr(function, "__call__", None))  # noqa: B004 - of an object, what runs is its method
    if any(inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each) for each in asked):
        raise ConfigError([f"{target} is async; it is called between messages and cannot wait, so write a plain def"])
    return function


def for_messages(target: str) -> Callable[[Any], Any]:
    """Load a function that is called for each message; whatever it raises, the message is :class:`Unreadable`.

    Raises:
        ConfigError: There is none, or it is a coroutine's.
    """
    function = plain(target)

    def call(argument: Any) -> Any:
        try:
            return function(argument)
        except Unreadable:
            raise
        except FAILURES as error:
            raise Unreadable(sentence(target, error)) from error

    return call


def sentence(target: str, error: BaseException) -> str:
    """Say what a user's function raised; its text can fail as well."""
    try:
        text = " ".join(str(error).split())
    except FAILURES:
        text = ""
    return f"{target} raised {type(error).__name__}{': ' if text else ''}{text}"


def _module(name: str) -> Any:
    # First, as for a script; a directory that is there already keeps its place.
    here = str(Path.cwd())
    if here not in map(os.path.abspath, sys.path):
        sys.path.insert(0, here)
    # What was written since this process last looked is found, too.
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    # A module can end the process, or be the script that does.
    except FAILURES as error:
        # What is missing can also be something that the module itself imports.
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{name}.".startswith(f"{missing}."):
            raise ConfigError([f"there is no module {missing!r} in this directory or among those installed"]) from error
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError([f"{name} does not import ({reason})"]) from error

"""Windows to the keywords of ``predict``.

Without a word from the task: ``predict(messages=[value, …], window={…})``. With ``columns``, each of its arguments is
an array of one field of all messages. Otherwise what the user's ``module:function`` makes of the window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aipod.errors import AipodError, ConfigError, ModelError
from aipod.stream.tasks import functions
from aipod.stream.tasks.columns import Column
from aipod.stream.windows import Window

__all__ = ["Prepare", "preparing", "window_of"]

# Raises InvalidArgument where the messages are to blame, and ModelError where the user's function failed.
Prepare = Callable[[Window], dict[str, Any]]


def window_of(window: Window) -> dict[str, Any]:
    """What a model is told of its window; times in unix seconds."""
    return {
        "key": window.key,
        "id": window.id,
        "start": window.start,
        "end": window.end,
        "count": len(window.messages),
        "reason": window.reason,
    }


def preparing(prepare: str, columns: Mapping[str, str]) -> Prepare:
    """Build what makes keywords of a window; cheap enough for the event loop if the user's function is.

    Raises:
        ConfigError: There is no such function, or a column that makes no sense.
    """
    if prepare and columns:
        raise ConfigError(["prepare and columns exclude each other; drop one"])
    if prepare:
        return _of_user(prepare)
    return _of_columns(columns) if columns else _whole


def _whole(window: Window) -> dict[str, Any]:
    return {"messages": [message.value for message in window.messages], "window": window_of(window)}


def _of_columns(columns: Mapping[str, str]) -> Prepare:
    problems = []
    made = []
    for name, path in columns.items():
        if name == "window":
            problems.append("columns: predict gets the window itself as 'window'; give the column another name")
        try:
            made.append((name, Column(name, path)))
        except ConfigError as error:
            problems += [f"columns: {name}: {problem}" for problem in error.problems]
    if problems:
        raise ConfigError(problems)

    def prepare(window: Window) -> dict[str, Any]:
        values = [message.value for message in window.messages]
        return {**{name: column.take(values) for name, column in made}, "window": window_of(window)}

    return prepare


def _of_user(target: str) -> Prepare:
    try:
        function = functions.plain(target)
    except ConfigError as error:
        raise ConfigError([f"prepare: {problem}" for problem in error.problems]) from error

    def prepare(window: Window) -> dict[str, Any]:
        try:
            keywords = function(window)
        except AipodError:
            raise
        except functions.FAILURES as error:
            raise ModelError(functions.sentence(target, error), type=type(error).__name__) from error
        if not isinstance(keywords, dict) or not all(isinstance(name, str) for name in keywords):
            # Not the messages' fault, whatever they are: nothing of theirs may be lost for it.
            raise ConfigError([f"{target} returned {type(keywords).__name__}; it must return the keywords of predict"])
        return keywords

    return prepare

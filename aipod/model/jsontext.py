"""JSON as 1.0 wrote it, and an error that names the culprit where JSON cannot hold a value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aipod.errors import InvalidArgument

__all__ = ["dumps", "keep_plain"]


def dumps(fields: Mapping[str, Any], kind: str, file: str, indent: int | None = None) -> str:
    """One JSON object, text outside ASCII as it is; numpy's scalars become numbers.

    Args:
        fields: The members.
        kind: What a member is called in an error: ``"parameter"``.
        file: Where the text is meant to go, for an error.

    Raises:
        InvalidArgument: A member that JSON in UTF-8 cannot hold, by name.
    """
    try:
        return _text(fields, indent)
    except _REFUSALS:
        pass
    # Only now one by one, to find out which it is.
    for name, value in fields.items():
        try:
            _text({name: value}, None)
        except _REFUSALS as error:
            raise InvalidArgument(
                f"{kind} {name!r} cannot be kept in {file} ({error}); pass numbers, text, lists and dicts,"
                " and write anything else to a file of the model's own"
            ) from None
    raise InvalidArgument(f"the {kind}s cannot be kept in {file} together")


def keep_plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The members that JSON can hold, as reading them back will give them."""
    kept: dict[str, Any] = {}
    for name, value in fields.items():
        try:
            kept.update(json.loads(_text({name: value}, None)))
        except _REFUSALS:
            continue
    return kept


_REFUSALS = (TypeError, ValueError, RecursionError)


def _text(fields: Mapping[str, Any], indent: int | None) -> str:
    text = json.dumps(dict(fields), indent=indent, ensure_ascii=False, default=_plain)
    text.encode()  # half a surrogate pair is a str to Python, and no text to anybody else
    return text


def _plain(value: object) -> object:
    # A numpy scalar is recognised by what it can do: this floor does not import numpy.
    item = getattr(value, "item", None)
    if item is not None and getattr(value, "shape", None) == ():
        plain = item()
        if isinstance(plain, (bool, int, float, str)):
            return plain
    raise TypeError(f"it holds a value of type {type(value).__name__}")

"""Where in a value something is, written as its owner would write it.

A place is the place of the container and the key or index in it, down to ``(None, root)``: a tuple per step, so that a
walk pays next to nothing for it and the text is made only for an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["Place", "walk", "written"]

Place = tuple[Any, Any]

_LONGEST_KEY = 64


def written(place: Place) -> str:
    """Write a place: ``kwargs["a"][3]``."""
    steps: list[str] = []
    while place[0] is not None:
        place, step = place
        steps.append(f"[{step}]" if type(step) is int else f"[{_quoted(step)}]")
    return str(place[1]) + "".join(reversed(steps))


def walk(value: Any, place: Place) -> Iterator[tuple[Place, Any]]:
    """Yield every value in a value of dicts, lists and tuples, each before what is inside it."""
    yield place, value
    if type(value) is dict:
        for key, item in value.items():
            yield from walk(item, (place, key))
    elif type(value) is list or type(value) is tuple:
        for index, item in enumerate(value):
            yield from walk(item, (place, index))


def _quoted(key: str) -> str:
    text = repr(key if len(key) <= _LONGEST_KEY else key[:_LONGEST_KEY] + "…")[1:-1].replace('"', '\\"')
    return f'"{text}"'

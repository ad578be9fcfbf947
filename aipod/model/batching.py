"""``predict`` of a class that has ``predict_batch``: calls put together, and what comes of them taken apart.

Used by the engine for as many calls as wait, and by :meth:`AIModelBase.predict` for the one that it is given.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy

from aipod.errors import ModelError
from aipod.model import stacking

__all__ = ["UNREAD", "BatchPredict", "Entry", "problems"]

_RAGGED = ("apart", "pad")
_PLAIN = frozenset({str, int, float, bool, bytes, type(None)})


class Entry(NamedTuple):
    """What one call brings to a batch: only calls with equal keys share one."""

    key: Hashable
    values: dict[str, Any]


UNREAD = Entry(None, {})


class BatchPredict:
    """The ``predict_batch`` of an instance.

    Args:
        instance: Of a class that has one.

    Attributes:
        method: The bound method; takes what :meth:`inputs` gives.
    """

    def __init__(self, instance: Any) -> None:
        self.method: Callable[[Any], Any] = instance.predict_batch
        self._key: Callable[[dict[str, Any]], Hashable] = instance.batch_key
        self._stacked: bool = instance.stacked
        self._pads: bool = instance.ragged == "pad"
        self._pad_value: float = instance.pad_value

    def __call__(self, **kwargs: Any) -> Any:
        """Answer one call alone; gives a coroutine if ``predict_batch`` is one."""
        outputs = self.method(self.inputs([self.enter(kwargs)]))
        return self._awaited(outputs) if inspect.isawaitable(outputs) else self._only(outputs)

    def enter(self, kwargs: dict[str, Any]) -> Entry:
        """Make a call's arguments ready for a batch.

        Raises:
            InvalidArgument: They cannot be stacked.
            ModelError: The class's key is none. Whatever else ``batch_key`` raises passes through.
        """
        key = self._key(kwargs)
        if not _is_plain(key):
            raise ModelError(f"batch_key() returned {_name(key)}; return text, a number, None, or a tuple of those")
        if not self._stacked:
            return Entry(key, kwargs)
        values = stacking.arrays(kwargs)
        return Entry((key, stacking.signature(values, self._pads)), values)

    def inputs(self, entries: Sequence[Entry]) -> Any:
        """The argument of ``predict_batch`` for entries of one key."""
        values = [entry.values for entry in entries]
        return stacking.stack(values, self._pad_value) if self._stacked else values

    def split(self, outputs: Any, count: int) -> list[Any]:
        """One output per call, in their order.

        Raises:
            ModelError: There are more or fewer of them, or it is nothing that has one for each.
        """
        wanted = "an array or a list, or a dictionary or a tuple of those," if self._stacked else "a list"
        try:
            if self._stacked:
                found = stacking.split(outputs, count)
            else:
                found = list(outputs) if _is_row(outputs) and len(outputs) == count else None
        except Exception as error:
            # What a model returns can fail in any way while it is looked at.
            raise ModelError(f"predict_batch() returned what cannot be read ({type(error).__name__})") from None
        if found is None:
            what = f"{len(outputs)} outputs" if _is_row(outputs) else _name(outputs)
            raise ModelError(f"predict_batch() returned {what} for {count} inputs; return {wanted} with one for each")
        return found

    async def _awaited(self, outputs: Any) -> Any:
        return self._only(await outputs)

    def _only(self, outputs: Any) -> Any:
        [output] = self.split(outputs, 1)
        if isinstance(output, BaseException):
            raise output
        return output


def problems(cls: type[Any]) -> list[str]:
    """What makes no sense of a class's choices for its batches, one sentence each."""
    found = []
    if not isinstance(cls.stacked, bool):
        found.append(f"stacked of the model class is {cls.stacked!r}; it must be True or False")
    if cls.ragged not in _RAGGED:
        found.append(f"ragged of the model class is {cls.ragged!r}; it must be one of {', '.join(_RAGGED)}")
    if isinstance(cls.pad_value, bool) or not isinstance(cls.pad_value, (int, float)):
        found.append(f"pad_value of the model class is {cls.pad_value!r}; it must be a number")
    return found


def _is_plain(key: object) -> bool:
    # Others might run code of the author's whenever two keys are compared.
    return type(key) in _PLAIN or (type(key) is tuple and all(map(_is_plain, key)))


def _is_row(outputs: object) -> bool:
    return isinstance(outputs, (list, tuple)) or (isinstance(outputs, numpy.ndarray) and outputs.ndim > 0)


def _name(value: object) -> str:
    return "None" if value is None else type(value).__name__

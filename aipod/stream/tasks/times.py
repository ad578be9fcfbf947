"""A message's own time, as unix seconds.

It is found as a key is (:mod:`aipod.stream.tasks.keys`). Numbers, and texts that are numbers, are in the task's unit;
other texts are ISO 8601, and those without an offset are in UTC, since the zone of the machine that reads them has
nothing to do with it.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable

import numpy as np

from aipod.errors import ConfigError
from aipod.stream.errors import Unreadable
from aipod.stream.message import Message
from aipod.stream.tasks.items import nearest
from aipod.stream.tasks.keys import finder

__all__ = ["UNITS", "time_finder"]

# How many of each make a second.
UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
# The years 1 to 9999.
_EARLIEST, _LATEST = -62_135_596_800.0, 253_402_300_800.0
_UTC = datetime.timezone.utc
_NUMBER = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]{0,30})?([eE][+-]?[0-9]{1,2})?")
_ISO = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,12}))?)?"
    r"\s?(?:([Zz])|([+-])([0-9]{2})(?::?([0-9]{2}))?)?)?"
)


def time_finder(text: str, unit: str) -> Callable[[Message], float] | None:
    """Build what finds a message's time; None where it is the server's timestamp.

    Raises:
        ConfigError: The text says no time, or there is no such unit.
    """
    if unit not in UNITS:
        raise ConfigError([f"there is no unit of time {unit!r}; {nearest(unit, UNITS)}"])
    if text == "stored":
        return None
    find, per_second = finder(text, "time"), UNITS[unit]

    def time(message: Message) -> float:
        found = find(message)
        kind = type(found)
        # NaN is neither above the one nor below the other.
        if (kind is float or kind is int) and _EARLIEST <= (seconds := _divided(found, per_second)) < _LATEST:
            return seconds
        return _as_time(found, per_second, text)

    return time


def _divided(number: float, per_second: float) -> float:
    try:
        return number / per_second
    except OverflowError:
        return math.inf


def _as_time(found: object, per_second: float, text: str) -> float:
    if isinstance(found, np.generic) and not isinstance(found, (np.datetime64, np.timedelta64)):
        found = found.item()
    if isinstance(found, datetime.datetime):
        seconds = (found if found.tzinfo else found.replace(tzinfo=_UTC)).timestamp()
    elif isinstance(found, np.datetime64) and not np.isnat(found):
        seconds = found.astype("datetime64[us]").astype("int64").item() / 1e6
    elif isinstance(found, str):
        seconds = _of_text(found.strip(), per_second, text)
    elif isinstance(found, (int, float)) and not isinstance(found, bool):
        seconds = _divided(found, per_second)
    else:
        what = "null" if found is None else type(found).__name__
        raise Unreadable(f"the time {text!r} is {what}; a time is a number or a text in ISO 8601")
    if not _EARLIEST <= seconds < _LATEST:
        raise Unreadable(f"the time {text!r} is {_cut(found)}, which is outside the years 1 to 9999; look at time_unit")
    return seconds


def _of_text(found: str, per_second: float, text: str) -> float:
    if _NUMBER.fullmatch(found):
        return float(found) / per_second
    match = _ISO.fullmatch(found)
    try:
        if match is None:
            raise ValueError(found)
        return _of_iso(match)
    except (ValueError, OverflowError):
        raise Unreadable(f"the time {text!r} is {_cut(found)}, which is no ISO 8601 and no number") from None


def _of_iso(match: re.Match[str]) -> float:
    # By hand, since what datetime.fromisoformat reads differs from one Python to the next.
    year, month, day, hour, minute, second, fraction, _zulu, sign, hours, minutes = match.groups(default="0")
    moment = datetime.datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), tzinfo=_UTC)
    offset = 0
    if sign in "+-":
        if int(hours) > 23 or int(minutes) > 59:
            raise ValueError(match[0])
        offset = (int(hours) * 60 + int(minutes)) * (60 if sign == "+" else -60)
    return moment.timestamp() + float(f"0.{fraction}") - offset


def _cut(found: object) -> str:
    if isinstance(found, int) and found.bit_length() > 256:
        # Python refuses to write the longest ones out.
        return f"a number of {found.bit_length()} bits"
    shown = repr(found) if isinstance(found, str) else str(found)
    return shown if len(shown) <= 64 else shown[:64] + "…"

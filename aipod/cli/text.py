"""Text as a terminal shows it: in one line, in columns, and cut where there is no more room.

What is shown comes from models and from whoever called them: nothing of it may move the cursor or change a color.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime

__all__ = ["cut", "duration", "moment", "number", "one_line", "size", "table"]

_WIDE = frozenset("WF")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def one_line(value: object) -> str:
    """Any text in one line, without what no printer prints."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in " ".join(str(value).split()))


def cut(text: str, columns: int) -> str:
    """As much of the text as has room in so many columns."""
    if _columns(text) <= columns:
        return text
    kept, room = "", columns - 1
    for sign in text:
        room -= _columns(sign)
        if room < 0:
            break
        kept += sign
    return f"{kept}\N{HORIZONTAL ELLIPSIS}"[:columns]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows below their heads, each column as wide as what is in it."""
    lines = [tuple(head), *(tuple(map(one_line, row)) for row in rows)]
    widths = [max(map(_columns, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(map(_pad, line, widths)).rstrip() for line in lines)
    return "\n".join(padded)


def number(value: float) -> str:
    """Four digits of a fraction, and all of an int."""
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def duration(seconds: float) -> str:
    """``0:07``, ``12:34``, ``1:02:03``."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def moment(iso: str) -> str:
    """A time of the wire as a clock here shows it; nothing if it has not come yet."""
    return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M:%S") if iso else ""


def size(size_bytes: float) -> str:
    """``512 B``, ``1.5 MiB``."""
    for unit in _UNITS[:-1]:
        if size_bytes < 1024:
            return f"{size_bytes:.4g} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.4g} {_UNITS[-1]}"


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _columns(text))


def _columns(text: str) -> int:
    return sum(_sign_columns(sign) for sign in text)


def _sign_columns(sign: str) -> int:
    if unicodedata.combining(sign):
        return 0
    return 2 if unicodedata.east_asian_width(sign) in _WIDE else 1

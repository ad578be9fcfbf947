"""What a task groups its messages by.

==========================  ============================================================================================
``""``                      nothing: all messages have the key ``""``
``device``, ``a.b``         a field of the value; ``field:device`` is the same
``header:Name``             a header
``subject:1``               a token of the subject, counted from 0
``module:function``         what the user's function makes of the message
==========================  ============================================================================================

Texts are keys as they are, numbers as JSON writes them, and so are ``true`` and ``false``. Anything else is no key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from aipod.errors import ConfigError
from aipod.stream.errors import Unreadable
from aipod.stream.message import Message
from aipod.stream.tasks import functions
from aipod.stream.tasks.fields import getter

__all__ = ["MAX_KEY_BYTES", "Finder", "finder", "key_finder", "needs_fields"]

# A key becomes part of subjects, of identities and of primary keys, which all end somewhere.
MAX_KEY_BYTES = 256
_TOKEN = re.compile(r"[0-9]{1,2}")
_HEADER = re.compile(r"[!-9;-~]{1,200}")

# Finds something of a message, or raises Unreadable.
Finder = Callable[[Message], Any]


def key_finder(text: str) -> Callable[[Message], str] | None:
    """Build what finds a message's key; None where no key is asked for.

    Raises:
        ConfigError: The text says no key.
    """
    if not text:
        return None
    find = finder(text, "key")

    def key(message: Message) -> str:
        found = find(message)
        # Most keys are short and of ASCII, and pass here.
        if type(found) is str and len(found) <= MAX_KEY_BYTES and found.isascii():
            return found
        return _as_key(found, text)

    return key


def needs_fields(text: str) -> bool:
    """Whether a key or a time is a field of the value."""
    kind, colon, _ = text.partition(":")
    return text not in ("", "stored") and (not colon or kind == "field")


def finder(text: str, what: str) -> Finder:
    """Build what finds a key or a time, as it is there.

    Raises:
        ConfigError: The text names no place of a message.
    """
    kind, colon, rest = text.partition(":")
    if not colon or kind == "field":
        get = getter(rest if colon else text)
        return lambda message: get(message.value)
    if kind == "header":
        return _of_header(rest, what)
    if kind == "subject":
        return _of_subject(rest, what)
    return functions.for_messages(text)


def _of_header(name: str, what: str) -> Finder:
    if not _HEADER.fullmatch(name):
        raise ConfigError([f"{name!r} is no name of a header; write header:Name"])

    def find(message: Message) -> str:
        try:
            return message.headers[name]
        except KeyError:
            raise Unreadable(f"there is no header {name!r} with the {what}") from None

    return find


def _of_subject(place: str, what: str) -> Finder:
    if not _TOKEN.fullmatch(place):
        raise ConfigError([f"{place!r} is no place of a token; write subject:0 for the first"])
    at = int(place)

    def find(message: Message) -> str:
        try:
            return message.subject.split(".")[at]
        except IndexError:
            raise Unreadable(f"subject {message.subject!r} has no token {at} with the {what}") from None

    return find


def _as_key(found: object, text: str) -> str:
    if isinstance(found, np.generic):
        found = found.item()
    if isinstance(found, str):
        key = str(found)
    elif isinstance(found, bool):
        key = "true" if found else "false"
    elif isinstance(found, int) and found.bit_length() < 8 * MAX_KEY_BYTES:
        key = str(int(found))
    elif isinstance(found, float) and math.isfinite(found):
        key = repr(float(found))
    else:
        raise Unreadable(f"the key {text!r} is {_what(found)}; a key is a text, a number or a truth value")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise Unreadable(f"the key {text!r} is a text with half a character in it") from None
    if size > MAX_KEY_BYTES:
        raise Unreadable(f"the key {text!r} has {size} bytes; at most {MAX_KEY_BYTES} are a key")
    return key


def _what(found: object) -> str:
    if found is None:
        return "null"
    return str(found) if isinstance(found, float) else type(found).__name__

"""What a version may be called: the one door between a client's text and a path.

A name is 1 to 200 bytes of UTF-8, in NFC: letters, marks and digits of any script, ``.``, ``_`` and ``-``, not
starting with a dot or a dash. So it is always one path component, it hides from no listing, and no tool takes it for
an option. A leading dot is what the store gives to files of its own, and ``@``, which no name holds, ends the version
in a job's id.
"""

from __future__ import annotations

import functools
import unicodedata

from aipod.errors import BadVersionName

__all__ = ["DEFAULT_VERSION", "MAX_NAME_BYTES", "check_version"]

DEFAULT_VERSION = "default"
MAX_NAME_BYTES = 200

_PUNCTUATION = frozenset("._-")


def check_version(name: object) -> str:
    """The version that ``name`` means: ``""`` and ``None`` are ``"default"``, any other name is itself.

    Cheap enough for every call: names that were good before are remembered.

    Raises:
        BadVersionName: It is not text, or breaks a rule, which the sentence states.
    """
    if name is None or name == "":
        return DEFAULT_VERSION
    if not isinstance(name, str):
        raise BadVersionName(type(name).__name__, "a name is text")
    # Before the cache, which must not keep a megabyte because somebody sent one.
    if len(name) > MAX_NAME_BYTES:
        raise BadVersionName(name, f"it is longer than {MAX_NAME_BYTES} bytes of UTF-8")
    return _checked(str(name))


@functools.lru_cache(maxsize=4096)
def _checked(name: str) -> str:
    for char in name:
        if char not in _PUNCTUATION and not _is_word(char):
            raise BadVersionName(name, f"{char!a} is no letter, mark or digit, nor one of . _ -")
    if name[0] in ".-":
        raise BadVersionName(name, "it starts with a dot or a dash")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise BadVersionName(name, f"it is longer than {MAX_NAME_BYTES} bytes of UTF-8")
    composed = unicodedata.normalize("NFC", name)
    if composed != name:
        raise BadVersionName(name, f"it is not in NFC; write it as {composed!a} ({composed})")
    return name


def _is_word(char: str) -> bool:
    category = unicodedata.category(char)
    return category[0] in "LM" or category == "Nd"

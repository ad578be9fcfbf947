"""Subjects with variables in them: ``results.{key}``.

==================  ====================================================================================================
``{key}``           the window's key
``{task}``          the task's name
``{header:Name}``   a header of the window's first message
``{subject:1}``     a token, counted from 0, of the subject of the window's first message
==================  ====================================================================================================

Whatever a variable's value is, it becomes one legal token, or a piece of one: all but ASCII letters, digits, ``-``,
``_`` and ``~`` is percent-encoded, so that different keys have different subjects. An empty value, and one that is not
there, is ``_``, and the value ``_`` is ``%5F``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import quote

from aipod.errors import ConfigError
from aipod.stream.tasks.subjects import problem_of

__all__ = ["Template", "token"]

# Longer ones end in a digest. With keys of 256 bytes that happens to headers alone; a subject has to fit into the 4096
# bytes of a protocol line together with other things.
_MAX_TOKEN = 768
_NONE: Mapping[str, str] = MappingProxyType({})
_VARIABLE = re.compile(r"\{([^{}]*)\}")
_FORMS = re.compile(r"key|task|header:[!-9;-z|~]+|subject:[0-9]{1,2}")


def token(value: str) -> str:
    """Write any text as one token of a subject."""
    if value in ("", "_"):
        return "%5F" if value else "_"
    text = quote(value, safe="", errors="surrogatepass").replace(".", "%2E")
    if len(text) > _MAX_TOKEN:
        return f"{text[: _MAX_TOKEN - 33]}~{hashlib.sha256(text.encode()).hexdigest()[:32]}"
    return text


class Template:
    """A subject with variables in it.

    Args:
        text: As it is written in a task.
        allowed: The variables that make sense where it stands.

    Raises:
        ConfigError: It has variables that there are not, or what is around them is no subject.
    """

    def __init__(self, text: str, allowed: tuple[str, ...] = ("key", "task", "header", "subject")) -> None:
        problems = []
        # Literals at even places, variables at odd ones.
        self._pieces = _VARIABLE.split(text)
        self.text = text
        self.variables = tuple(self._pieces[1::2])
        for name in self.variables:
            if not _FORMS.fullmatch(name) or name.partition(":")[0] not in allowed:
                forms = ", ".join(_SPELLING[each] for each in allowed)
                problems.append(f"{text!r} has the variable {{{name}}}; there are {forms}")
        rest = "".join(self._pieces[::2])
        if "{" in rest or "}" in rest:
            problems.append(f"{text!r} has a brace without its partner")
        elif problem := problem_of(_VARIABLE.sub("x", text), wildcards=False):
            problems.append(f"{text!r} is no subject to publish to: {problem}")
        if problems:
            raise ConfigError(problems)

    def __repr__(self) -> str:
        return f"Template({self.text!r})"

    def render(self, *, task: str = "", key: str = "", headers: Mapping[str, str] = _NONE, subject: str = "") -> str:
        """Fill the variables in; ``headers`` and ``subject`` are those of the window's first message."""
        pieces = list(self._pieces)
        for at in range(1, len(pieces), 2):
            what, _, name = pieces[at].partition(":")
            if what == "key":
                value = key
            elif what == "task":
                value = task
            elif what == "header":
                value = headers.get(name, "")
            else:
                value = _token_of(subject, int(name))
            pieces[at] = token(value)
        return "".join(pieces)

    def wildcard(self, task: str = "") -> str:
        """The pattern that everything this renders for a task fits: ``*`` for each token that can differ."""
        fixed = self.text.replace("{task}", token(task))
        # A header's name can have a dot in it, which ends no token.
        fixed = _VARIABLE.sub("{}", fixed)
        return ".".join("*" if "{}" in part else part for part in fixed.split("."))


_SPELLING = {"key": "{key}", "task": "{task}", "header": "{header:Name}", "subject": "{subject:0}"}


def _token_of(subject: str, place: int) -> str:
    tokens = subject.split(".")
    return tokens[place] if place < len(tokens) else ""

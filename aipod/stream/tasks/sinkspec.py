"""Where results go, as a task says it: a text, or a table with options.

===============================  =======================================================================================
``nats:results.{key}``           a JetStream subject; ``nats-fenced:…`` is the same with ``fenced = true``
``sql:sqlite:///x.db#table``     a table of a database, by SQLAlchemy's URL; ``sql:file:PATH#table`` reads the URL there
``file:results/``                a directory of JSONL files
``stdout``                       one line of JSON for each
``model:host:port/version``      another model
``module:function``              a function of the user's
===============================  =======================================================================================

A table has such a text under ``to``, and options beside it: ``{ to = "nats:results.{key}", fenced = true }``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from aipod.config import check_address
from aipod.config.kinds import Kind, size
from aipod.errors import ConfigError
from aipod.stream.tasks import functions
from aipod.stream.tasks.database import read_record_url
from aipod.stream.tasks.items import duration, maybe, nearest, read_secret, word, yes_or_no
from aipod.stream.tasks.template import Template

__all__ = ["SinkKind", "SinkSpec", "split_model"]

SinkKind = Literal["nats", "sql", "file", "stdout", "model", "function"]

_FORMS = (
    'write "nats:SUBJECT", "nats-fenced:SUBJECT", "sql:URL#TABLE", "file:DIRECTORY", "stdout",'
    ' "model:HOST:PORT/VERSION" or "module:function"'
)
_STREAM = word(r"[^\s.*>/\\]{1,255}", "the name of a stream, without spaces and . * > / \\")


def _nested() -> Kind[Any]:
    return Kind("a sink", lambda value: None if value is None else SinkSpec.parse(value))


# What each kind takes beside its target, and the default of each.
OPTIONS: dict[str, dict[str, tuple[Kind[Any], Any]]] = {
    "nats": {"fenced": (yes_or_no(), False), "create": (yes_or_no(), False), "stream": (maybe(_STREAM), None)},
    "sql": {
        "table": (word(r"[A-Za-z_][A-Za-z0-9_.]{0,126}", "the name of a table"), "aipod_results"),
        # None leaves it to the sink: a SQLite database gets its table, any other must have it.
        "create": (maybe(yes_or_no()), None),
    },
    "file": {"max_bytes": (size(4096), 64 << 20), "max_age": (duration(1.0), 86_400.0)},
    "stdout": {},
    "model": {"timeout": (duration(0.001), 60.0), "sink": (_nested(), None)},
    "function": {},
}


@dataclass(frozen=True)
class SinkSpec:
    """One sink of a task.

    Attributes:
        kind: What it is.
        target: The subject's template; the database's URL; the directory; ``""`` for stdout; the model's address and
            version, as host:port/version; ``module:function``. May hold a password.
        options: Those of its kind, each with its default where it was not given.

    Raises:
        ConfigError: With one sentence for each problem.
    """

    kind: SinkKind
    target: str = field(default="", repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in OPTIONS:
            raise ConfigError([f"there is no sink {self.kind!r}; {_FORMS}"])
        options, problems = _read_options(OPTIONS[self.kind], self.options)
        object.__setattr__(self, "options", options)
        try:
            self._check_target()
        except ConfigError as error:
            problems = [*error.problems, *problems]
        if problems:
            raise ConfigError(problems)

    @classmethod
    def parse(cls, value: object) -> SinkSpec:
        """Read a text, a table, or what is one already.

        Raises:
            ConfigError: With one sentence for each problem.
        """
        if isinstance(value, SinkSpec):
            return value
        if isinstance(value, str):
            return cls(*_split(value.strip()))
        if not isinstance(value, Mapping):
            raise ConfigError([f"a sink is a text or a table, not {type(value).__name__}; {_FORMS}"])
        options = dict(value)
        to = options.pop("to", None)
        if not isinstance(to, str):
            raise ConfigError(['a table of a sink says in "to" where it goes; ' + _FORMS])
        kind, target, from_text = _split(to.strip())
        return cls(kind, target, {**from_text, **options})

    def __str__(self) -> str:
        """The text form, without passwords and options."""
        if self.kind in ("stdout", "function"):
            return self.target or self.kind
        target = re.sub(r"//[^/@]*@", "//***@", self.target)
        prefix = "nats-fenced" if self.options.get("fenced") else self.kind
        return f"{prefix}:{target}#{self.options['table']}" if self.kind == "sql" else f"{prefix}:{target}"

    @property
    def name(self) -> str:
        return str(self)

    def all(self) -> Iterator[SinkSpec]:
        """This sink and those inside it."""
        yield self
        inside = self.options.get("sink")
        if inside is not None:
            yield from inside.all()

    def _check_target(self) -> None:
        if self.kind == "nats":
            Template(self.target)
        elif self.kind == "sql":
            read_record_url(self.target)
        elif self.kind == "file" and (not self.target or not self.target.isprintable()):
            raise ConfigError(['"file:" is followed by the directory for the results'])
        elif self.kind == "model":
            split_model(self.target)
        elif self.kind == "function":
            functions.load(self.target)


def split_model(text: str) -> tuple[str, str | None]:
    """Take ``host:port/version`` apart; without a version, or where gRPC's own form of an address is used, it is None.

    Raises:
        ConfigError: The address is none.
    """
    text = text.strip()
    if text.startswith(("unix:", "unix-abstract:", "dns:", "ipv4:", "ipv6:")):
        return check_address(text), None
    address, slash, version = text.partition("/")
    if slash and not version:
        raise ConfigError([f"{text!r} ends before the version; write host:port/version or host:port"])
    try:
        return check_address(address), version or None
    except ConfigError:
        raise ConfigError([f"{text!r} is no address of a model; write host:port or host:port/version"]) from None


def _split(text: str) -> tuple[SinkKind, str, dict[str, Any]]:
    prefix, colon, rest = text.partition(":")
    if text == "stdout":
        return "stdout", "", {}
    if prefix == "nats-fenced" and colon:
        return "nats", rest, {"fenced": True}
    if prefix == "sql" and colon:
        url, hash_, table = rest.rpartition("#")
        url, table = (url, table) if hash_ else (rest, "")
        url = read_secret(url.removeprefix("file:")) if url.startswith("file:") else url
        return "sql", url, {"table": table} if hash_ else {}
    if prefix in ("nats", "file", "model") and colon:
        return prefix, rest, {}  # type: ignore[return-value]
    if functions.is_target(text):
        return "function", text, {}
    raise ConfigError([f"{text.rpartition('@')[2]!r} is no sink; {_FORMS}"])


def _read_options(
    known: Mapping[str, tuple[Kind[Any], Any]], given: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    options = {name: default for name, (_, default) in known.items()}
    problems = []
    for name, value in given.items():
        if name not in known:
            problems.append(
                f"there is no option {name!r}; {nearest(str(name), known) if known else 'this sink has none'}"
            )
            continue
        try:
            options[name] = known[name][0].read(value)
        except ConfigError as error:
            problems += [f"{name}: {problem}" for problem in error.problems]
        except (ValueError, TypeError, OverflowError):
            problems.append(f"{name} is {value!r}; it must be {known[name][0].allowed}")
    return options, problems

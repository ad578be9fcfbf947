"""Every setting, with its default, its range and its meaning."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, cast

from aipod.config import environment
from aipod.config.kinds import GIB, KIB, MIB, Kind, address, choice, flag, host, names, path, seconds, size, whole
from aipod.errors import ConfigError

__all__ = ["Flagged", "Origin", "Row", "Settings", "check_address", "variable"]

Origin = Literal["default", "class", "environment", "explicit"]
T = TypeVar("T")

_SHOWN = 64


def setting(default: T, kind: Kind[T], meaning: str, *, of_class: bool = False) -> T:
    """Declare a setting; with ``of_class``, the model class's attribute of that name counts, too."""
    return dataclasses.field(default=default, metadata={"kind": kind, "meaning": meaning, "of_class": of_class})


class Row(NamedTuple):
    """One setting, for people; ``value`` and ``default`` are texts that its variable would take."""

    name: str
    variable: str
    value: str
    origin: Origin
    meaning: str
    default: str
    allowed: str


class Flagged(NamedTuple):
    """An explicit value that came by a flag of a command line; what is wrong with it is said of the flag."""

    flag: str
    value: object


@dataclasses.dataclass(frozen=True)
class Settings:
    """Every setting of a server, and the one of the command line's client; :meth:`load` finds the values.

    The constructor takes values, too, and checks them in the same way, but looks nowhere else for any.

    Raises:
        ConfigError: Some values are not allowed; it has one sentence for each.
    """

    listen_host: str = setting("[::]", host(), "the address to listen on; [::] is every address")
    listen_port: int = setting(50051, whole(0, 65535), "the port to listen on; 0 picks a free one")
    front: Literal["auto", "cq", "aio"] = setting(
        "auto",
        choice("auto", "cq", "aio"),
        "what serves the port: cq is fast and knows grpcio from within, aio is not and does not; auto takes cq where it"
        " was tested",
    )
    data_path: Path = setting(Path("appdata/"), path(), "where the data of all versions lie")
    strict_versions: bool = setting(False, flag(), "refuse a version that is not on disk, rather than try to load it")
    keep_revisions: int = setting(3, whole(1), "how many revisions of a version to keep; those in use stay anyway")
    model_pool_size: int = setting(1, whole(0), "how many versions stay loaded; 0 sets no limit")
    model_pool_bytes: int = setting(0, size(0), "the memory that loaded versions may take together; 0 sets no limit")
    model_idle_ttl: float = setting(0.0, seconds(), "unload a version that nobody asked for this long; 0 never does")
    preload: tuple[str, ...] = setting((), names(), "versions to load before the server is ready")
    pin: tuple[str, ...] = setting((), names(), "versions that are never evicted")
    swap: Literal["auto", "load_first", "evict_first"] = setting(
        "auto",
        choice("auto", "load_first", "evict_first"),
        "load a new revision beside the old one, or after it is gone; auto does the latter where bytes are limited",
    )
    load_pause: float = setting(1.0, seconds(60.0), "the pause after a failed load; it doubles up to 60 seconds")
    rpc_max_workers: int = setting(12, whole(1, 1024), "how many threads run predictions")
    max_concurrency: int = setting(
        0, whole(0), "how many calls run on one instance at a time; 0 sets no limit", of_class=True
    )
    isolation: Literal["thread", "process"] = setting(
        "thread",
        choice("thread", "process"),
        "where an instance lives: in the server, or in a process of its own, which can crash alone",
        of_class=True,
    )
    replicas: int = setting(
        1, whole(1, 256), "how many copies an instance has; more than one live in processes", of_class=True
    )
    devices: tuple[str, ...] = setting(
        (), names(), "one copy for each, in a process that sees it alone, such as cuda:0,cuda:1"
    )
    max_batch_size: int = setting(
        32, whole(1, 65536), "how many calls a batch has at most, where the class has predict_batch", of_class=True
    )
    batch_timeout: float = setting(
        0.0,
        seconds(3600.0),
        "how long a call waits for others to share its batch; 0 takes what is there",
        of_class=True,
    )
    latency_target: float = setting(
        0.0,
        seconds(3600.0),
        "how long one batch may run; the size that keeps to it is found; 0 sets none",
        of_class=True,
    )
    max_queue: int = setting(1024, whole(1), "how many calls may wait for one version; more are refused at once")
    max_queue_bytes: int = setting(
        512 * MIB, size(MIB), "how many bytes of requests one version may hold; more are refused at once"
    )
    max_message_bytes: int = setting(100 * MIB, size(KIB, 1024 * GIB), "the largest request or reply")
    max_kwargs_bytes: int = setting(MIB, size(1, 2 * GIB - 1), "the largest request, arrays and large bytes left out")
    max_result_bytes: int = setting(
        16 * MIB, size(1, 2 * GIB - 1), "the largest reply, arrays and large bytes left out"
    )
    shared_memory_bytes: int = setting(
        GIB, size(0, 1024 * GIB), "how much memory clients on the same host may share with the server; 0: none"
    )
    default_timeout: float = setting(
        300.0, seconds(), "the time for a call that brings no deadline, train excepted; 0 sets none"
    )
    train_isolation: Literal["process", "thread"] = setting(
        "process",
        choice("process", "thread"),
        "where a training runs: in a process of its own, or on a thread of the server",
        of_class=True,
    )
    train_max_jobs: int = setting(1, whole(1, 1024), "how many trainings run at a time; the others wait for their turn")
    train_max_queued: int = setting(64, whole(0), "how many trainings may wait for their turn")
    train_exclusive: bool = setting(
        False, flag(), "unload the version while it is trained, so that the training has the accelerator", of_class=True
    )
    train_nice: int = setting(5, whole(0, 19), "how far a training's process stands back for others on the same cores")
    train_timeout: float = setting(0.0, seconds(), "how long a training may run; 0 sets no limit")
    train_grace: float = setting(10.0, seconds(), "the time for a training to end that was told to; then it is killed")
    watch_seconds: float = setting(
        5.0, seconds(), "how often to look for revisions that other programs put in place; 0 never does"
    )
    drain_seconds: float = setting(30.0, seconds(), "how long running calls may go on after SIGTERM")
    send_tracebacks: Literal["auto", "always", "never"] = setting(
        "auto",
        choice("auto", "always", "never"),
        "send callers the tracebacks of errors; auto does where only this host can connect",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = setting(
        "INFO", choice("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"), "the least important messages to log"
    )
    address: str = setting("localhost:50051", address(), "where the command line finds its server")

    _origins: Mapping[str, Origin] = dataclasses.field(default_factory=dict, repr=False, compare=False)
    _flags: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def load(
        cls, environ: Mapping[str, str] | None = None, model_class: type | None = None, /, **explicit: object
    ) -> Settings:
        """Find the value of every setting.

        Args:
            environ: The environment; None means this process's. A variable that no setting reads is warned about.
            model_class: The user's class, whose attributes count where a setting says so.
            explicit: Values by the settings' names, as values or as texts, or :class:`Flagged`; None means not given.

        Raises:
            ConfigError: Some values are not allowed, or no setting has such a name; it has one sentence for each.
        """
        flags = {name: given.flag for name, given in explicit.items() if isinstance(given, Flagged)}
        explicit = {name: given.value if isinstance(given, Flagged) else given for name, given in explicit.items()}
        texts = environment.find(environ, [variable(field.name) for field in _fields()])
        given: dict[str, object] = {}
        origins: dict[str, Origin] = {}
        for field in _fields():
            name = field.name
            attribute = getattr(model_class, name, None) if field.metadata["of_class"] else None
            if explicit.get(name) is not None:
                given[name], origins[name] = explicit[name], "explicit"
            elif variable(name) in texts:
                given[name], origins[name] = texts[variable(name)], "environment"
            # The base class spells out the default, which is no choice of the user's.
            elif attribute is not None and attribute != field.default:
                given[name], origins[name] = attribute, "class"
        problems = _strangers(explicit)
        try:
            settings = cls(**cast("dict[str, Any]", given), _origins=origins, _flags=flags)
        except ConfigError as error:
            problems += error.problems
        if problems:
            raise ConfigError(problems)
        return settings

    def __post_init__(self) -> None:
        problems = []
        for field in _fields():
            kind, value = field.metadata["kind"], getattr(self, field.name)
            try:
                object.__setattr__(self, field.name, kind.read(value))
            except (ValueError, TypeError, OverflowError):
                problems.append(f"{self.label(field.name)} is {_shown(value)}; it must be {kind.allowed}")
        if not problems and self.max_kwargs_bytes > self.max_message_bytes:
            problems.append(
                f"{self.label('max_kwargs_bytes')} is {self.max_kwargs_bytes}; it must be at most"
                f" {self.label('max_message_bytes')}, and that is {self.max_message_bytes}"
            )
        if problems:
            raise ConfigError(problems)

    def origin(self, name: str) -> Origin:
        """Say where the value of the setting ``name`` came from."""
        default = next(field.default for field in _fields() if field.name == name)
        return self._origins.get(name) or ("default" if getattr(self, name) == default else "explicit")

    def describe(self) -> list[Row]:
        """List every setting, in the order of the fields."""
        rows = []
        for field in _fields():
            kind: Kind[Any] = field.metadata["kind"]
            rows.append(
                Row(
                    name=field.name,
                    variable=variable(field.name),
                    value=kind.write(getattr(self, field.name)),
                    origin=self.origin(field.name),
                    meaning=field.metadata["meaning"],
                    default=kind.write(field.default),
                    allowed=kind.allowed,
                )
            )
        return rows

    def label(self, name: str) -> str:
        """Name the setting ``name`` as whoever gave its value knows it: a flag, a variable, an attribute."""
        if name in self._flags:
            return self._flags[name]
        if self._origins.get(name) == "environment":
            return variable(name)
        if self._origins.get(name) == "class":
            return f"{name} of the model class"
        return name


def variable(name: str) -> str:
    """Name the environment variable of the setting ``name``."""
    return environment.PREFIX + name.upper()


def check_address(value: str) -> str:
    """Return where a client is to find its server, checked.

    Raises:
        ConfigError: It is neither ``host:port`` nor one of gRPC's own targets, such as ``unix:/path``.
    """
    return Settings(address=value).address


def _fields() -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(Settings) if "kind" in field.metadata]


def _strangers(explicit: Mapping[str, object]) -> list[str]:
    known = [field.name for field in _fields()]
    return [
        f"there is no setting {_shown(name)}; {environment.suggestion(name, known)}"
        for name in explicit
        if name not in known
    ]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"

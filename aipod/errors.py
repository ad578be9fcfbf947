"""Every error that AIPOD raises on purpose, sorted by who must act.

::

    AipodError
    ├── InvalidArgument            the caller: the arguments are wrong
    │   ├── SerializationError     … a value cannot travel, or what arrived cannot be read
    │   └── BadVersionName         … no version can have that name
    ├── NotSupportedError          the caller: this model has no such method
    ├── VersionNotFound            the caller: nothing on disk has that name
    ├── JobNotFound                the caller
    ├── NotInitialized             the caller: initialize or train the version first
    ├── TrainingInProgress         the caller: wait for the job that is named
    ├── Conflict                   the caller: another writer was faster; try again
    ├── Unauthenticated            the caller
    ├── PermissionDenied           the caller
    ├── Overloaded                 the caller later, or the operator: a queue or the pool is full
    ├── DeadlineExceeded           the caller: allow more time (also a TimeoutError)
    ├── Cancelled                  nobody: the caller gave up
    ├── Unavailable                the caller later: draining, or the peer is gone
    ├── LoadError                  the model's author: an instance could not be built
    ├── ModelError                 the model's author: its code raised
    │   └── ModelCrashed           … its process died
    ├── TrainingFailed             the model's author
    ├── TrainingCancelled          nobody: somebody cancelled the job
    ├── StorageError               the operator: the data path refused
    │   └── StorageFull            … for want of room
    ├── ConfigError                the operator: settings that make no sense (also a ValueError)
    └── InternalError              us: a bug; the server's log has the rest under the error id

An error's sentence says what to do next. Constructors take data and build the sentence; what they keep are plain
values, so that an error survives pickling and a wire: :func:`describe` and :func:`rebuild` are the two ends of that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

__all__ = [
    "AipodError",
    "BadVersionName",
    "Cancelled",
    "ConfigError",
    "Conflict",
    "DeadlineExceeded",
    "InternalError",
    "InvalidArgument",
    "JobNotFound",
    "LoadError",
    "ModelCrashed",
    "ModelError",
    "NotInitialized",
    "NotSupportedError",
    "Overloaded",
    "PermissionDenied",
    "SerializationError",
    "StorageError",
    "StorageFull",
    "TrainingCancelled",
    "TrainingFailed",
    "TrainingInProgress",
    "Unauthenticated",
    "Unavailable",
    "VersionNotFound",
    "again",
    "describe",
    "rebuild",
]


class AipodError(Exception):
    """Base of the tree.

    Attributes:
        status: The name of the gRPC status that stands for the class.
        error_id: The id under which the server logged the error; ``""`` where no server was involved.
        remote_traceback: The server's traceback, cut to what a status can carry; ``""`` if the server keeps it to
            itself.
        traceback: The traceback of the model's code, on the side where it ran.
        by_model: Whether the model's own code raised it, so that sending the call once more would run it once more.
    """

    status: ClassVar[str] = "INTERNAL"
    by_model: bool = False
    traceback: str = ""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.error_id = ""
        self.remote_traceback = ""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), str(self), dict(self.__dict__))


class InvalidArgument(AipodError):
    """The caller's arguments are wrong; the sentence says which and how."""

    status = "INVALID_ARGUMENT"


class SerializationError(InvalidArgument):
    """A value that cannot travel, or bytes that cannot be read.

    Attributes:
        place: Where, written as the caller would write it: ``kwargs["a"][3]``.
    """

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place}: {problem}")
        self.place = place


class BadVersionName(InvalidArgument):
    """No version can have that name."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{_short(name)} is no version name: {problem}")
        self.name = name[:200]


class NotSupportedError(AipodError):
    """The model has no such method (1.0's name; code of 1.0 raises it without arguments)."""

    status = "UNIMPLEMENTED"

    def __init__(self, message: str = "this model does not support that method") -> None:
        super().__init__(message)


class VersionNotFound(AipodError):
    status = "NOT_FOUND"

    def __init__(self, version: str, revision: int | None = None) -> None:
        what = f"version {version!r}" if revision is None else f"revision {revision} of version {version!r}"
        super().__init__(f"there is no {what} here; ask for one that versions() lists, or initialize it")
        self.version = version
        self.revision = revision


class JobNotFound(AipodError):
    status = "NOT_FOUND"

    def __init__(self, job: str) -> None:
        super().__init__(f"there is no training job {job!r} here; it may have been removed with its version")
        self.job = job


class NotInitialized(AipodError):
    status = "FAILED_PRECONDITION"

    def __init__(self, version: str) -> None:
        super().__init__(f"version {version!r} has not been initialized; call initialize() or train() on it first")
        self.version = version


class LoadError(AipodError):
    """An instance of a version could not be built; the old instance, where there is one, serves on."""

    status = "FAILED_PRECONDITION"

    def __init__(self, version: str, reason: str, revision: int | None = None) -> None:
        which = f"version {version!r}" + (f" (revision {revision})" if revision is not None else "")
        super().__init__(f"{which} does not load: {reason}")
        self.version = version
        self.revision = revision


class TrainingInProgress(AipodError):
    status = "ALREADY_EXISTS"

    def __init__(self, version: str, job: str) -> None:
        super().__init__(f"version {version!r} is being trained by job {job!r}; wait for it, or train another version")
        self.version = version
        self.job = job


class TrainingFailed(AipodError):
    status = "INTERNAL"

    def __init__(self, version: str, job: str, reason: str) -> None:
        super().__init__(f"training job {job!r} of version {version!r} failed: {reason}")
        self.version = version
        self.job = job


class TrainingCancelled(AipodError):
    status = "CANCELLED"

    def __init__(self, version: str, job: str, reason: str = "") -> None:
        super().__init__(
            f"training job {job!r} of version {version!r} was cancelled" + (f": {reason}" if reason else "")
        )
        self.version = version
        self.job = job


class Conflict(AipodError):
    """Two writers on one version: this one changed nothing."""

    status = "ABORTED"

    def __init__(self, version: str, what: str) -> None:
        super().__init__(f"version {version!r}: {what}; nothing was changed, try again")
        self.version = version


class StorageError(AipodError):
    """The data path refused; the sentence names no path of the server, its log does."""

    status = "FAILED_PRECONDITION"

    def __init__(self, doing: str, reason: str) -> None:
        super().__init__(f"{doing}: {reason}")


class StorageFull(StorageError):
    """No room on disk.

    Attributes:
        missing_bytes: How much more is needed, 0 where that is not known.
    """

    status = "RESOURCE_EXHAUSTED"

    def __init__(self, doing: str, missing_bytes: int = 0) -> None:
        need = f"at least {missing_bytes} more bytes are needed" if missing_bytes else "free some space"
        super().__init__(doing, f"no room on the disk of the data path; {need}, then try again")
        self.missing_bytes = missing_bytes


class Overloaded(AipodError):
    """A queue or the pool is full; running work is not hurt."""

    status = "RESOURCE_EXHAUSTED"


class DeadlineExceeded(AipodError, TimeoutError):
    status = "DEADLINE_EXCEEDED"

    def __init__(self, message: str = "the deadline passed before the call was done; allow it more time") -> None:
        super().__init__(message)


class Cancelled(AipodError):
    status = "CANCELLED"

    def __init__(self, message: str = "the call was cancelled") -> None:
        super().__init__(message)


class Unavailable(AipodError):
    """The server drains, is gone, or never was there.

    Attributes:
        may_have_run: Whether the call can have run, or can still be running, on the server.
    """

    status = "UNAVAILABLE"
    may_have_run: bool = False

    def __init__(self, message: str, may_have_run: bool = False) -> None:
        super().__init__(message)
        self.may_have_run = may_have_run


class Unauthenticated(AipodError):
    status = "UNAUTHENTICATED"


class PermissionDenied(AipodError):
    status = "PERMISSION_DENIED"


class ModelError(AipodError):
    """The user's code raised something that is not of this tree.

    Attributes:
        type: The class of what was raised, as the traceback would name it.
        traceback: Its traceback; it leaves the server only as ``remote_traceback``.
        returned: Whether nothing was raised: the method ran to its end, and what it returned cannot travel.
    """

    returned: bool = False

    def __init__(self, message: str, type: str = "", traceback: str = "") -> None:
        super().__init__(": ".join(part for part in (type, message) if part))
        self.type = type
        self.traceback = traceback


class ModelCrashed(ModelError):
    """The process that the model lived in died while it held the call."""


class ConfigError(AipodError, ValueError):
    """Settings that make no sense, all of them at once.

    Attributes:
        problems: One sentence each.
    """

    status = "FAILED_PRECONDITION"

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


class InternalError(AipodError):
    """A bug of ours."""

    def __init__(self, message: str = "an error inside AIPOD; the server's log has it under the same id") -> None:
        super().__init__(message)


_KINDS: dict[str, type[AipodError]] = {
    value.__name__: value
    for value in list(globals().values())
    if isinstance(value, type) and issubclass(value, AipodError)
}
# What the two ends give an error themselves, and what must not leave the server with the rest.
_NOT_DATA = frozenset({"error_id", "remote_traceback", "traceback"})


def describe(error: AipodError) -> dict[str, Any]:
    """Turn an error into plain values that :func:`rebuild` understands.

    A class that a user derived from one of the tree is described as that one, since the other end knows no other.
    """
    kind = next(cls for cls in type(error).__mro__ if _KINDS.get(cls.__name__) is cls)
    data = {name: value for name, value in error.__dict__.items() if name not in _NOT_DATA and _is_plain(value)}
    return {"kind": kind.__name__, "status": kind.status, "message": _text(error), "data": data}


def rebuild(description: Mapping[str, Any]) -> AipodError:
    """Make the error that :func:`describe` described; a kind of a newer AIPOD becomes an :class:`AipodError`."""
    cls = _KINDS.get(str(description.get("kind")), AipodError)
    data = description.get("data")
    return _restore(cls, str(description.get("message", "")), dict(data) if isinstance(data, Mapping) else {})


def again(error: AipodError) -> AipodError:
    """The same error for another caller, or to be kept: without its id, and without frames and all they hold."""
    copy = rebuild(describe(error))
    copy.traceback = error.traceback
    return copy


def _restore(cls: type[AipodError], message: str, data: dict[str, Any]) -> AipodError:
    # Not through the constructor: it takes data and builds a sentence, and here the sentence is there already.
    error = cls.__new__(cls, message)
    error.args = (message,)
    error.__dict__.update({"error_id": "", "remote_traceback": ""}, **data)
    return error


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        return all(one is None or isinstance(one, (bool, int, float, str)) for one in value)
    return value is None or isinstance(value, (bool, int, float, str))


def _text(error: AipodError) -> str:
    try:
        return str(error)
    except Exception:  # A class of a user's can fail at anything.
        return f"{type(error).__name__}, whose message cannot be shown"


def _short(text: str) -> str:
    return repr(text if len(text) <= 64 else text[:64] + "…")

"""The operator's verbs on the client's side, and what they return.

Each verb is written once, in ``_Requests``, as a request and a way to read its reply; the two clients differ in how
they send.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from google.protobuf.message import Message

from aipod.errors import InvalidArgument
from aipod.rpc.arguments import take_timeout
from aipod.rpc.calls import raising
from aipod.rpc.connection import ASYNC_FAILURES, FAILURES, AsyncConnection, Connection
from aipod.rpc.methods import ADMIN
from aipod.rpc.v1 import admin_pb2 as pb

__all__ = [
    "Admin",
    "AsyncAdmin",
    "BatchStatistics",
    "LaneStatistics",
    "PoolStatistics",
    "RevisionInfo",
    "ServerInfo",
    "Statistics",
    "VersionInfo",
]

_TIMEOUT = 60.0

R = TypeVar("R")


class ServerInfo(NamedTuple):
    """Who answers, and what it can do."""

    server: str
    wire_version: int
    abilities: tuple[str, ...]
    model: str


class RevisionInfo(NamedTuple):
    """One revision on disk.

    Attributes:
        created: UTC in ISO 8601.
        origin: initialize, train, adopted or imported.
        parent: The revision that it was made from; 0 if none.
        job: The training job that made it; ``""`` if none did.
        parameters: What it was made with, as far as JSON can hold it; None in a list of versions.
        metrics: The numbers in what the model returned; None in a list of versions.
    """

    number: int
    created: str
    origin: str
    size_bytes: int
    live: bool
    parent: int = 0
    job: str = ""
    parameters: dict[str, Any] | None = None
    metrics: dict[str, float] | None = None


class VersionInfo(NamedTuple):
    """One version; ``last_use`` is in seconds since the epoch, 0.0 if not loaded; ``reason``: why it is failed."""

    version: str
    state: str
    revision: int
    loaded_revision: int
    revisions: tuple[RevisionInfo, ...]
    size_bytes: int
    memory_bytes: int
    last_use: float
    pinned: bool
    aliases: tuple[str, ...]
    reason: str


class PoolStatistics(NamedTuple):
    """What the pool holds, and counters since the server started; a capacity of 0 is none."""

    size: int
    capacity: int
    size_bytes: int
    capacity_bytes: int
    waiting: int
    loads: int
    load_failures: int
    evictions: int


class BatchStatistics(NamedTuple):
    """Batches of one loaded version: how many, the calls in them, how often ``predict_batch`` ran, the size of the last
    one, and what the next one may have.
    """

    batches: int
    calls: int
    runs: int
    last_size: int
    size_limit: int


class LaneStatistics(NamedTuple):
    """The calls of one loaded version. What those that ran waited and ran is in seconds, all of them together;
    ``batches`` is None where calls run alone.
    """

    version: str
    revision: int
    queued: int
    running: int
    held_bytes: int
    done: int
    failed: int
    cancelled: int
    expired: int
    refused: int
    queue_seconds: float
    run_seconds: float
    batches: BatchStatistics | None


class Statistics(NamedTuple):
    pool: PoolStatistics
    lanes: tuple[LaneStatistics, ...]
    workers: int
    workers_busy: int


@dataclass(frozen=True)
class _Request(Generic[R]):
    verb: str
    message: Message
    read: Callable[[bytes], R]


class _Requests:
    """What is sent for each verb, and what becomes of the reply."""

    info = _Request("Info", pb.InfoRequest(), lambda data: _info(pb.InfoReply.FromString(data)))
    versions = _Request("Versions", pb.VersionsRequest(), lambda data: _versions(pb.VersionsReply.FromString(data)))
    aliases = _Request("Versions", pb.VersionsRequest(), lambda data: dict(pb.VersionsReply.FromString(data).aliases))
    statistics = _Request(
        "Statistics", pb.StatisticsRequest(), lambda data: _statistics(pb.StatisticsReply.FromString(data))
    )

    @staticmethod
    def revisions(version: str) -> _Request[tuple[RevisionInfo, ...]]:
        return _Request("Revisions", pb.VersionRequest(version=version), _revisions)

    @staticmethod
    def on_version(verb: str, version: str) -> _Request[None]:
        return _Request(verb, pb.VersionRequest(version=version), _nothing)

    @staticmethod
    def pin(version: str, pinned: bool) -> _Request[None]:
        return _Request("Pin", pb.PinRequest(version=version, pinned=pinned), _nothing)

    @staticmethod
    def rollback(version: str, revision: int | None) -> _Request[int]:
        if revision is not None and not (isinstance(revision, int) and 0 < revision < 2**63):
            raise InvalidArgument(f"revision is {revision!r}; give its number, or None for the one before")
        request = pb.RollbackRequest(version=version, revision=revision or 0)
        return _Request("Rollback", request, lambda data: pb.RollbackReply.FromString(data).revision)

    @staticmethod
    def set_alias(alias: str, version: str) -> _Request[None]:
        return _Request("SetAlias", pb.SetAliasRequest(alias=alias, version=version), _nothing)

    @staticmethod
    def drop_alias(alias: str) -> _Request[None]:
        return _Request("DropAlias", pb.DropAliasRequest(alias=alias), _nothing)


class Admin:
    """The operator's side of a server. Every verb takes ``timeout`` seconds at most, and raises our errors."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def info(self) -> ServerInfo:
        return self._send(_Requests.info)

    def versions(self) -> tuple[VersionInfo, ...]:
        """All versions on disk or loaded, by name."""
        return self._send(_Requests.versions)

    def revisions(self, version: str) -> tuple[RevisionInfo, ...]:
        """The revisions of one version, the oldest first, with parameters and metrics."""
        return self._send(_Requests.revisions(version))

    def aliases(self) -> dict[str, str]:
        """From each alias to its version."""
        return self._send(_Requests.aliases)

    def statistics(self) -> Statistics:
        return self._send(_Requests.statistics)

    def load(self, version: str, timeout: float | None = None) -> None:
        """Return when the version is ready; a load may take as long as it takes."""
        self._send(_Requests.on_version("Load", version), timeout)

    def unload(self, version: str, timeout: float | None = _TIMEOUT) -> None:
        """Return when its calls are through and its memory is given back."""
        self._send(_Requests.on_version("Unload", version), timeout)

    def pin(self, version: str, pinned: bool = True) -> None:
        """Keep a version from eviction, or no longer. Does not load it."""
        self._send(_Requests.pin(version, pinned))

    def rollback(self, version: str, revision: int | None = None, timeout: float | None = None) -> int:
        """Make another revision live and serve it; None is the newest below the live one. Returns its number."""
        return self._send(_Requests.rollback(version, revision), timeout)

    def set_alias(self, alias: str, version: str) -> None:
        self._send(_Requests.set_alias(alias, version))

    def drop_alias(self, alias: str) -> None:
        self._send(_Requests.drop_alias(alias))

    def delete(self, version: str, timeout: float | None = _TIMEOUT) -> None:
        """Remove a version with all its revisions."""
        self._send(_Requests.on_version("DeleteVersion", version), timeout)

    def _send(self, request: _Request[R], timeout: float | None = _TIMEOUT) -> R:
        data, seconds = request.message.SerializeToString(), take_timeout(timeout)
        try:
            reply = self._connection.stub(ADMIN + request.verb)(data, timeout=seconds)
        except FAILURES as failure:
            error = self._connection.error_of(failure)
        else:
            return request.read(reply)
        raise raising(error)


class AsyncAdmin:
    """:class:`Admin` for asyncio: every verb is awaited."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def info(self) -> ServerInfo:
        return await self._send(_Requests.info)

    async def versions(self) -> tuple[VersionInfo, ...]:
        return await self._send(_Requests.versions)

    async def revisions(self, version: str) -> tuple[RevisionInfo, ...]:
        return await self._send(_Requests.revisions(version))

    async def aliases(self) -> dict[str, str]:
        return await self._send(_Requests.aliases)

    async def statistics(self) -> Statistics:
        return await self._send(_Requests.statistics)

    async def load(self, version: str, timeout: float | None = None) -> None:
        await self._send(_Requests.on_version("Load", version), timeout)

    async def unload(self, version: str, timeout: float | None = _TIMEOUT) -> None:
        await self._send(_Requests.on_version("Unload", version), timeout)

    async def pin(self, version: str, pinned: bool = True) -> None:
        await self._send(_Requests.pin(version, pinned))

    async def rollback(self, version: str, revision: int | None = None, timeout: float | None = None) -> int:
        return await self._send(_Requests.rollback(version, revision), timeout)

    async def set_alias(self, alias: str, version: str) -> None:
        await self._send(_Requests.set_alias(alias, version))

    async def drop_alias(self, alias: str) -> None:
        await self._send(_Requests.drop_alias(alias))

    async def delete(self, version: str, timeout: float | None = _TIMEOUT) -> None:
        await self._send(_Requests.on_version("DeleteVersion", version), timeout)

    async def _send(self, request: _Request[R], timeout: float | None = _TIMEOUT) -> R:
        data, seconds = request.message.SerializeToString(), take_timeout(timeout)
        try:
            reply = await self._connection.stub(ADMIN + request.verb)(data, timeout=seconds)
        except ASYNC_FAILURES as failure:
            error = self._connection.error_of(failure)
        else:
            return request.read(reply)
        raise raising(error)


def _nothing(data: bytes) -> None:
    pb.Done.FromString(data)


def _info(reply: pb.InfoReply) -> ServerInfo:
    return ServerInfo(reply.server, reply.wire_version, tuple(reply.abilities), reply.model)


def _versions(reply: pb.VersionsReply) -> tuple[VersionInfo, ...]:
    return tuple(
        _like(VersionInfo, one, revisions=tuple(map(_revision, one.revisions)), aliases=tuple(one.aliases))
        for one in reply.versions
    )


def _revisions(data: bytes) -> tuple[RevisionInfo, ...]:
    return tuple(map(_revision, pb.RevisionsReply.FromString(data).revisions))


def _revision(one: pb.RevisionInfo) -> RevisionInfo:
    # In a list of versions there are none, and an older server has none anywhere.
    told = {name: json.loads(data) if (data := getattr(one, name)) else None for name in ("parameters", "metrics")}
    return _like(RevisionInfo, one, **told)


def _statistics(reply: pb.StatisticsReply) -> Statistics:
    lanes = tuple(_like(LaneStatistics, lane, batches=_batches(lane)) for lane in reply.lanes)
    return Statistics(_like(PoolStatistics, reply.pool), lanes, reply.workers, reply.workers_busy)


T = TypeVar("T", bound=tuple[Any, ...])


def _batches(lane: pb.LaneStatistics) -> BatchStatistics | None:
    return _like(BatchStatistics, lane.batches) if lane.HasField("batches") else None


def _like(cls: type[T], message: Message, **given: Any) -> T:
    """A tuple of ours with the fields that a message calls the same."""
    fields: tuple[str, ...] = cls._fields  # type: ignore[attr-defined]
    return cls(*(given[name] if name in given else getattr(message, name) for name in fields))

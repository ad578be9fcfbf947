"""``aipod.v1.Admin``: what an operator asks and orders."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import Message

from aipod import __version__
from aipod.engine import Engine
from aipod.engine.administration import VersionState
from aipod.engine.statistics import LaneState
from aipod.errors import InvalidArgument
from aipod.model.store import Revision
from aipod.rpc.desk import Desk, Verb
from aipod.rpc.front import RawCall
from aipod.rpc.job_info import json_object
from aipod.rpc.methods import ABILITIES, ADMIN, WIRE_VERSION
from aipod.rpc.refusal import Refusals
from aipod.rpc.v1 import admin_pb2 as pb

__all__ = ["AdminService"]

_Timeout = float | None
# Verbs that wait for a model to load, which may take as long as it takes.
_AS_LONG_AS_A_LOAD = frozenset({"Load", "Rollback"})


class AdminService:
    """See :class:`~aipod.rpc.server.Service`.

    Args:
        engine: What is administered.
        refusals: How errors are answered.
    """

    def __init__(self, engine: Engine, refusals: Refusals) -> None:
        self._engine = engine
        verbs: dict[str, tuple[type[Message], Verb]] = {
            "Info": (pb.InfoRequest, self._info),
            "Versions": (pb.VersionsRequest, self._versions),
            "Revisions": (pb.VersionRequest, self._revisions),
            "Load": (pb.VersionRequest, self._load),
            "Unload": (pb.VersionRequest, self._unload),
            "Pin": (pb.PinRequest, self._pin),
            "Rollback": (pb.RollbackRequest, self._rollback),
            "SetAlias": (pb.SetAliasRequest, self._set_alias),
            "DropAlias": (pb.DropAliasRequest, self._drop_alias),
            "DeleteVersion": (pb.VersionRequest, self._delete),
            "Statistics": (pb.StatisticsRequest, self._statistics),
        }
        self._desk = Desk(engine, refusals, ADMIN, verbs, _AS_LONG_AS_A_LOAD)

    @property
    def methods(self) -> Mapping[str, float | None]:
        return self._desk.methods

    def __call__(self, raw: RawCall) -> None:
        self._desk(raw)

    def _info(self, request: pb.InfoRequest, timeout: _Timeout) -> Message:
        name = self._engine.model_class.__name__
        return pb.InfoReply(server=__version__, wire_version=WIRE_VERSION, abilities=ABILITIES, model=name)

    def _versions(self, request: pb.VersionsRequest, timeout: _Timeout) -> Message:
        admin = self._engine.admin
        return pb.VersionsReply(versions=map(_version, admin.versions()), aliases=admin.aliases())

    def _revisions(self, request: pb.VersionRequest, timeout: _Timeout) -> Message:
        return pb.RevisionsReply(revisions=map(_whole_revision, self._engine.admin.revisions(request.version)))

    def _load(self, request: pb.VersionRequest, timeout: _Timeout) -> Message:
        self._engine.admin.load(request.version, timeout)
        return pb.Done()

    def _unload(self, request: pb.VersionRequest, timeout: _Timeout) -> Message:
        self._engine.admin.unload(request.version, timeout)
        return pb.Done()

    def _pin(self, request: pb.PinRequest, timeout: _Timeout) -> Message:
        self._engine.admin.pin(request.version, request.pinned)
        return pb.Done()

    def _rollback(self, request: pb.RollbackRequest, timeout: _Timeout) -> Message:
        _must_name(request.version)
        return pb.RollbackReply(revision=self._engine.admin.rollback(request.version, request.revision or None))

    def _set_alias(self, request: pb.SetAliasRequest, timeout: _Timeout) -> Message:
        self._engine.admin.set_alias(request.alias, request.version)
        return pb.Done()

    def _drop_alias(self, request: pb.DropAliasRequest, timeout: _Timeout) -> Message:
        self._engine.admin.drop_alias(request.alias)
        return pb.Done()

    def _delete(self, request: pb.VersionRequest, timeout: _Timeout) -> Message:
        _must_name(request.version)
        self._engine.admin.delete(request.version, timeout)
        return pb.Done()

    def _statistics(self, request: pb.StatisticsRequest, timeout: _Timeout) -> Message:
        statistics = self._engine.admin.statistics()
        return pb.StatisticsReply(
            pool=pb.PoolStatistics(**vars(statistics.pool)),
            lanes=map(_lane, statistics.lanes),
            workers=self._engine.settings.rpc_max_workers,
            workers_busy=statistics.workers_busy,
        )


def _must_name(version: str) -> None:
    """What takes something away has no default."""
    if not version:
        raise InvalidArgument('name the version; the one without a name is "default"')


def _version(state: VersionState) -> pb.VersionInfo:
    on_disk = sum(one.size_bytes for one in state.revisions)
    return pb.VersionInfo(**{**vars(state), "revisions": map(_revision, state.revisions), "size_bytes": on_disk})


def _revision(one: Revision) -> pb.RevisionInfo:
    parent, job = one.manifest.get("parent"), one.manifest.get("job")
    return pb.RevisionInfo(
        number=one.number,
        created=one.created,
        origin=one.origin,
        size_bytes=one.size_bytes,
        live=one.live,
        parent=parent if isinstance(parent, int) else 0,
        job=job if isinstance(job, str) else "",
    )


def _whole_revision(one: Revision) -> pb.RevisionInfo:
    info = _revision(one)
    # An older AIPOD wrote no metrics.
    info.parameters, info.metrics = (json_object(one.manifest.get(name) or {}) for name in ("parameters", "metrics"))
    return info


def _lane(state: LaneState) -> pb.LaneStatistics:
    batches = pb.BatchStatistics(**vars(state.batches)) if state.batches is not None else None
    return pb.LaneStatistics(version=state.version, revision=state.revision, batches=batches, **vars(state.counts))

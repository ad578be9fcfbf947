"""``initialize`` and ``train``: the user's code writes into a staging directory, the result is published, the pool
swaps to it.

Both run on a thread of their own, apart from the workers, and one of them at a time for a version, in all processes
that share the data path. The caller may go away meanwhile: the run goes on, and what it publishes is whole.
"""

from __future__ import annotations

import errno
import logging
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

from aipod.engine.call import Call
from aipod.engine.invoke import endpoint, error_of, perform
from aipod.engine.pool import Pool
from aipod.engine.refusals import stopped
from aipod.errors import AipodError, StorageError, StorageFull, VersionNotFound
from aipod.model.base import AIModelBase
from aipod.model.place import Place, construct
from aipod.model.store import Lease, Store

__all__ = ["Publisher"]

_log = logging.getLogger("aipod.engine")


@dataclass(frozen=True)
class _Run:
    """What ``current_call()`` shows inside: a run ends neither with its caller nor with the caller's deadline."""

    version: str
    method: str
    deadline: float | None = None
    cancelled: bool = False


class Publisher:
    """Makes new revisions.

    Args:
        model_class: The user's class.
        store: Where revisions are published.
        pool: What serves them.
    """

    def __init__(self, model_class: type[AIModelBase], store: Store, pool: Pool) -> None:
        self._model_class = model_class
        self._store = store
        self._pool = pool
        self._verbs = {"initialize": self._initialize, "train": self._train}
        self._calls: set[Call] = set()

    def run(self, call: Call) -> None:
        """Publish what the model's ``initialize`` writes, or what its ``train`` makes of a copy of the live revision.

        Answers the call with what the method returned.
        """
        self._calls.add(call)
        try:
            call.finish(self._verbs[call.method](call))
        except BaseException as error:
            call.fail(error_of(error))
        finally:
            self._calls.discard(call)

    def abandon(self) -> None:
        """The time to finish is over: answer every call that is still inside."""
        for call in list(self._calls):
            call.fail(stopped())

    def _initialize(self, call: Call) -> object:
        version, arguments = call.version, call.arguments()
        parameters = {name: value for name, value in arguments.items() if name != "binary_data"}
        with self._store.writer(version, "initialize"), self._store.stage(version) as staging:
            parent = self._store.current(version)
            value = self._run(call, staging.place, arguments)
            self._store.publish(staging, origin="initialize", parameters=parameters, parent=parent)
        try:
            self._pool.swap(version, keep_old=True)
        except AipodError as error:
            # Most models do not load before they are trained. What was loaded before serves on.
            _log.info("version %r is initialized and waits for training: %s", version, error)
        self._collect(version)
        return value

    def _train(self, call: Call) -> object:
        version, store = call.version, self._store
        job_id = store.jobs.new_id(version)
        with store.writer(version, "train", job=job_id):
            job = store.jobs.start(job_id)
            parent: int | None = None
            number: int | None = None
            try:
                with self._live(version) as source, store.stage(version, job_id, source) as staging:
                    parent = source.number if source is not None else None
                    value = self._run(call, staging.place, call.arguments())
                    number = store.publish(staging, origin="train", parent=parent, result=value)
                self._swap(version, parent)
            except BaseException as error:
                reason = str(error_of(error))
                # The caller may be gone, and then nobody else says it.
                _log.warning("job %r failed: %s", job_id, reason)
                with suppress(StorageError):
                    # A disk that is full keeps that too from being written; the error that came first says more.
                    job.finish("failed", reason, number)
                raise
            job.finish("succeeded", revision=number)
        _log.info("job %r succeeded: revision %d of version %r", job_id, number, version)
        self._collect(version)
        return value

    def _live(self, version: str) -> AbstractContextManager[Lease | None]:
        """The revision that a training starts from; nothing where there is none yet."""
        try:
            return self._store.lease(version)
        except VersionNotFound:
            return nullcontext()

    def _swap(self, version: str, parent: int | None) -> None:
        """Serve what was trained; if it does not load, make its parent live again and say so to the caller."""
        try:
            self._pool.swap(version)
        except AipodError:
            if parent is not None:
                self._store.rollback(version, parent)
                with suppress(AipodError):
                    self._pool.swap(version)
            raise

    def _collect(self, version: str) -> None:
        try:
            self._store.collect(version)
        except AipodError as error:
            # What was published stays published; the next collection takes more.
            _log.warning("old revisions of version %r could not be removed: %s", version, error)

    def _run(self, call: Call, place: Place, arguments: dict[str, Any]) -> object:
        instance = construct(self._model_class, place, call.version, self._store.root)
        try:
            source = _Run(call.version, call.method)
            call.started = time.monotonic()
            return perform(endpoint(getattr(instance, call.method)), source, arguments)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull(f"{call.method} of version {call.version!r}") from error
            raise
        finally:
            try:
                instance.dispose()
            except Exception:
                _log.exception("dispose() after %s of version %r failed", call.method, call.version)

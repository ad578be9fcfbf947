"""One training job that this engine holds, from its place in the queue to its end.

The order of what it writes is what makes a kill harmless::

    queued       the call, the records, the state are on the disk
    running      the staging directory is whole: whatever is found there later the model has written
                 train() runs
    result       what it returned is written down
    published    the revision is whole, has its number, and the link names it, in this order
                 the pool serves it; one that does not load is rolled back
    succeeded    the state is written down; then old revisions are collected

Killed before the link names the revision the job is found interrupted, after that it is found to have succeeded.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from typing import Any, Literal

from aipod.codec import Limits, encode_reply, read_call
from aipod.engine.call import Call
from aipod.engine.invoke import error_of
from aipod.engine.pool import Pool
from aipod.engine.refusals import interrupted
from aipod.engine.runners import Order, Runner
from aipod.errors import (
    AipodError,
    ModelCrashed,
    ModelError,
    SerializationError,
    StorageError,
    TrainingCancelled,
    TrainingFailed,
    VersionNotFound,
    again,
    describe,
)
from aipod.model.job import Job, JobState, metrics_of
from aipod.model.manifest import now
from aipod.model.own_job import OwnJob
from aipod.model.staging import Staging
from aipod.model.store import Lease, Store
from aipod.model.trainlog import TrainingLog

__all__ = ["KEPT_LIMITS", "Ending", "Training"]

_log = logging.getLogger("aipod.engine")

Ending = Literal["cancel", "timeout", "shutdown"]

# What we wrote ourselves was held against the limits of the wire when it came.
KEPT_LIMITS = Limits(max_value_bytes=1 << 31)

_MOST_ATTEMPTS = 3
_RECORD_SHOWN = 300


class Training:
    """A held job.

    Args:
        own: The job.
        hold: What is let go of at the end: that this is the version's one writer.
        store: Where it is published.
        pool: What serves it.
        make_runner: Makes what runs it.
        timeout: Seconds that ``train`` may run, for the sentence.
        is_exclusive: Whether the version's instance goes first.
        changed: Called when its state, its records or its heartbeat have changed.

    Attributes:
        beat: Seconds since the epoch at its last sign of life, 0.0 before the first.
        callers: Who is answered when it is over; guarded by whoever holds the training.
        outcome: What they are answered with, once it is over.
    """

    def __init__(
        self,
        own: OwnJob,
        hold: ExitStack,
        store: Store,
        pool: Pool,
        make_runner: Callable[[Order], Runner],
        timeout: float,
        is_exclusive: bool,
        changed: Callable[[str], object],
    ) -> None:
        self.own = own
        self.beat = 0.0
        self.callers: list[Call] = []
        self.outcome: tuple[object, AipodError | None] = (None, None)
        self._hold = hold
        self._store = store
        self._pool = pool
        self._make_runner = make_runner
        self._timeout = timeout
        self._is_exclusive = is_exclusive
        self._changed = changed
        # Guards what follows, and every change of the job: an order to end comes from another thread than the run.
        self._lock = threading.Lock()
        self._ending: Ending | None = None
        self._stops = False
        self._runner: Runner | None = None
        self._settled = False
        self._number: int | None = None

    def __repr__(self) -> str:
        return f"<Training {self.own.job.id!r}, {self.own.job.state}>"

    @property
    def job(self) -> Job:
        return self.own.job

    @property
    def runner(self) -> Runner | None:
        """What runs ``train`` now, if something does."""
        return self._runner

    def end(self, ending: Ending) -> bool:
        """Tell it to end; False if it is too late for that, or it was told before."""
        with self._lock:
            if self._settled or self._ending is not None:
                return False
            self._ending = ending
            if ending == "cancel":
                try:
                    self.own.change(state="cancelling")
                except StorageError as error:
                    _log.warning("job %r is cancelled, and that could not be written down: %s", self.own.id, error)
            runner = self._runner
        if runner is not None:
            runner.ask("cancel")
        self._changed(self.own.id)
        return True

    def stop(self) -> None:
        """Ask the model to come to an end early; what it returns is published."""
        with self._lock:
            self._stops = True
            runner = self._runner
        if runner is not None:
            runner.ask("stop")

    def sign(self) -> None:
        """It lives."""
        self.beat = time.time()
        self._changed(self.own.id)

    def run(self) -> None:
        """Run it to its end, whatever that is; never raises."""
        value: object = None
        error: AipodError | None = None
        try:
            value = self._train()
        except BaseException as problem:
            error = self._failed(problem)
        self._close(value, error)
        if error is None:
            self._collect()

    def drop(self) -> None:
        """It was cancelled before its turn came."""
        with suppress(AipodError):
            # What an interrupted run left.
            self._store.stage(self.job.version, self.own.id).discard()
        error = TrainingCancelled(self.job.version, self.own.id, "it had not begun")
        self._finish("cancelled", error)
        self._close(None, error)

    def leave(self) -> None:
        """The engine closes: another one goes on with it."""
        self.own.let_go()
        self._close(None, interrupted(self.own.id, goes_on=True))

    def _train(self) -> object:
        version, store, own = self.job.version, self._store, self.own
        resumes = self.job.state == "interrupted"
        arguments = read_call(own.call(), KEPT_LIMITS).kwargs()
        parent = self.job.parent
        with ExitStack() as stack:
            if self._is_exclusive:
                stack.enter_context(self._pool.bars.closed(version, own.id, self._pool.unload))
            source = None if resumes else stack.enter_context(self._live(version))
            staging = stack.enter_context(store.stage(version, own.id, source))
            try:
                if source is not None:
                    parent = source.number
                value = self._attempt(staging, parent, resumes, arguments)
                self._number = self._publish(staging, parent, value)
            except BaseException:
                # Before the directory is discarded it is decided whether somebody goes on from it.
                if self._ending == "shutdown" and own.job.resumable:
                    staging.leave()
                raise
        self._swap(version, parent)
        with self._lock:
            job = own.finish("succeeded", revision=self._number, metrics=metrics_of(value), resumable=False)
        _log.info("job %r succeeded: revision %d of version %r", job.id, job.revision, version)
        return value

    def _attempt(self, staging: Staging, parent: int | None, resumes: bool, arguments: dict[str, Any]) -> object:
        order = Order(self.job, staging, resumes, self.own.output_path, self.sign)
        runner = self._make_runner(order)
        with self._lock:
            self._check_ending()
            self.own.change(state="running", parent=parent, ended="", reason="", **self._begun())
            self._runner = runner
            stops = self._stops
        self.sign()
        if stops:
            runner.ask("stop")
        try:
            return runner.train(arguments)
        except ModelCrashed as error:
            raise TrainingFailed(self.job.version, self.own.id, f"{error}{self._last_record()}") from error
        finally:
            with self._lock:
                self._runner = None

    def _begun(self) -> dict[str, Any]:
        """What is new about a job that begins, once more or for the first time.

        Raises:
            TrainingFailed: It began too often and came to nothing.
        """
        job = self.job
        records = len(TrainingLog(self.own.log_path).read())
        attempts = 1 if records > job.records else job.attempts + 1
        if attempts > _MOST_ATTEMPTS:
            reason = f"it was interrupted {_MOST_ATTEMPTS} times in a row without a new record; start it anew"
            raise TrainingFailed(job.version, job.id, reason)
        return {"attempts": attempts, "records": records, "started": job.started or now()}

    def _publish(self, staging: Staging, parent: int | None, value: object) -> int:
        try:
            kept = encode_reply(value)
        except SerializationError as error:
            raise ModelError(f"train() returned what cannot travel: {error}") from None
        with self._lock:
            if self._ending != "shutdown":
                self._check_ending()
            # From here on it is too late to end it.
            self._settled = True
        self.own.keep_result(kept)
        return self._store.publish(
            staging,
            origin="train",
            parameters=self.job.parameters,
            parent=parent,
            result=value,
            metrics=metrics_of(value),
        )

    def _check_ending(self) -> None:
        if self._ending is not None:
            raise TrainingCancelled(self.job.version, self.own.id)

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

    def _failed(self, problem: BaseException) -> AipodError:
        """Sort what it ended with, and write that down."""
        job, ending = self.job, None if self._settled else self._ending
        error = error_of(problem)
        if ending == "shutdown":
            error = interrupted(job.id, goes_on=job.resumable)
            self._finish("interrupted", error, resumable=job.resumable)
        elif ending == "timeout":
            error = TrainingFailed(job.version, job.id, f"it ran longer than {self._timeout:g} seconds")
            self._finish("failed", error)
        elif ending == "cancel" or isinstance(error, TrainingCancelled):
            if not isinstance(error, TrainingCancelled):
                error = TrainingCancelled(job.version, job.id)
            self._finish("cancelled", error)
        else:
            self._finish("failed", error)
        return error

    def _finish(self, state: JobState, error: AipodError, resumable: bool = False) -> None:
        reason = str(error)
        # The caller may be gone, and then nobody else says it.
        _log.warning("job %r %s: %s", self.own.id, "failed" if state == "failed" else f"is {state}", reason)
        with self._lock, suppress(StorageError):
            # A disk that is full keeps that too from being written; the error that came first says more.
            described = None if state == "interrupted" else describe(error)
            self.own.finish(state, reason, self._number, resumable=resumable, error=described)

    def _close(self, value: object, error: AipodError | None) -> None:
        self.outcome = (value, error)
        self._hold.close()
        self._changed(self.own.id)

    def _collect(self) -> None:
        try:
            self._store.collect(self.job.version)
        except AipodError as error:
            # What was published stays published; the next collection takes more.
            _log.warning("old revisions of version %r could not be removed: %s", self.job.version, error)

    def _last_record(self) -> str:
        records = TrainingLog(self.own.log_path).read()
        if not records:
            return "; it had written no record"
        said = {name: value for name, value in records[-1].items() if name in ("progress", "stage", "message")}
        text = ", ".join(f"{name} {value}" for name, value in said.items() if value is not None)
        return f"; its last record: {text[:_RECORD_SHOWN]}" if text else ""

    def answer(self, call: Call) -> None:
        """Answer a caller, once it is over."""
        value, error = self.outcome
        if error is None:
            call.finish(value)
        else:
            call.fail(again(error))

"""``train``: each is a job, which waits for its turn, runs apart from the calls, and outlives whoever asked for it.

Rules of this file:

- A version is trained by one job at a time, in all processes that share the data path: whoever holds one is the
  version's writer from the moment it is queued until it is over.
- ``_lock`` guards the queue and who is in it; nothing is written, and nobody answered, under it. ``_door`` lets one job
  in at a time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

from aipod.clock import Clock, Timer
from aipod.codec import encode_call
from aipod.config import Settings
from aipod.engine.call import Call
from aipod.engine.child import Origin
from aipod.engine.chores import Chores
from aipod.engine.ledger import Ledger
from aipod.engine.pool import Pool
from aipod.engine.process_runner import ProcessRunner
from aipod.engine.refusals import draining, interrupted, stopped
from aipod.engine.runners import Order, Runner, ThreadRunner
from aipod.engine.training import Ending, Training
from aipod.errors import (
    ConfigError,
    Conflict,
    InvalidArgument,
    NotSupportedError,
    Overloaded,
    TrainingInProgress,
)
from aipod.model.base import AIModelBase
from aipod.model.job import Job, job_fields
from aipod.model.names import check_version
from aipod.model.own_job import OwnJob
from aipod.model.store import Store

__all__ = ["Trainings"]

_log = logging.getLogger("aipod.engine")

# A killed process needs a moment to be gone.
_REAP_SECONDS = 5.0


class Trainings(Ledger):
    """The training jobs of one engine. Methods may block on the disk; any thread may call them.

    Args:
        model_class: The user's class.
        store: Where jobs and revisions are kept.
        pool: What serves what is published.
        settings: How many run, where, and for how long.
        clock: For what is to happen in time.
    """

    def __init__(
        self, model_class: type[AIModelBase], store: Store, pool: Pool, settings: Settings, clock: Clock
    ) -> None:
        self._model_class = model_class
        super().__init__(store, clock)
        self._pool = pool
        self._settings = settings
        self._clock = clock
        self._chores = Chores()
        self._door = threading.Lock()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._queue: deque[Training] = deque()
        self._running: dict[Training, list[Timer]] = {}
        self._held: dict[str, Training] = {}
        self._closed = False
        self._origin = self._find_origin()

    def __repr__(self) -> str:
        return f"<Trainings, {len(self._running)} running, {len(self._queue)} queued>"

    def open(self) -> None:
        """Take over what waits on the disk, and what goes on after an interruption."""
        self._take_over_all(None)

    def start(self, version: str, arguments: dict[str, Any], request_id: str = "", caller: Call | None = None) -> Job:
        """Write down a new job, and run it as soon as its turn comes.

        Args:
            version: The version's own name.
            arguments: What ``train`` is called with.
            request_id: Another call with the same one gets the same job, also if that is over.
            caller: Is answered when the job is over, or this engine has no more to do with it.

        Raises:
            NotSupportedError: The class has no ``train``.
            InvalidArgument: ``version`` is an alias, or an argument cannot travel.
            TrainingInProgress: The version is being trained, here or in another process; names the job.
            Conflict: It is being written otherwise.
            Overloaded: Too many jobs wait already.
        """
        version = check_version(version)
        if self._model_class.train is AIModelBase.train:
            raise NotSupportedError(f"{self._model_class.__name__} has no train()")
        call = encode_call(version, arguments)
        with self._door:
            # What a server that is gone has left comes first.
            self._take_over_all(version)
            known = self._known(version, request_id)
            if known is not None:
                self._join(known, caller)
                return known
            self._check_room()
            with ExitStack() as hold:
                job_id = self._store.jobs.new_id(version)
                self._become_writer(version, job_id, hold)
                own = self._store.jobs.start(
                    job_id,
                    state="queued",
                    call=call,
                    request_id=request_id,
                    parameters=arguments,
                    resumable=bool(self._model_class.resumable),
                )
                return self._enqueue(own, hold.pop_all(), caller)

    def cancel(self, job_id: str) -> Job:
        """End a job, and throw away what it made: the model is asked first, and its process killed after a grace.

        One that is over, or about to be published, stays as it is.

        Raises:
            JobNotFound: There is none.
            InvalidArgument: Another process holds it.
        """
        training = self._mine(job_id)
        if training is not None and self._withdraw(training):
            training.drop()
            self._over(training)
        elif training is not None:
            self._end(training, "cancel")
        return self.get(job_id)

    def stop(self, job_id: str) -> Job:
        """Ask the model to come to an end early; what it returns then is published. One that is over stays as it is.

        Raises:
            JobNotFound: There is none.
            InvalidArgument: It has not begun, or another process holds it.
        """
        training = self._mine(job_id)
        if training is not None:
            with self._lock:
                if training in self._queue:
                    raise InvalidArgument(f"training job {job_id!r} has not begun; cancel it instead")
            training.stop()
        return self.get(job_id)

    def heartbeat(self, job_id: str) -> float:
        """Seconds since the epoch at its last sign of life; 0.0 where that is not known."""
        with self._lock:
            training = self._held.get(job_id)
        return training.beat if training is not None else self._store.jobs.last_record(job_id)

    def is_held(self, job_id: str) -> bool:
        """Whether this engine has still to do with it; its version's next writer is refused that long."""
        with self._lock:
            return job_id in self._held

    def run(self, call: Call) -> None:
        """Start a job for a ``train``, and answer it: at once if it wants to detach, else when the job is over."""
        call.started = time.monotonic()
        job = self.start(call.version, call.arguments(), call.request_id, None if call.detach else call)
        if call.detach:
            call.finish(job_fields(job))

    def drain(self) -> None:
        """Begin no more; ask those that run to end. What is queued stays so on the disk."""
        with self._lock:
            self._closed = True
            queued, running = list(self._queue), list(self._running)
            self._queue.clear()
        for training in queued:
            training.leave()
            self._over(training)
        for training in running:
            training.end("shutdown")

    def close(self, timeout: float) -> bool:
        """Wait for those that run, and end their processes after ``timeout`` seconds; False if some still run."""
        deadline = time.monotonic() + timeout
        with self._lock:
            self._changed.wait_for(lambda: not self._running, timeout)
            running = list(self._running)
        killed = [runner.kill() for one in running if (runner := one.runner) is not None]
        return self._chores.close(max(deadline - time.monotonic(), _REAP_SECONDS if any(killed) else 0.0))

    def abandon(self) -> None:
        """The time to finish is over: answer every call that still waits for a job."""
        with self._lock:
            callers = [call for training in self._held.values() for call in training.callers]
        for call in callers:
            call.fail(stopped())

    def _find_origin(self) -> Origin | None:
        """Where a process of its own finds the class; None where trainings run on threads."""
        has_train = self._model_class.train is not AIModelBase.train
        if self._settings.train_isolation == "thread" or not has_train:
            return None
        try:
            return Origin.of(self._model_class)
        except ConfigError as error:
            _log.warning("%s; its trainings run in the server's own process", error)
            return None

    def _known(self, version: str, request_id: str) -> Job | None:
        if not request_id:
            return None
        return next((job for job in self._store.jobs.of(version) if job.request_id == request_id), None)

    def _join(self, job: Job, caller: Call | None) -> None:
        """Have a caller answered with a job that was there before it."""
        if caller is None:
            return
        with self._lock:
            training = self._held.get(job.id)
            if training is not None:
                training.callers.append(caller)
            closed = self._closed
        if training is None and closed and not self.get(job.id).is_over:
            caller.fail(interrupted(job.id, goes_on=True))
        elif training is None:
            self.follow(job.id, caller)

    def _become_writer(self, version: str, job_id: str, hold: ExitStack) -> None:
        try:
            hold.enter_context(self._store.writer(version, "train", job=job_id))
        except TrainingInProgress as error:
            # Whoever has seen the end of a job may start the next one at once.
            before = error.job
            if not self.get(before).is_over:
                raise
            with self._lock:
                self._changed.wait_for(lambda: before not in self._held, _REAP_SECONDS)
            hold.enter_context(self._store.writer(version, "train", job=job_id))

    def _check_room(self) -> None:
        with self._lock:
            if self._closed:
                raise draining()
            waits = len(self._running) >= self._settings.train_max_jobs
            if waits and len(self._queue) >= self._settings.train_max_queued:
                raise Overloaded(
                    f"{len(self._queue)} trainings wait for their turn already (AIPOD_TRAIN_MAX_QUEUED);"
                    " try again later"
                )

    def _take_over_all(self, version: str | None) -> None:
        for job in self._store.jobs.waiting(version):
            if job.id not in self._held:
                try:
                    self._take_over(job)
                except (Conflict, TrainingInProgress):
                    _log.debug("job %r is held by another server, or its version is being written", job.id)

    def _take_over(self, job: Job) -> None:
        with ExitStack() as hold:
            hold.enter_context(self._store.writer(job.version, "train", job=job.id))
            own = self._store.jobs.take(job.id)
            if own is not None:
                self._enqueue(own, hold.pop_all())

    def _enqueue(self, own: OwnJob, hold: ExitStack, caller: Call | None = None) -> Job:
        training = Training(
            own,
            hold,
            self._store,
            self._pool,
            self._make_runner,
            self._settings.train_timeout,
            self._settings.train_exclusive,
            self._followers.tell,
        )
        job = own.job
        if caller is not None:
            training.callers.append(caller)
        with self._lock:
            closed = self._closed
            if not closed:
                self._queue.append(training)
                self._held[own.id] = training
        if closed:
            # It is on the disk, for the next server.
            training.leave()
            self._over(training)
        else:
            self._advance()
        return job

    def _advance(self) -> None:
        """Let those begin whose turn it is."""
        while True:
            with self._lock:
                if self._closed or not self._queue or len(self._running) >= self._settings.train_max_jobs:
                    return
                training = self._queue.popleft()
                self._running[training] = []
            self._chores.run(f"train-{training.job.version}", partial(self._work, training))

    def _work(self, training: Training) -> None:
        limit = self._settings.train_timeout
        if limit:
            self._later(training, limit, partial(self._end, training, "timeout"))
        try:
            training.run()
        finally:
            self._over(training)

    def _over(self, training: Training) -> None:
        """It is not held any more: whoever waited for it is answered, and the next one begins."""
        with self._lock:
            for timer in self._running.pop(training, []):
                timer.cancel()
            self._held.pop(training.own.id, None)
            callers, training.callers = training.callers, []
            self._changed.notify_all()
        for call in callers:
            training.answer(call)
        self._followers.tell(training.own.id)
        self._advance()

    def _end(self, training: Training, ending: Ending) -> None:
        """Tell one that runs to end; first the model, then, in two steps, its process."""
        if training.end(ending):
            grace = self._settings.train_grace
            self._later(training, grace / 2, partial(self._insist, training, "terminate"))
            self._later(training, grace, partial(self._insist, training, "kill"))

    def _insist(self, training: Training, how: str) -> None:
        runner = training.runner
        if runner is not None:
            getattr(runner, how)()

    def _later(self, training: Training, seconds: float, action: Callable[[], object]) -> None:
        timer = self._clock.at(time.monotonic() + seconds, action)
        with self._lock:
            if training in self._running:
                self._running[training].append(timer)
                return
        timer.cancel()

    def _withdraw(self, training: Training) -> bool:
        """Take one out of the queue; False if its turn has come."""
        with self._lock, suppress(ValueError):
            self._queue.remove(training)
            return True
        return False

    def _mine(self, job_id: str) -> Training | None:
        """The job as this engine holds it; None if it is over.

        Raises:
            InvalidArgument: Another process holds it.
        """
        # One that is just let in is on the disk a moment before it is held.
        with self._door, self._lock:
            training = self._held.get(job_id)
        if training is None and not self.get(job_id).is_over:
            raise InvalidArgument(f"another server on the same data path holds training job {job_id!r}; ask that one")
        return training

    def _make_runner(self, order: Order) -> Runner:
        if self._origin is None:
            return ThreadRunner(self._model_class, self._store.root, order)
        return ProcessRunner(self._origin, self._store.root, order, self._settings)

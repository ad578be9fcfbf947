"""One instance of the user's class, with all that keeps it alive: its data's lease, its lane, its memory.

A resident is built and disposed of on threads of its own; the pool's lock guards ``state``, and nobody else writes it.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Any

from aipod.clock import Timer
from aipod.config import Settings
from aipod.engine.invoke import endpoint, error_of, memory_of, prepare, traceback_text
from aipod.engine.lane import Lane
from aipod.errors import AipodError, InternalError, LoadError, VersionNotFound, again
from aipod.memory import resident_bytes
from aipod.model.base import AIModelBase, has_batches
from aipod.model.batching import BatchPredict
from aipod.model.place import Place, construct
from aipod.model.store import Lease, Scratch, Store

__all__ = ["Methods", "Resident", "State"]

Methods = dict[str, Callable[..., Any]]

_log = logging.getLogger("aipod.engine")


class State(Enum):
    WAITING = "waiting"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class Resident:
    """A version's place in the pool, from the first call that wants it to the end of its instance.

    Attributes:
        state: See the pool.
        size_bytes: What it takes up: an estimate until it is loaded.
        wanted: How many others than callers want it loaded; it stays in the queue for them although no call waits.
        waiting_since: Instant at which it began to wait for a place.
        displaced: Who was evicted to make room for it.
        timers: What is going to happen to it in time.
        loaded_at: Instant of the monotonic clock, 0.0 before.
        settled: Set once it is ready or has failed; ``error`` says which.
    """

    def __init__(self, version: str, size_bytes: int, make_lane: Callable[[Resident], Lane]) -> None:
        self.version = version
        self.size_bytes = size_bytes
        self.lane = make_lane(self)
        self.state = State.WAITING
        self.wanted = 0
        self.waiting_since = time.monotonic()
        self.next_refusal = float("inf")
        self.error: AipodError | None = None
        self.disposing = False
        self.displaced: list[Resident] = []
        self.timers: list[Timer] = []
        self.settled = threading.Event()
        self.gone = threading.Event()
        self.loaded_at = 0.0
        self.load_seconds = 0.0
        self.revision = 0
        self._instance: AIModelBase | None = None
        self._hold: Lease | Scratch | None = None

    def __repr__(self) -> str:
        return f"<Resident {self.version!r} revision {self.revision} {self.state.value}, {self.lane!r}>"

    def cancel_timers(self) -> None:
        """What was going to happen no longer matters, and nothing may keep the instance for it."""
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()

    def settle(self, error: AipodError | None) -> None:
        self.error = error
        self.settled.set()

    def look(self, store: Store, strict: bool) -> None:
        """See what is on disk before it takes part in anything: whether there is data, and how much.

        Raises:
            VersionNotFound: There is none, and ``strict`` asks for it.
        """
        live = store.current(self.version)
        if live is None and strict:
            raise VersionNotFound(self.version)
        if live is not None:
            self.size_bytes = sum(one.size_bytes for one in store.revisions(self.version) if one.live)

    def bring_up(self, model_class: type[AIModelBase], store: Store, settings: Settings) -> Methods:
        """Build the instance, load and warm it; gives the methods that a lane may call.

        Raises:
            AipodError: What the user's code raised of our tree, or ``LoadError`` for anything else. Nothing is left
                behind.
        """
        try:
            return self._load(model_class, store, settings)
        except BaseException as error:
            failure = self._failure(error, store)
        # Outside of the handler, and logged as text: nothing may hold the frames, which hold what was half loaded.
        _log.warning("version %r is not loaded: %s\n%s", self.version, failure, failure.traceback)
        self.take_down()
        raise failure

    def _load(self, model_class: type[AIModelBase], store: Store, settings: Settings) -> Methods:
        before, started = resident_bytes(), time.monotonic()
        place = self._place(store, settings.strict_versions)
        self._instance = instance = construct(model_class, place, self.version, store.root)
        prepare(instance)
        self.size_bytes = memory_of(instance, before)
        self._check_size(settings.model_pool_bytes)
        self.load_seconds = time.monotonic() - started
        self.loaded_at = time.monotonic()
        predict = BatchPredict(instance) if has_batches(model_class) else endpoint(instance.predict)
        return {"predict": predict, "log": endpoint(instance.log)}

    def take_down(self) -> None:
        """Dispose of the instance and give everything back; never raises, since nobody could do anything about it."""
        instance, self._instance = self._instance, None
        self.lane.methods = {}
        if instance is not None:
            try:
                instance.dispose()
            except BaseException:
                _log.exception("dispose() of version %r failed; its instance is dropped all the same", self.version)
        if self._hold is not None:
            with suppress(OSError, AipodError):
                self._hold.close()
        if instance is not None:
            del instance
            # Models are full of reference cycles, and it is their memory that the next one waits for.
            gc.collect()

    def _place(self, store: Store, strict: bool) -> Place:
        try:
            lease = self._hold = store.lease(self.version)
        except VersionNotFound:
            if strict:
                raise
            scratch = self._hold = store.scratch(self.version)
            return scratch.place
        self.revision = lease.number
        return lease.place

    def _check_size(self, limit: int) -> None:
        if limit and self.size_bytes > limit:
            needs = f"it takes {self.size_bytes} bytes, and all together may take {limit} (AIPOD_MODEL_POOL_BYTES)"
            raise LoadError(self.version, needs, self.revision or None)

    def _failure(self, error: BaseException, store: Store) -> AipodError:
        try:
            failure = again(self._load_error(error, store))
        except Exception:
            _log.exception("what version %r failed with cannot be told", self.version)
            failure = InternalError()
        failure.traceback = traceback_text(error)
        return failure

    def _load_error(self, error: BaseException, store: Store) -> AipodError:
        if isinstance(error, AipodError):
            return error
        reason = str(error_of(error))
        if not self.revision:
            reason += "; it has no data: call initialize() or train() on it, or ask for one that versions() lists"
        origins = {one.number: one.origin for one in store.revisions(self.version)} if self.revision else {}
        if origins.get(self.revision) == "initialize":
            reason += "; initialize() published it and it was never trained: call train(), or roll back"
        return LoadError(self.version, reason, self.revision or None)

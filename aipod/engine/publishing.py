"""``initialize``: the user's code writes into a staging directory, the result is published, the pool swaps to it.

It runs on a thread of its own, apart from the workers, as the one writer of the version in all processes that share the
data path. The caller may go away meanwhile: the run goes on, and what it publishes is whole.
"""

from __future__ import annotations

import logging
import time

from aipod.engine.call import Call
from aipod.engine.invoke import error_of
from aipod.engine.pool import Pool
from aipod.engine.refusals import stopped
from aipod.engine.running import RunSource, run_method
from aipod.errors import AipodError
from aipod.model.base import AIModelBase
from aipod.model.store import Store

__all__ = ["Publisher"]

_log = logging.getLogger("aipod.engine")


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
        self._calls: set[Call] = set()

    def run(self, call: Call) -> None:
        """Publish what the model's ``initialize`` writes, and answer the call with what that returned."""
        self._calls.add(call)
        try:
            call.finish(self._initialize(call))
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
            source = RunSource(version, "initialize")
            call.started = time.monotonic()
            value = run_method(self._model_class, self._store.root, staging.place, source, arguments)
            self._store.publish(staging, origin="initialize", parameters=parameters, parent=parent)
        try:
            self._pool.swap(version, keep_old=True)
        except AipodError as error:
            # Most models do not load before they are trained. What was loaded before serves on.
            _log.info("version %r is initialized and waits for training: %s", version, error)
        self._collect(version)
        return value

    def _collect(self, version: str) -> None:
        try:
            self._store.collect(version)
        except AipodError as error:
            # What was published stays published; the next collection takes more.
            _log.warning("old revisions of version %r could not be removed: %s", version, error)

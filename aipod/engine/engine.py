"""The engine: a model class, its data and its settings, ready to be called. Knows no transport.

Usable by itself::

    with Engine(Digits, data_path="appdata") as engine:
        engine.predict("v1", image=array)
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from aipod.clock import Clock
from aipod.config import Settings
from aipod.engine.administration import Administration
from aipod.engine.batch_lane import BatchLane, BatchPolicy
from aipod.engine.call import Call, LocalCall, check_priority
from aipod.engine.child.origin import Origin, reached
from aipod.engine.chores import Chores
from aipod.engine.home import Home, ThreadHome
from aipod.engine.invoke import error_of
from aipod.engine.lane import Lane
from aipod.engine.pool import Pool
from aipod.engine.publishing import Publisher
from aipod.engine.refusals import draining
from aipod.engine.replicas import Replicas, count
from aipod.engine.single_lane import SingleLane
from aipod.engine.trainings import Trainings
from aipod.engine.watching import Watch
from aipod.engine.workers import EventLoop, Workers
from aipod.errors import AipodError, ConfigError, InternalError, InvalidArgument, NotSupportedError
from aipod.model.base import AIModelBase, has_batches, has_unused_batches
from aipod.model.batching import problems
from aipod.model.names import check_version
from aipod.model.store import Store
from aipod.model.trainlog import TrainingLog

__all__ = ["Engine"]

_log = logging.getLogger("aipod.engine")

# An event loop runs any number of coroutines; something has to end it all the same.
_MAX_COROUTINES = 1024


class Engine:
    """Everything between a call and the user's class.

    Args:
        model_class: A subclass of :class:`~aipod.model.AIModelBase`.
        settings: What :meth:`Settings.load` gave; None reads the environment.
        explicit: Settings by name, stronger than the environment (without ``settings`` only).

    Raises:
        ConfigError: The class or a setting makes no sense.
    """

    def __init__(self, model_class: type[AIModelBase], settings: Settings | None = None, **explicit: Any) -> None:
        if not (isinstance(model_class, type) and issubclass(model_class, AIModelBase)):
            raise ConfigError([f"{model_class!r} is no subclass of AIModelBase; derive the model from it"])
        reached(model_class, engine=True)
        if settings is not None and explicit:
            raise ConfigError(["give either settings or single ones by name, not both"])
        if has_batches(model_class) and (wrong := problems(model_class)):
            raise ConfigError(wrong)
        self.model_class = model_class
        self.settings = settings or Settings.load(None, model_class, **explicit)
        # Said now, and not with the first load: no other process may be able to find the class.
        self._origin = Origin.of(model_class) if count(self.settings) else None
        self._store = Store(self.settings.data_path, self.settings.keep_revisions)
        self._lock = threading.Lock()
        self._open = False
        self._closed = False

    def __repr__(self) -> str:
        state = "open" if self._open else "closed" if self._closed else "not open yet"
        return f"<Engine {self.model_class.__name__} on {str(self.settings.data_path)!r}, {state}>"

    def __enter__(self) -> Engine:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def data_root(self) -> Path:
        """Where the data lies, absolute; must not be told to callers elsewhere."""
        return self._store.root

    def open(self) -> None:
        """Recover the data path, start the threads, load what is to be preloaded. The first call does it too.

        Raises:
            StorageError: The data path cannot be used.
            ConfigError: A name in ``preload`` or ``pin`` is none.
        """
        with self._lock:
            if self._open or self._closed:
                return
            wanted, pinned = self._names("preload"), self._names("pin")
            self._store.open()
            settings = self.settings
            self._chores = Chores()
            # Of its own, so that no number of trainings shuts the operator out.
            self._desk = Chores()
            self._clock = Clock()
            self._workers: Workers | EventLoop
            self._is_batched = has_batches(self.model_class)
            self._is_async = _is_async(self.model_class)
            self._workers = EventLoop() if self._is_async else Workers(settings.rpc_max_workers)
            self._pool = Pool(
                self._new_home, self._store, settings, self._new_lane, self._limit, self._chores, self._clock
            )
            self.admin = Administration(self._store, self._pool, self._workers_busy)
            self._publisher = Publisher(self.model_class, self._store, self._pool)
            self.trainings = Trainings(self.model_class, self._store, self._pool, settings, self._clock)
            self._routes: dict[str, Callable[[Call], None]] = {
                "predict": self._to_pool,
                "log": self._to_pool if self.model_class.log is not AIModelBase.log else self._to_records,
                "initialize": self._to_publisher,
                "train": self._to_trainings,
            }
            if 0 < settings.model_pool_size < len(set(pinned)):
                sizes = (
                    f"{len(set(pinned))} versions are pinned, and AIPOD_MODEL_POOL_SIZE is {settings.model_pool_size}"
                )
                _log.warning("%s: some of them will never be loaded", sizes)
            for version in pinned:
                self._pool.pin(version)
            if has_unused_batches(self.model_class):
                _log.warning("%s.predict_batch is not used: it does not take (inputs)", self.model_class.__name__)
            self._watch = Watch(self._store, self._pool, settings.watch_seconds, self._clock, self._chores)
            self._open = True
        self.trainings.open()
        self._watch.begin()
        self.admin.preload([*wanted, *pinned])

    def close(self, timeout: float | None = None) -> bool:
        """Refuse what comes, finish what runs, dispose of every instance.

        Args:
            timeout: Seconds; None for ``drain_seconds``.

        Returns:
            False if something was still running at the end; its threads are daemons.
        """
        with self._lock:
            was_open, self._open, self._closed = self._open, False, True
        if not was_open:
            return True
        deadline = time.monotonic() + (self.settings.drain_seconds if timeout is None else timeout)

        def left() -> float:
            return max(0.0, deadline - time.monotonic())

        self._watch.end()
        self.trainings.drain()
        idle = self._pool.close(left())
        idle = self.trainings.close(left()) and idle
        idle = self._chores.close(left()) and self._desk.close(left()) and idle
        if not idle:
            self.trainings.abandon()
            self._pool.abandon()
            self._publisher.abandon()
        # A worker that runs nothing ends at once; what still runs now has had its time.
        idle = self._workers.close(left() if idle else 0.0) and idle
        self._clock.close()
        return idle

    def submit(self, call: Call) -> None:
        """Take a call; it is answered sooner or later, on some thread. Never blocks, never raises."""
        try:
            if not self._open:
                self._open_late()
            route = self._routes.get(call.method)
            if call.priority:
                check_priority(call.priority)
            if route is None:
                raise InvalidArgument(f"there is no method {call.method!r}; call one of {', '.join(self._routes)}")
            route(call)
        except AipodError as error:
            call.fail(error)
        except Exception:
            _log.exception("a call of %s could not be taken", call.method)
            call.fail(InternalError())

    def call(self, method: str, version: str, arguments: dict[str, Any], timeout: float | None = None) -> Any:
        """Run one call to its end.

        Args:
            method: ``"predict"``, ``"log"``, ``"initialize"`` or ``"train"``.
            version: Its name, or an alias.
            arguments: Keyword arguments for the model.
            timeout: Seconds; None for ever.

        Raises:
            AipodError: See :mod:`aipod.errors`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        call = LocalCall(version, method, arguments, deadline)
        self.submit(call)
        return call.result()

    def predict(self, version: str = "default", /, **kwargs: Any) -> Any:
        return self.call("predict", version, kwargs)

    def initialize(self, version: str = "default", /, **kwargs: Any) -> Any:
        return self.call("initialize", version, kwargs)

    def train(self, version: str = "default", /, **kwargs: Any) -> Any:
        return self.call("train", version, kwargs)

    def log(self, version: str = "default", /, **kwargs: Any) -> Any:
        return self.call("log", version, kwargs)

    def background(self, name: str, work: Callable[[], object]) -> None:
        """Run an operator's request on a thread of its own.

        Raises:
            Overloaded: Too many run already.
            Unavailable: The engine is closed.
        """
        if not self._open:
            self._open_late()
        self._desk.run(name, work, for_caller=True)

    def _open_late(self) -> None:
        if self._closed:
            raise draining()
        self.open()

    def _names(self, setting: str) -> list[str]:
        try:
            return [check_version(name) for name in getattr(self.settings, setting)]
        except AipodError as error:
            raise ConfigError([f"{self.settings.label(setting)}: {error}"]) from None

    def _workers_busy(self) -> int:
        return sum(one.lane.busy for one in self._pool.residents())

    def _new_lane(self, version: str, on_idle: Callable[[Lane], None]) -> Lane:
        settings = self.settings
        common = (version, self._workers, self._clock, settings.max_queue, settings.max_queue_bytes, on_idle)
        if not self._is_batched:
            return SingleLane(*common, eager=self._is_async)
        cls = self.model_class
        keyed = cls.stacked or cls.batch_key is not AIModelBase.batch_key
        return BatchLane(
            *common, BatchPolicy(settings.max_batch_size, settings.batch_timeout, settings.latency_target, keyed)
        )

    def _new_home(self) -> Home:
        if self._origin is None:
            return ThreadHome(self.model_class)
        return Replicas(self.model_class, self._origin, self.settings, self._clock)

    def _limit(self, instances: int, copies: int) -> int:
        """How many calls, or batches, of one instance may run at a time."""
        # Two batches side by side would each be half as full, and one is answered and read while another runs anyway.
        wanted = copies * (self.settings.max_concurrency or (1 if self._is_batched else 0))
        if not copies:
            return 0
        if self._is_async:
            return wanted or _MAX_COROUTINES
        workers = self.settings.rpc_max_workers
        share = workers - 1 if instances > 1 and workers > 1 else workers
        return min(wanted or share, share)

    def _to_pool(self, call: Call) -> None:
        call.version = self._store.resolve(check_version(call.version))
        self._pool.submit(call)

    def _to_publisher(self, call: Call) -> None:
        # Not resolved: who writes names the version itself. The store refuses an alias, with the version's name.
        call.version = check_version(call.version)
        if self._closed:
            raise draining()
        self._chores.run(f"{call.method}-{call.version}", partial(self._publisher.run, call), for_caller=True)

    def _to_trainings(self, call: Call) -> None:
        call.version = check_version(call.version)
        if self._closed:
            raise draining()
        self._chores.run(f"train-{call.version}", partial(self._start_training, call), for_caller=True)

    def _start_training(self, call: Call) -> None:
        try:
            self.trainings.run(call)
        except BaseException as error:
            call.fail(error_of(error))

    def _to_records(self, call: Call) -> None:
        """The base class's ``log``: reads records from disk, with no instance at all."""
        call.version = self._store.resolve(check_version(call.version))
        self._desk.run("log", partial(self._read_records, call), for_caller=True)

    def _read_records(self, call: Call) -> None:
        call.started = time.monotonic()
        try:
            arguments = call.arguments()
            name = arguments.get("name", "trainning")
            if name != "trainning":
                raise NotSupportedError(
                    f"{self.model_class.__name__} has no log {name!r}; the training log is called 'trainning'"
                )
            after, limit = (_count(arguments, place) for place in ("after", "limit"))
            call.finish(TrainingLog(self._store.log_path(call.version)).read(after or 0, limit))
        except BaseException as error:
            call.fail(error_of(error))


def _count(arguments: Mapping[str, Any], name: str) -> int | None:
    """A number of records; None if there is none.

    Raises:
        InvalidArgument: It makes no sense.
    """
    value = arguments.get(name)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise InvalidArgument(f"{name} is {value!r:.64}; give a whole number of records, or leave it out")


def _is_async(model_class: type[AIModelBase]) -> bool:
    predict = getattr(model_class, "predict_batch" if has_batches(model_class) else "predict")
    return inspect.iscoroutinefunction(predict)

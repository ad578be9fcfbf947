"""An instance in processes of its own: one, or several copies that share the calls of one lane.

Rules of this file:

- ``_lock`` guards who is there and how much each has to do; nothing is called back, started or sent under it.
- A copy that dies takes the calls that it holds with it, and they are told so; none of them is run again by itself. One
  that it cannot have heard of goes to another copy. Another is started in its place, at once, and then with growing
  pauses. Calls wait in the lane while there is none.
- A copy is out of the list, and the lane knows of it, before anybody hears that it has died.
- Once :meth:`Replicas.move_out` has begun, nothing is started any more.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from aipod.clock import Clock
from aipod.config import Settings, inherited
from aipod.engine.child import ChildInstance, MakeOrder, Origin
from aipod.engine.child.instance import NeverRan, Source
from aipod.engine.home import Methods
from aipod.engine.invoke import error_of
from aipod.engine.suspects import Suspects
from aipod.errors import AipodError, ModelCrashed
from aipod.model.base import AIModelBase, has_batches
from aipod.model.batching import BatchPredict, Entry
from aipod.model.call import current_source
from aipod.model.place import Place
from aipod.process import Ended

__all__ = ["Replicas", "count"]

_log = logging.getLogger("aipod.engine")

# How long a copy may take to dispose of its instance and leave.
_LEAVE_SECONDS = 10.0
# The pauses before another try, where a copy did not come up, or died before it had answered anybody.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_CUDA = re.compile(r"cuda:(\d+)")
_VISIBLE = "CUDA_VISIBLE_DEVICES"


def count(settings: Settings) -> int:
    """How many copies of each instance the settings ask for, each in a process of its own; 0 for none in processes."""
    if settings.devices:
        return len(settings.devices)
    if settings.replicas > 1:
        return settings.replicas
    return 1 if settings.isolation == "process" else 0


class Replicas:
    """Copies of one instance, each in a child.

    Args:
        model_class: The user's class.
        origin: Where another process finds it.
        settings: How many copies there are, and on what devices.
        clock: For what waits.
    """

    def __init__(self, model_class: type[AIModelBase], origin: Origin, settings: Settings, clock: Clock) -> None:
        self.width = 0
        self.size_bytes = 0
        self._model_class = model_class
        self._origin = origin
        self._settings = settings
        self._clock = clock
        self._suspects = Suspects()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._copies: list[_Copy] = []
        self._leaving = False
        # Why there will be no copy any more.
        self._failure = ""
        self._on_width: Callable[[], object] = lambda: None
        self._on_lost: Callable[[AipodError], object] | None = None
        self._order: MakeOrder | None = None

    def move_in(self, version: str, root: Path, place: Place) -> Methods:
        if place.kind == "scratch":
            place.prepare()
        kind: Any = place.kind
        self._order = MakeOrder(self._origin.fields(), version, str(root), kind, str(place.directory()))
        seats = [_Seat(device) for device in self._settings.devices or [""] * count(self._settings)]
        with ThreadPoolExecutor(len(seats), thread_name_prefix="aipod-replica") as several:
            # All of them are waited for, so that the first that fails leaves none behind.
            started = [several.submit(self._bring_up, seat) for seat in seats]
        failed = next((error for error in (one.exception() for one in started) if error is not None), None)
        if failed is not None:
            # Without the frames of the pool of threads, which would pass for the model's.
            raise failed.with_traceback(None)
        methods: Methods = {"predict": self._predict(), "log": partial(self._call, "log")}
        return methods

    def watch(self, on_width: Callable[[], object], on_lost: Callable[[AipodError], object]) -> None:
        self._on_width, self._on_lost = on_width, on_lost

    def move_out(self) -> None:
        with self._lock:
            self._leaving = True
            copies, self._copies, self.width = self._copies, [], 0
            for copy in copies:
                copy.is_leaving = True
            self._changed.notify_all()
        if copies:
            # Side by side: one that does not leave must not keep the others.
            with ThreadPoolExecutor(len(copies), thread_name_prefix="aipod-replica") as several:
                several.map(lambda copy: copy.child.end(_LEAVE_SECONDS), copies)
            # Who waits for a process's end refers to what it shared with this one, and is referred to by it.
            del copies, copy
            gc.collect()

    def _predict(self) -> Callable[..., Any]:
        cls = self._model_class
        if has_batches(cls):
            is_async = inspect.iscoroutinefunction(cls.predict_batch)  # type: ignore[attr-defined]
            return _Batches(cls, self._batch_async if is_async else self._batch)
        is_async = inspect.iscoroutinefunction(cls.predict)
        # Not partial: whether it is a coroutine function is looked at.
        return self._predict_async if is_async else partial(self._call, "predict")

    def _call(self, method: str, /, **arguments: Any) -> Any:
        return self._ask(method, [arguments], lambda child: child.call(method, arguments, _source()))

    def _batch(self, inputs: Sequence[dict[str, Any]]) -> list[Any]:
        outputs: list[Any] = self._ask("predict", inputs, lambda child: child.batch(inputs, _source()))
        return outputs

    async def _predict_async(self, /, **arguments: Any) -> Any:
        return await self._ask_async(
            "predict", [arguments], lambda child: child.call_async("predict", arguments, _source())
        )

    async def _batch_async(self, inputs: Sequence[dict[str, Any]]) -> list[Any]:
        outputs: list[Any] = await self._ask_async(
            "predict", inputs, lambda child: child.batch_async(inputs, _source())
        )
        return outputs

    def _ask(self, method: str, inputs: Sequence[dict[str, Any]], ask: Callable[[ChildInstance], Any]) -> Any:
        """Have the copy with the least to do answer one call, or one batch."""
        self._check(method, inputs)
        while True:
            copy = self._take() or self._wait(_source().deadline)
            try:
                with self._turn(copy, method, inputs):
                    return ask(copy.child)
            except NeverRan:
                continue

    async def _ask_async(
        self, method: str, inputs: Sequence[dict[str, Any]], ask: Callable[[ChildInstance], Awaitable[Any]]
    ) -> Any:
        """The same on an event loop."""
        self._check(method, inputs)
        while True:
            copy = self._take()
            if copy is None:
                copy = await asyncio.to_thread(self._wait, _source().deadline)
            try:
                with self._turn(copy, method, inputs):
                    return await ask(copy.child)
            except NeverRan:
                continue

    def _check(self, method: str, inputs: Sequence[dict[str, Any]]) -> None:
        for arguments in inputs:
            self._suspects.check(method, arguments)

    def _take(self) -> _Copy | None:
        """The copy with the least to do, for one turn; None while there is none."""
        with self._lock:
            copy = min(self._copies, key=lambda one: one.busy, default=None)
            if copy is not None:
                copy.busy += 1
                # Behind the others: of those that have as little to do, each has its turn.
                self._copies.remove(copy)
                self._copies.append(copy)
        return copy

    def _wait(self, deadline: float | None) -> _Copy:
        """Wait for a copy: the lane had let a call out before it heard that there is none.

        Raises:
            ModelCrashed: None has come.
        """
        while (copy := self._take()) is None:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            with self._lock:
                there = self._changed.wait_for(lambda: self._copies or self._leaving or self._failure, left)
            if not there or self._leaving or self._failure:
                why = self._failure or "no other one has come up in time"
                raise ModelCrashed(f"the process of version {self._version!r} is gone, and {why}; the call was not run")
        return copy

    @contextmanager
    def _turn(self, copy: _Copy, method: str, inputs: Sequence[dict[str, Any]]) -> Iterator[None]:
        try:
            yield
        except ModelCrashed as error:
            # Before anybody hears of it, who may come back at once.
            self._remove(copy)
            if not isinstance(error, NeverRan):
                for arguments in inputs:
                    self._suspects.died(method, arguments)
            raise
        else:
            copy.answered = True
            for arguments in inputs:
                self._suspects.lived(method, arguments)
        finally:
            with self._lock:
                copy.busy -= 1

    def _remove(self, copy: _Copy) -> bool:
        """A copy is gone; whether it was there before."""
        with self._lock:
            if copy not in self._copies:
                return False
            self._copies.remove(copy)
            self._count()
        self._on_width()
        return True

    def _bring_up(self, seat: _Seat) -> None:
        """Start a copy and have it load; it is there then.

        Raises:
            AipodError: Why it does not. Nothing is left behind.
        """
        assert self._order is not None
        child = ChildInstance.start(
            replace(self._order, device=seat.device),
            environ=seat.variables,
            shared_memory_bytes=self._settings.shared_memory_bytes,
        )
        try:
            size = child.load()
        except BaseException:
            child.end(0.0)
            raise
        copy = _Copy(child, seat, size)
        with self._lock:
            leaving = self._leaving
            if not leaving:
                self._copies.append(copy)
                self._count()
                self._changed.notify_all()
        if leaving:
            child.end(0.0)
            return
        # Called at once, if it has died meanwhile.
        child.ended.add_done_callback(partial(self._died, copy))

    def _count(self) -> None:
        self.width = len(self._copies)
        self.size_bytes = sum(one.size_bytes for one in self._copies)

    def _died(self, copy: _Copy, ended: Future[Ended]) -> None:
        """On the thread that waits for the process: a copy is gone."""
        if copy.is_leaving:
            return
        self._remove(copy)
        copy.child.end(0.0)
        seat = copy.seat
        seat.pause = 0.0 if copy.answered else min(max(_FIRST_PAUSE, 2 * seat.pause), _LONGEST_PAUSE)
        then = f"in {seat.pause:.0f} seconds" if seat.pause else "now"
        _log.warning("a process of version %r is gone: %s; another is started %s", self._version, ended.result(), then)
        self._replace_later(seat)

    def _replace_later(self, seat: _Seat) -> None:
        start = threading.Thread(target=self._replace, args=(seat,), name="aipod-replace", daemon=True).start
        if seat.pause:
            self._clock.at(time.monotonic() + seat.pause, start)
        else:
            start()

    def _replace(self, seat: _Seat) -> None:
        if self._leaving:
            return
        try:
            self._bring_up(seat)
        except Exception as error:
            failure = error_of(error)
            seat.pause = min(max(_FIRST_PAUSE, 2 * seat.pause), _LONGEST_PAUSE)
            _log.warning("a process of version %r could not be replaced: %s", self._version, failure)
            if self.width or self._on_lost is None:
                self._replace_later(seat)
                return
            with self._lock:
                self._failure = str(failure)
                self._changed.notify_all()
            self._on_lost(failure)
            return
        self._on_width()

    @property
    def _version(self) -> str:
        return self._order.version if self._order is not None else ""


class _Seat:
    """What one copy is started with; it outlives the copies that are started in turn.

    Attributes:
        device: What ``device`` of the instance is to be.
        variables: What its process has in its environment besides.
        pause: How long the last pause before another try was, in seconds.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.variables: Mapping[str, str] = {}
        self.pause = 0.0
        match = _CUDA.fullmatch(device)
        if match:
            # It sees this one alone, as its first: code that takes the first there is takes the right one.
            visible = inherited({}).get(_VISIBLE, "").split(",")
            number = int(match[1])
            self.variables = {_VISIBLE: visible[number] if visible != [""] and number < len(visible) else match[1]}
            self.device = "cuda:0"


class _Copy:
    """One child.

    Attributes:
        busy: How many calls, or batches, it has.
        answered: Whether it has answered any.
        is_leaving: Whether it was asked to go.
    """

    def __init__(self, child: ChildInstance, seat: _Seat, size_bytes: int) -> None:
        self.child = child
        self.seat = seat
        self.size_bytes = size_bytes
        self.busy = 0
        self.answered = False
        self.is_leaving = False


class _Batches(BatchPredict):
    """Batches that are put together here, as far as which calls share one, and run elsewhere, whole."""

    def __init__(self, model_class: type[AIModelBase], method: Callable[[Sequence[dict[str, Any]]], Any]) -> None:
        # Its key is a matter of the class: there is no instance here.
        super().__init__(model_class.__new__(model_class))
        self.method = method

    def inputs(self, entries: Sequence[Entry]) -> Any:
        return [entry.values for entry in entries]

    def split(self, outputs: Any, count: int) -> list[Any]:
        # Where it ran each input got its own.
        return list(outputs)


def _source() -> Source:
    """The call, or the batch, that this thread or task is busy with."""
    return cast("Source", current_source())

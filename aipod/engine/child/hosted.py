"""The instance itself, in the child: what its process does with it."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from aipod.codec import Message
from aipod.engine.child.frames import Piece, Talk, outcome_piece
from aipod.engine.child.orders import MakeOrder
from aipod.engine.child.origin import Origin
from aipod.engine.invoke import endpoint, memory_of, perform, prepare, returned_error
from aipod.engine.running import RunSource, write
from aipod.model.base import has_batches
from aipod.model.batching import BatchPredict
from aipod.model.call import CallSource, running
from aipod.model.place import Place, construct
from aipod.model.run import NO_RUN, Run
from aipod.model.store import Store

__all__ = ["Hosted"]


class Hosted:
    """An instance, and what can be asked of it.

    Args:
        talk: With the parent.
        order: What it is.
        on_record: Called after each record of a training.

    Attributes:
        run: What its training sees of its run.

    Raises:
        BaseException: What its class, or its ``__init__``, raised.
    """

    def __init__(self, talk: Talk, order: MakeOrder, on_record: Callable[[], object]) -> None:
        self._talk = talk
        if order.nice:
            os.nice(order.nice)
        resume_from = Path(order.directory) if order.resume else None
        self.run = Run(order.version, order.job_id, resume_from, on_record) if order.job_id else NO_RUN
        cls = Origin.read(order.origin).find()
        # Before __init__, which may look at them.
        extra = {"_aipod_run": self.run} | ({"device": order.device} if order.device else {})
        self._instance: Any = construct(cls, _place(order), order.version, order.root, extra)
        self._batches = BatchPredict(self._instance) if has_batches(cls) else None

    def load(self) -> int:
        """Make it ready to predict; gives the memory that it takes, in bytes."""
        prepare(self._instance)
        return memory_of(self._instance, 0)

    def is_async(self, method: str) -> bool:
        """Whether a method, ``""`` for a batch, is a coroutine for the event loop; a training has a thread."""
        if method == "train":
            return False
        found = self._batches.method if not method and self._batches else getattr(self._instance, method, None)
        return inspect.iscoroutinefunction(found)

    def call(self, message: Message, source: CallSource) -> Sequence[Piece]:
        """Run a method, on this thread, and give what is to be said of it."""
        method = message.version
        arguments, bound = message.kwargs(), endpoint(getattr(self._instance, method))
        if method == "train":
            value = write(bound, RunSource(source.version, method, self.run), arguments)
        else:
            value = perform(bound, source, arguments)
        return (outcome_piece(self._talk, value, method),)

    async def call_async(self, message: Message, source: CallSource) -> Sequence[Piece]:
        """The same on an event loop."""
        method = message.version
        with running(source):
            value = await endpoint(getattr(self._instance, method))(**message.kwargs())
        return (outcome_piece(self._talk, value, method),)

    def batch(self, messages: Sequence[Message], source: CallSource) -> Sequence[Piece]:
        """Run ``predict_batch``, on this thread."""
        with running(source):
            outputs = self._predict_batch(messages)
            return self._outputs(asyncio.run(_awaited(outputs)) if inspect.isawaitable(outputs) else outputs, messages)

    async def batch_async(self, messages: Sequence[Message], source: CallSource) -> Sequence[Piece]:
        """The same on an event loop."""
        with running(source):
            outputs = self._predict_batch(messages)
            return self._outputs(await outputs if inspect.isawaitable(outputs) else outputs, messages)

    def dispose(self) -> None:
        """Nobody asks anything of it any more."""
        self._instance.dispose()

    def _predict_batch(self, messages: Sequence[Message]) -> Any:
        assert self._batches is not None
        entries = [self._batches.enter(message.kwargs()) for message in messages]
        return self._batches.method(self._batches.inputs(entries))

    def _outputs(self, outputs: Any, messages: Sequence[Message]) -> Sequence[Piece]:
        assert self._batches is not None
        return [
            outcome_piece(self._talk, returned_error(one) if isinstance(one, BaseException) else one, "predict_batch")
            for one in self._batches.split(outputs, len(messages))
        ]


async def _awaited(outputs: Awaitable[Any]) -> Any:
    return await outputs


def _place(order: MakeOrder) -> Place:
    directory = Path(order.directory)
    if order.kind == "staging":
        return Place.staging(directory, Path(order.log) if order.log else None)
    if order.kind == "scratch":
        # Whoever started us has made it.
        return Place.scratch(directory, lambda: None)
    store = Store(order.root)
    return Place.revision(directory, lambda: store.log_path(order.version))

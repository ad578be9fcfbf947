"""A call: one request on its way, from whoever asked to the model and back.

Rules of this file:

- A call is answered exactly once. ``finish``, ``fail`` and ``cancel`` race on different threads; whoever claims it
  first answers, the others do nothing.
- ``arguments`` and the two ``deliver`` methods run on the thread that runs the model. They belong to the transport,
  which derives from :class:`Call`; nothing here knows what a transport is.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from aipod.errors import AipodError, Cancelled, DeadlineExceeded, InternalError, InvalidArgument
from aipod.model.batching import UNREAD, Entry

__all__ = ["MAX_PRIORITY", "Call", "LocalCall", "check_priority"]

# A call of priority p is served as if it had come p seconds earlier: so it overtakes, and nobody waits for ever.
MAX_PRIORITY = 60

_log = logging.getLogger("aipod.engine")


class Queue(Protocol):
    """Where a call waits, as far as the call cares."""

    def forget(self, call: Call) -> None: ...


class Call:
    """One request.

    Attributes:
        version: The version that was asked for, aliases not resolved yet.
        method: ``"predict"``, ``"log"``, ``"initialize"`` or ``"train"``.
        deadline: Instant on the monotonic clock, or None.
        size_bytes: What the request holds in memory while it waits.
        priority: From -:data:`MAX_PRIORITY` to :data:`MAX_PRIORITY`; 0 for ordinary calls, higher ones are served
            first.
        arrived: Instant at which it was made.
        cancelled: Set once nobody waits for the answer any more; a running model may look at it.
        started: Instant at which the model began with it, 0.0 before.
        through: Set once the model is through with it, before it is answered.
        entry: What it brings to a batch, once it is decoded for one; the lane's and the batch's own.
        detach: Whether a ``train`` is answered with its job as soon as there is one, and not when that is over.
        request_id: What its caller calls it; a ``train`` that comes again under the same name is the same job.
    """

    __slots__ = (
        "_unanswered",
        "arrived",
        "cancelled",
        "deadline",
        "detach",
        "entry",
        "method",
        "on_cancel",
        "priority",
        "queue",
        "request_id",
        "size_bytes",
        "started",
        "through",
        "version",
    )

    def __init__(
        self, version: str, method: str, deadline: float | None = None, size_bytes: int = 0, priority: int = 0
    ) -> None:
        self.version = version
        self.method = method
        self.deadline = deadline
        self.size_bytes = size_bytes
        self.priority = priority
        self.arrived = time.monotonic()
        self.cancelled = False
        self.started = 0.0
        self.through = False
        self.queue: Queue | None = None
        self.on_cancel: Callable[[], object] | None = None
        self.entry: Entry = UNREAD
        self.detach = False
        self.request_id = ""
        # list.pop is one step under the interpreter's lock: it decides the race without a lock per call.
        self._unanswered = [True]

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments for the model; raises an error of our tree if they cannot be read."""
        raise NotImplementedError

    def deliver(self, value: object) -> None:
        """Hand over what the model returned."""
        raise NotImplementedError

    def deliver_error(self, error: AipodError) -> None:
        """Hand over why there is no value."""
        raise NotImplementedError

    @property
    def answered(self) -> bool:
        return not self._unanswered

    @property
    def rank(self) -> float:
        """Its place in a queue, the lowest first."""
        return self.arrived - self.priority

    def watch(self, action: Callable[[], object]) -> None:
        """Have an action run when the call is cancelled; at once, if it is by now."""
        self.on_cancel = action
        if self.cancelled:
            action()

    def remaining(self) -> float | None:
        """Seconds to the deadline, at least 0.0; None without one."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def finish(self, value: object) -> None:
        """Answer with a value; never raises."""
        if self._claim():
            try:
                self.deliver(value)
            except BaseException as error:
                # The claim promised an answer, and the value may be of a class that fails in any way.
                _log.exception("the answer of version %r could not be delivered", self.version)
                self._refuse(error if isinstance(error, AipodError) else InternalError())

    def fail(self, error: AipodError) -> None:
        """Answer with an error; never raises."""
        if self._claim():
            self._refuse(error)

    def cancel(self) -> None:
        """Nobody waits any more: leave the queue, or tell the running model. Callable from any thread."""
        self.cancelled = True
        if not self._claim():
            return
        if self.queue is not None:
            self.queue.forget(self)
        action = self.on_cancel
        if action is not None:
            action()
        self._refuse(Cancelled())

    def _refuse(self, error: AipodError) -> None:
        try:
            self.deliver_error(error)
        except BaseException:
            _log.exception("an error of version %r could not be delivered", self.version)

    def _claim(self) -> bool:
        try:
            self._unanswered.pop()
        except IndexError:
            return False
        return True


class LocalCall(Call):
    """A call of the same process: the arguments are at hand, and a thread waits for the value."""

    __slots__ = ("_answer", "_arguments", "_done", "_error")

    def __init__(
        self,
        version: str,
        method: str,
        arguments: Mapping[str, Any],
        deadline: float | None = None,
        priority: int = 0,
    ) -> None:
        super().__init__(version, method, deadline, priority=priority)
        self._arguments = dict(arguments)
        self._done = threading.Event()
        self._answer: object = None
        self._error: AipodError | None = None

    def arguments(self) -> dict[str, Any]:
        return self._arguments

    def deliver(self, value: object) -> None:
        self._answer = value
        self._done.set()

    def deliver_error(self, error: AipodError) -> None:
        self._error = error
        self._done.set()

    def result(self) -> Any:
        """Wait for the value, to the deadline at most.

        Raises:
            AipodError: What the call failed with; ``DeadlineExceeded`` if nothing came in time.
        """
        if not self._done.wait(self.remaining()):
            self.cancel()
            # If an answer was faster after all, it is on its way.
            self._done.wait()
            if isinstance(self._error, Cancelled):
                raise DeadlineExceeded()
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
            return self._answer
        finally:
            # Its traceback holds this frame: without this every failed call would wait for the cycle collector.
            del error


def check_priority(priority: object) -> int:
    """A priority, checked.

    Raises:
        InvalidArgument: It is none.
    """
    if isinstance(priority, int) and not isinstance(priority, bool) and -MAX_PRIORITY <= priority <= MAX_PRIORITY:
        return priority
    given = priority if isinstance(priority, int) and abs(priority) < 10**9 else type(priority).__name__
    raise InvalidArgument(f"priority is {given}; it must be a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}")

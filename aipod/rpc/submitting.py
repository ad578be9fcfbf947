"""Calls that nobody waits for yet: futures, and a stream of inputs that becomes a stream of results."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from aipod.clock import Clock
from aipod.errors import AipodError, InvalidArgument, Unavailable
from aipod.rpc.calls import Content, raising
from aipod.rpc.deadlines import Deadlines
from aipod.rpc.trunk.request import Reply, Request, Waiter
from aipod.rpc.trunk.trunk import Trunk

__all__ = ["Submitter", "mapped", "take_in_flight", "take_input"]

# For calls that cannot go by a trunk: each holds a thread while it is on its way.
_THREADS = 32
_MOST_IN_FLIGHT = 100_000
_LEAST_SECONDS = 0.001


class Sender(Protocol):
    """What sends calls by a trunk, if there is one."""

    def send(
        self, method: str, content: Content, deadline: float | None, waiter: Waiter
    ) -> tuple[Trunk, Request] | None: ...


class Submitter:
    """Makes futures of calls.

    Args:
        sender: Sends them.
    """

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._lock = threading.Lock()
        self._clock = Clock()
        self._threads: ThreadPoolExecutor | None = None
        self._watched: Trunk | None = None
        self._deadlines: Deadlines | None = None
        self._closed = False

    def submit(
        self,
        content: Content,
        timeout: float | None,
        decode: Callable[[Reply], Any],
        wait: Callable[[float | None], Any],
        again: bool,
    ) -> Future[Any]:
        """Send a ``predict``.

        Args:
            content: What it says.
            timeout: Seconds.
            decode: What makes a value of a reply.
            wait: Sends it in the usual way, and waits for its value for so many seconds.
            again: Whether ``wait`` may be tried where the server went away.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        answer = _Answer(self, content, deadline, decode, wait, again)
        sent = self._sender.send("predict", content, deadline, answer)
        if sent is None:
            # Now, and not when a thread comes to it: whoever calls may write to his arrays again.
            content.message()
            answer.start(None)
            return answer
        answer.sent = sent
        if deadline is not None:
            self._watch(sent[0], deadline)
        return answer

    def run(self, work: Callable[[], None]) -> bool:
        """Have a thread do something; False once this is closed."""
        with self._lock:
            if self._closed:
                return False
            if self._threads is None:
                self._threads = ThreadPoolExecutor(_THREADS, "aipod-submit")
            self._threads.submit(work)
            return True

    def close(self) -> None:
        """Try nothing again, and begin nothing more."""
        self._clock.close()
        with self._lock:
            self._closed = True

    def join(self) -> None:
        """Wait for the threads, once the calls that they wait for have ended."""
        with self._lock:
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown()

    def _watch(self, trunk: Trunk, deadline: float) -> None:
        with self._lock:
            if self._watched is not trunk or self._deadlines is None:
                self._watched, self._deadlines = trunk, Deadlines(self._clock.at, trunk.expire)
            deadlines = self._deadlines
        deadlines.watch(deadline)


class _Answer(Future[Any]):
    """A call on its way; a :class:`~aipod.rpc.trunk.request.Waiter`."""

    def __init__(
        self,
        submitter: Submitter,
        content: Content,
        deadline: float | None,
        decode: Callable[[Reply], Any],
        wait: Callable[[float | None], Any],
        again: bool,
    ) -> None:
        super().__init__()
        self._submitter = submitter
        self._content = content
        self._deadline = deadline
        self._decode = decode
        self._wait = wait
        self._again = again
        self.sent: tuple[Trunk, Request] | None = None

    def settle(self, reply: Reply | None, error: AipodError | None) -> None:
        if error is not None and self._may_try_again(error):
            self.start(error)
        elif self.set_running_or_notify_cancel():
            try:
                if error is not None:
                    raise raising(error)
                assert reply is not None
                self.set_result(self._decode(reply))
            except AipodError as problem:
                self.set_exception(problem)

    def start(self, error: AipodError | None) -> None:
        """Have a thread send it and wait, after an error if there was one."""
        if not self._submitter.run(self._fill) and self.set_running_or_notify_cancel():
            self.set_exception(error or Unavailable("this client was closed; make a new one"))

    def cancel(self) -> bool:
        """Give the call up, as long as it has no answer; the model is told."""
        if not super().cancel():
            return False
        if self.sent is not None:
            trunk, request = self.sent
            trunk.cancel(request)
        return True

    def _may_try_again(self, error: AipodError) -> bool:
        # Arrays that were lent may be others by now.
        if not isinstance(error, Unavailable) or error.by_model or not self._content.is_written:
            return False
        return self._again or not error.may_have_run

    def _fill(self) -> None:
        if self.set_running_or_notify_cancel():
            try:
                left = None if self._deadline is None else max(_LEAST_SECONDS, self._deadline - time.monotonic())
                self.set_result(self._wait(left))
            except BaseException as error:
                self.set_exception(error)


def mapped(submit: Callable[..., Future[Any]], inputs: Iterable[Mapping[str, Any]], in_flight: int) -> Iterator[Any]:
    """Results for inputs, in their order, with at most ``in_flight`` calls on their way; what is left is cancelled."""
    waiting: deque[Future[Any]] = deque()
    try:
        for kwargs in inputs:
            waiting.append(submit(**take_input(kwargs)))
            if len(waiting) >= in_flight:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def take_in_flight(number: object) -> int:
    """How many calls may be on their way at a time.

    Raises:
        InvalidArgument: It is no such number.
    """
    if isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= _MOST_IN_FLIGHT:
        return number
    raise InvalidArgument(f"in_flight is {number!r}; give a whole number from 1 to {_MOST_IN_FLIGHT}")


def take_input(one: object) -> Mapping[str, Any]:
    """The keyword arguments of one call.

    Raises:
        InvalidArgument: They are none: a dictionary was given, perhaps, where an iterable of such was meant.
    """
    if isinstance(one, Mapping):
        return one
    raise InvalidArgument(f"an input of map is of type {type(one).__name__}; give a dictionary for each call")

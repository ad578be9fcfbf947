"""What a model may know of the call that it is answering.

A model of 1.0 need not know of it. One that works for long asks now and then::

    def predict(self, rows):
        call = current_call()
        for row in rows:
            call.check()          # leaves, if nobody waits for the answer any more
            ...
"""

from __future__ import annotations

import time
from contextvars import ContextVar, Token
from typing import Protocol

from aipod.errors import Cancelled, DeadlineExceeded

__all__ = ["CallSource", "CallView", "current_call", "current_source", "running"]


class CallSource(Protocol):
    """What a view reads: the engine's own call, or anything else with these four."""

    @property
    def version(self) -> str: ...

    @property
    def method(self) -> str: ...

    @property
    def deadline(self) -> float | None:
        """An instant of ``time.monotonic()``; ``None`` for a call that may take for ever."""

    @property
    def cancelled(self) -> bool: ...


class CallView:
    """The call that runs; live, since it reads its source anew each time. Safe on every thread that it is handed to."""

    __slots__ = ("_source",)

    def __init__(self, source: CallSource) -> None:
        self._source = source

    @property
    def version(self) -> str:
        return self._source.version

    @property
    def method(self) -> str:
        return self._source.method

    @property
    def deadline(self) -> float | None:
        """The instant of ``time.monotonic()`` at which the caller gives up, ``None`` if it never does."""
        return self._source.deadline

    @property
    def remaining(self) -> float | None:
        """Seconds until the deadline, never below 0; ``None`` without one."""
        deadline = self._source.deadline
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    @property
    def cancelled(self) -> bool:
        """Whether the caller has given up."""
        return self._source.cancelled

    def check(self) -> None:
        """Return if somebody still waits for the answer.

        Raises:
            Cancelled: The caller has given up.
            DeadlineExceeded: The time it allowed is over.
        """
        if self._source.cancelled:
            raise Cancelled()
        if self.remaining == 0.0:
            raise DeadlineExceeded()

    def __repr__(self) -> str:
        return f"<call of {self.method} on {self.version!r}, remaining={self.remaining}, cancelled={self.cancelled}>"


class _NoCall:
    """The source outside of any call: nobody waits, so nobody gives up."""

    version = ""
    method = ""
    deadline = None
    cancelled = False


_current: ContextVar[CallSource] = ContextVar("aipod_call")
_NO_CALL = CallView(_NoCall())


def current_call() -> CallView:
    """The call that this thread or task is answering; outside of one, a view that is never cancelled.

    A thread that a model starts itself does not inherit it: hand the view over.
    """
    source = _current.get(None)
    return _NO_CALL if source is None else CallView(source)


def current_source() -> CallSource:
    """What the view of :func:`current_call` reads, for the engine."""
    return _current.get()


class running:
    """Make ``source`` the current call of this context; for the engine, on the thread or task that runs the model.

    A class and not a generator, because it stands around every prediction and this costs a third of it.
    """

    __slots__ = ("_source", "_token")

    def __init__(self, source: CallSource) -> None:
        self._source = source

    def __enter__(self) -> None:
        self._token: Token[CallSource] = _current.set(self._source)

    def __exit__(self, *exc: object) -> None:
        _current.reset(self._token)

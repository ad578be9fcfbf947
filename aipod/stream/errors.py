"""What can go wrong with streams, beside what :mod:`aipod.errors` has names for.

Which of them are the input's fault, and which pass, :mod:`aipod.stream.retry` says.
"""

from __future__ import annotations

from aipod.errors import AipodError, ConfigError, InvalidArgument, Unavailable
from aipod.stream.result import Recorded

__all__ = [
    "Diverged",
    "Fenced",
    "LostEnd",
    "NoStream",
    "NoTaker",
    "OutOfStep",
    "Refused",
    "Replaced",
    "TaskStopped",
    "TooLarge",
    "Unreadable",
    "Unwritable",
]

# JetStream's numbers.
_NO_MESSAGE = 10037
_NO_STREAM = 10059


class Refused(AipodError):
    """The broker understood, and said no.

    Attributes:
        code: As in HTTP.
        err_code: JetStream's own number, which says more.
    """

    status = "FAILED_PRECONDITION"

    def __init__(self, doing: str, code: int, err_code: int, description: str) -> None:
        super().__init__(f"{doing}: the broker refused: {description} ({err_code})")
        self.code = code
        self.err_code = err_code
        self.description = description

    @property
    def is_not_found(self) -> bool:
        """Whether the message that was asked for is not in its stream."""
        return self.err_code == _NO_MESSAGE

    @property
    def is_no_stream(self) -> bool:
        """Whether the stream that was asked is not there."""
        return self.err_code == _NO_STREAM


class OutOfStep(Refused):
    """The last message of the subject is another one than was expected."""


class NoStream(ConfigError):
    """There is no such stream."""


class NoTaker(Unavailable):
    """No stream takes what is published to a subject."""

    def __init__(self, subject: str) -> None:
        super().__init__(f"no stream takes subject {subject!r}; make one, or let the task (create = true)")


class LostEnd(ConfigError):
    """The stream ends before what was acknowledged of it. Final: what fills the gap would pass for acknowledged."""


class Replaced(Unavailable):
    """The stream is not the one that it was."""

    def __init__(self, stream: str) -> None:
        super().__init__(f"stream {stream!r} was made anew or has lost its end; the task has to start afresh")


class Unreadable(InvalidArgument):
    """The message is not what its task expects, and never will be: it goes to the dead letters with this sentence."""


class Unwritable(AipodError):
    """A result that one of the sinks will never take."""

    status = "FAILED_PRECONDITION"

    def __init__(self, sink: str, reason: str) -> None:
        super().__init__(f"sink {sink}: {reason}")
        self.sink = sink


class TooLarge(AipodError):
    """A result that its sink will never take."""

    status = "RESOURCE_EXHAUSTED"

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"the result has {size} bytes, and its sink takes {limit}; make windows or results smaller")
        self.size = size
        self.limit = limit


class Diverged(AipodError):
    """The record holds this window with other members: it was closed otherwise, elsewhere, and that counts.

    Attributes:
        recorded: The window as the record has it.
    """

    status = "ALREADY_EXISTS"

    def __init__(self, recorded: Recorded) -> None:
        super().__init__(f"window {recorded.id} of key {recorded.key!r} is recorded with other members")
        self.recorded = recorded


class Fenced(AipodError):
    """Another process writes for this task; this one must stop."""

    status = "ABORTED"

    def __init__(self, task: str) -> None:
        super().__init__(f"another process has taken over task {task!r}; this one stops")
        self.task = task


class TaskStopped(AipodError):
    """The task has stopped for good, until it is changed or its process is started again."""

    status = "FAILED_PRECONDITION"

    def __init__(self, task: str, reason: str) -> None:
        super().__init__(f"task {task!r} has stopped: {reason}")
        self.task = task

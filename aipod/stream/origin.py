"""Which stream positions are positions of.

A stream that was deleted and made again counts from 1 again, so a position alone says nothing: a record of the old
stream would call messages of the new one done. So each result names its stream by name and time of creation, as
``READINGS@2026-11-20T09:13:51.123456789Z``, and a task refuses to go on with a record of another.
"""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

from aipod.errors import ConfigError
from aipod.stream.broker.consumer import ConsumerState
from aipod.stream.errors import TaskStopped
from aipod.stream.result import Recorded

__all__ = ["check_origin", "mark_of", "origin_of"]


def origin_of(stream: ConsumerState) -> str:
    """Name a stream such that none that is made later has the same name."""
    return f"{stream.stream}@{stream.incarnation}"


def mark_of(origin: str) -> str:
    """Shorten an origin for ids that a broker remembers for a while, those of a stream that is gone among them: what
    goes behind such an id."""
    return f"/{crc32(origin.encode()):08x}" if origin else ""


def check_origin(task: str, recalled: Iterable[Recorded], stream: ConsumerState) -> None:
    """Make sure that a record is of the stream that its task reads.

    Args:
        recalled: What is recorded.
        stream: As it was after that had been asked for.

    Raises:
        ConfigError: It is of another.
        TaskStopped: It is of positions that the stream does not have. To try again would be to wait until the stream
            has them, and to pass over what it has there then.
    """
    ours = origin_of(stream)
    last = 0
    for one in recalled:
        if one.source and one.source != ours:
            raise ConfigError([_foreign(task, one.source, stream)])
        last = max(last, one.last)
    if last > stream.last:
        raise TaskStopped(
            task,
            f"its record goes up to message {last}, and stream {stream.stream} ends at {stream.last}: it has lost its"
            f" end, or was made anew{_REMEDY}",
        )


_REMEDY = "; give the task another name or another sink, or clear its results"


def _foreign(task: str, source: str, stream: ConsumerState) -> str:
    name, _, made = source.rpartition("@")
    if name == stream.stream:
        return (
            f"the record of task {task!r} is of stream {name} as made at {made}, and that was made anew at"
            f" {stream.incarnation}{_REMEDY}"
        )
    return (
        f"the record of task {task!r} is of stream {name} as made at {made}, and the task reads stream"
        f" {stream.stream}{_REMEDY}"
    )

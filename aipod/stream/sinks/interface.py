"""What a sink promises to the pipeline, written once."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from aipod.stream.result import Recorded, Result

__all__ = ["Foreseeing", "Record", "Sink"]


class Sink(Protocol):
    """Where results go. Belongs to the event loop that opened it; nothing in it blocks that loop.

    Attributes:
        name: For logs and errors, without secrets.
    """

    name: str

    async def open(self) -> None:
        """Check everything that writing will need.

        Raises:
            ConfigError: It cannot work like this; the sentence says what to do.
            Unavailable: The other side is away; to be tried again.
        """

    async def write(self, result: Result) -> None:
        """Return when the result is durable. The same identity written twice is there once, where the target can.

        Raises:
            Unavailable: It may or may not be there; to be tried again.
            TooLarge: It will never fit.
            Fenced: Another process writes for this task.
            Diverged: That identity is there already, with other members.
        """

    async def close(self) -> None:
        """Give everything back; never raises."""


@runtime_checkable
class Record(Sink, Protocol):
    """A sink that can say what it holds: what a restart obeys."""

    async def recall(self, since: float, floor: int) -> list[Recorded]:
        """List the last result of each key, and all others that were stored at or after ``since`` (unix seconds), or
        that have a member above ``floor``; in the order in which they were recorded.

        Raises:
            Unavailable: To be tried again.
            ConfigError: What is there is not this task's.
        """

    async def stored(self, recorded: Recorded) -> Result | None:
        """Fetch a result again, for another sink that may lack it.

        Raises:
            Unavailable: To be tried again.
        """


@runtime_checkable
class Foreseeing(Sink, Protocol):
    """A sink that can be looked at before anything runs."""

    async def foresee(self) -> str:
        """Say what ``open`` and the first write would find; nothing is made or changed.

        Raises:
            ConfigError: It cannot work like this.
            Unavailable: The other side is away.
        """

"""Several worker processes that do one process's work, and whoever starts them again.

The supervisor knows nothing of tasks: a worker is a command line with a number in it. Which tasks are a worker's, the
worker itself finds out, from its :class:`Share`.
"""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aipod.errors import ConfigError, Unavailable
from aipod.process import Child, Ended
from aipod.stream.pauses import Pauses

__all__ = ["Share", "Supervisor"]

_log = logging.getLogger("aipod.stream")

# What a worker says of itself on its lifeline.
SERVING, NOT_SERVING = b"1", b"0"


@dataclass(frozen=True)
class Share:
    """Which of several workers one is, and with that which tasks are its own.

    Attributes:
        number: From 1 to ``count``.
        count: How many workers there are.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Share:
        """Read ``2/4``.

        Raises:
            ConfigError: It is no share.
        """
        number, _, count = text.partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise ConfigError([f"{text!r} is no share; write 1/4 for the first of four"])
        return cls(int(number), int(count))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def has(self, name: str, partitions: int, place: int | None = None) -> bool:
        """Tell whether a task is this worker's.

        Args:
            name: The task's name.
            partitions: Into how many the task is divided; more than one are shared out among all workers, by leases.
            place: Which of a list of tasks that never changes it is: those are dealt out evenly. None for a list that
                may change; there the name decides alone, so that no task moves because another one came or went.
        """
        if partitions > 1:
            return True
        return (zlib.crc32(name.encode()) if place is None else place) % self.count == self.number - 1


class Supervisor:
    """Keeps workers running until it is told to stop. Belongs to the event loop that runs it.

    Args:
        command: The command line of a worker, by its number from 1. The worker has to follow its
            :class:`~aipod.process.Lifeline`, so that it ends with this process, however this process ends.
        workers: How many.
        grace: Seconds from :meth:`stop` to the killing of those that still run.
        once: Whether a worker that ends by itself has done, or failed at, all that it had to do. It is not started
            again, then; only one that a signal ended is.
        pauses: Makes the pauses of a worker.
        on_health: Called with whether all workers run and say that they serve, whenever that changes.
    """

    def __init__(
        self,
        command: Callable[[int], Sequence[str]],
        workers: int,
        *,
        grace: float = 10.0,
        once: bool = False,
        pauses: Callable[[], Pauses] = lambda: Pauses(0.5, 30.0, 60.0),
        on_health: Callable[[bool], None] = lambda serving: None,
    ) -> None:
        self._command = command
        self._workers = workers
        self._grace = grace
        self._once = once
        self._pauses = pauses
        self._on_health = on_health
        self._children: dict[int, Child] = {}
        self._serving: set[int] = set()
        self._failed: set[int] = set()
        self._healthy = False
        self._stopping = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Supervisor of {self._workers} workers, {len(self._children)} running, {len(self._serving)} serving>"

    @property
    def pids(self) -> dict[int, int]:
        """The process ids of the workers that run, by their numbers."""
        return {number: child.pid for number, child in self._children.items()}

    async def run(self) -> None:
        """Keep the workers running; returns when all have ended, after :meth:`stop` or once their work is done.

        Raises:
            Unavailable: With ``once``, some worker has failed; the others have come to their end.
        """
        try:
            await asyncio.gather(*(self._keep(number) for number in range(1, self._workers + 1)))
        finally:
            self.kill()
        if self._failed:
            numbers = ", ".join(map(str, sorted(self._failed)))
            raise Unavailable(f"of {self._workers} workers these have failed, and said why: {numbers}")

    def stop(self) -> None:
        """Ask all workers to end, and kill those that have not when the grace is over."""
        if not self._stopping.is_set():
            self._stopping.set()
            for child in self._children.values():
                child.ask()
            asyncio.get_running_loop().call_later(self._grace, self.kill)

    def kill(self) -> None:
        """End all workers at once."""
        self._stopping.set()
        for child in self._children.values():
            child.kill()

    async def _keep(self, number: int) -> None:
        pauses = self._pauses()
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                ended = await self._live(number)
            except OSError as error:
                ended, reason = None, f"it does not start: {error.strerror or error}"
            else:
                reason = str(ended)
            if self._stopping.is_set():
                return
            if self._once and ended is not None and not ended.signal:
                self._finish(number, ended)
                return
            lived = time.monotonic() - began
            pause = pauses.next(lived)
            _log.warning(
                "worker %d ended after %.1f s (%s); it is started again in %.1f s", number, lived, reason, pause
            )
            await self._pause(pause)

    def _finish(self, number: int, ended: Ended) -> None:
        if ended.code:
            self._failed.add(number)
        else:
            self._tell(number, True)

    async def _live(self, number: int) -> Ended:
        child = Child.start(self._command(number))
        self._children[number] = child
        loop = asyncio.get_running_loop()
        loop.add_reader(child.lifeline, self._listen, number, child)
        try:
            return await asyncio.wrap_future(child.ended)
        finally:
            loop.remove_reader(child.lifeline)
            child.kill()
            child.close()
            del self._children[number]
            self._tell(number, False)

    def _listen(self, number: int, child: Child) -> None:
        try:
            said = child.lifeline.recv(4096)
        except OSError:  # it ended without reading what it was told
            said = b""
        if said:
            self._tell(number, said.endswith(SERVING))
        else:
            asyncio.get_running_loop().remove_reader(child.lifeline)

    def _tell(self, number: int, serving: bool) -> None:
        if serving:
            self._serving.add(number)
        else:
            self._serving.discard(number)
        healthy = len(self._serving) == self._workers
        if healthy != self._healthy:
            self._healthy = healthy
            self._on_health(healthy)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except (TimeoutError, asyncio.TimeoutError):
            return

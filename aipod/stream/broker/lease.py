"""One active process for a task's partition: a lease in a key-value bucket.

Whoever writes the entry holds it, and writes it again every third of ``ttl``. Others only watch its revision: when that
has not changed for longer than ``ttl`` by *their own* clock, they write, by compare-and-set on the revision that they
saw. No two clocks are ever compared. The holder counts from before its last write was sent, so it stops believing
earlier than anybody else can begin to; a process that was frozen knows at once when it wakes.

Who has not written for ``ttl`` is *in doubt*: another may have it by now, and nothing that only the holder may do is
done any more. The doubt ends with the next write that is answered. If it is refused, another has written: then the
lease is lost. If it succeeds, nobody has, so it was never anybody else's, and all goes on as if nothing had happened.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from aipod.errors import AipodError
from aipod.stream.broker.bucket import Bucket, Entry, token
from aipod.stream.broker.connection import Connection
from aipod.stream.ending import end
from aipod.stream.retry import Retry

__all__ = ["Lease", "Membership", "lease_key"]

_log = logging.getLogger(__name__)

# How much longer than ``ttl`` others wait: clocks run at slightly different speeds.
_MARGIN = 1.1
_LONGEST_PAUSE = 0.5
# Times ``ttl`` after which nobody waits any more for one who said nothing: what it left is removed.
_GONE = 10
# So many entries are asked for at a time.
_AT_ONCE = 64


def lease_key(task: str, partition: int) -> str:
    return f"lease.{token(task)}.{partition}"


def awake() -> float:
    """Seconds that go on while the machine is suspended, where the system has such a clock."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class Lease:
    """Belongs to the loop.

    Args:
        holder: Who we are, for people.
        ttl: Seconds after which one that is not renewed may be taken over.
        about: What the entry says of us beside that.
        log: Where to say how it stands.

    Attributes:
        lost: Set when somebody else has it, or had it; :meth:`acquire` clears it. Never for mere lateness.
        token: Greater with every acquisition, by whomever; 0 before the first.
    """

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        conn: Connection,
        bucket: str,
        task: str,
        partition: int,
        holder: str,
        ttl: float = 5.0,
        clock: Callable[[], float] = awake,
        about: Mapping[str, Any] | None = None,
        log: logging.Logger = _log,
    ) -> None:
        self.key = lease_key(task, partition)
        self.lost = asyncio.Event()
        self.token = 0
        self._bucket = Bucket(conn, bucket)
        self._value: dict[str, Any] = {**(about or {}), "holder": holder, "id": secrets.token_hex(8)}
        self._on_other: Callable[[Mapping[str, Any]], None] = lambda entry: None
        self._met: Any = None
        self._ttl = ttl
        self._clock = clock
        self._log = log
        self._retry = Retry("the lease", log)
        self._revision = 0
        self._renewed = -math.inf
        self._renewing: asyncio.Task[None] | None = None
        # The last revision of somebody else's, and when it was first seen.
        self._seen = (0, 0.0)

    def __repr__(self) -> str:
        return f"<Lease {self.key}, {'held' if self.held() else 'not held'}>"

    def held(self) -> bool:
        """Whether it is ours for certain; ask right before everything that only its holder may do."""
        return self._clock() - self._renewed < self._ttl

    @property
    def age(self) -> float:
        """Seconds since it was certainly ours; infinite if it is not held at all."""
        return self._clock() - self._renewed

    def publish(self, statistics: Mapping[str, Any]) -> None:
        """Have others see this with the next renewal."""
        self._value["statistics"] = dict(statistics)

    async def acquire(self, on_other: Callable[[Mapping[str, Any]], None] = lambda entry: None) -> None:
        """Wait until it is ours, however long that takes.

        Args:
            on_other: Called with the entry of whoever else is seen to have it, once for each.

        Raises:
            ConfigError: The broker does not let us.
        """
        await self._stop()
        self._on_other = on_other
        self._renewed = -math.inf
        self._met = None
        while not await self._retry(self._try):
            await asyncio.sleep(min(self._ttl / 10, _LONGEST_PAUSE))
        self.lost.clear()
        self._renewing = asyncio.ensure_future(self._renew())

    async def release(self) -> None:
        """Give it up, so that another has it at once; never raises, again is fine."""
        await self._stop()
        ours, self._renewed = self._revision, -math.inf
        if not ours:
            return
        try:
            # A renewal that was cut off may have changed the revision.
            if not await self._bucket.remove(self.key, last=ours):
                entry = await self._bucket.get(self.key)
                if entry is not None and entry.value.get("id") == self._value["id"]:
                    await self._bucket.remove(self.key, last=entry.revision)
        except AipodError as error:
            self._log.debug("%s is not released, but runs out: %s", self.key, error)
        self._revision = 0

    async def _try(self) -> bool:
        entry = await self._bucket.get(self.key)
        now = self._clock()
        last = 0
        if entry is not None:
            last = entry.revision
            if entry.value.get("id") != self._value["id"]:
                if last != self._seen[0]:
                    self._meet(entry.value)
                    self._seen = (last, now)
                if now - self._seen[1] < self._ttl * _MARGIN:
                    return False
        if not await self._write(last, since=time.time()):
            return False
        self.token = self._revision
        return True

    def _meet(self, entry: Mapping[str, Any]) -> None:
        # The first look may be at what somebody has left who is gone; what changes is of somebody who is there.
        if self._seen[0] and self._met != entry.get("id"):
            self._met = entry.get("id")
            self._on_other(entry)

    async def _write(self, last: int, **more: Any) -> bool:
        sent = self._clock()
        self._value.update(more)
        revision = await self._bucket.change(self.key, self._value, last)
        if revision is None:
            return False
        self._revision, self._renewed = revision, sent
        return True

    async def _renew(self) -> None:
        pause = self._ttl / 3
        doubted = False
        while True:
            await asyncio.sleep(pause)
            pause = self._ttl / 3
            if not doubted and not self.held():
                doubted = True
                self._log.warning("%s was not renewed for %.1f s; nothing is written until it is", self.key, self.age)
            try:
                if not await asyncio.wait_for(self._write(self._revision), self._ttl / 3):
                    # An earlier write may have arrived whose answer did not.
                    entry = await self._bucket.get(self.key)
                    if entry is None or entry.value.get("id") != self._value["id"]:
                        break
                    self._revision, pause = entry.revision, 0.0
            except (AipodError, asyncio.TimeoutError) as error:
                self._log.debug("%s was not renewed: %s", self.key, error)
                pause = self._ttl / 20
            if doubted and self.held():
                doubted = False
                self._log.warning("%s is renewed: nobody else had it, and the work goes on", self.key)
        # Of an entry that is gone nobody can tell whose it was meanwhile.
        gone = "%s is lost: it was removed" if entry is None else "%s is lost: another process has it"
        self._log.warning(gone, self.key)
        self._renewed = -math.inf
        self.lost.set()

    async def _stop(self) -> None:
        renewing, self._renewing = self._renewing, None
        if renewing is not None:
            await end({renewing})


class Membership:
    """Who works for a task, so that its partitions can be shared fairly. Belongs to the loop.

    Each process has an entry that it writes again every third of ``ttl``; one whose revision has not changed for longer
    than ``ttl`` by the clock of whoever looks is gone. What is left of those is removed by the others, since every
    process that ever was would have something there, to be looked at by all who come later.
    """

    def __init__(
        self,
        conn: Connection,
        bucket: str,
        task: str,
        holder: str,
        ttl: float = 5.0,
        clock: Callable[[], float] = awake,
    ) -> None:
        self.key = f"member.{token(task)}.{token(holder)}"
        self._all = f"member.{token(task)}.*"
        self._bucket = Bucket(conn, bucket)
        self._holder = holder
        self._ttl = ttl
        self._clock = clock
        self._seen: dict[str, tuple[int, float]] = {}
        self._tidies = True
        self._presence: asyncio.Task[None] | None = None

    async def join(self) -> None:
        """Be counted from now on.

        Raises:
            Unavailable: The broker is away.
        """
        await self._bucket.put(self.key, {"holder": self._holder})
        self._presence = asyncio.ensure_future(self._stay())

    async def leave(self) -> None:
        """Be counted no more; never raises, again is fine."""
        presence, self._presence = self._presence, None
        if presence is None:
            return
        await end({presence})
        try:
            await self._bucket.forget(self.key)
        except AipodError as error:
            _log.debug("%s is not removed, but runs out: %s", self.key, error)

    async def members(self) -> int:
        """Count who is there, ourselves included.

        Raises:
            Unavailable: The broker is away.
        """
        keys = [key for key in await self._bucket.keys(self._all) if key != self.key]
        there: dict[str, tuple[int, float]] = {}
        for first in range(0, len(keys), _AT_ONCE):
            some = keys[first : first + _AT_ONCE]
            for key, entry in zip(some, await asyncio.gather(*map(self._bucket.last, some)), strict=True):
                if entry is not None:
                    there[key] = self._seen_as(key, entry)
                    await self._tidy(key, entry, there[key][1])
        self._seen = there
        return 1 + sum(self._clock() - since <= self._ttl * _MARGIN for _, since in there.values())

    def _seen_as(self, key: str, entry: Entry) -> tuple[int, float]:
        if not entry.value:  # it left
            return entry.revision, -math.inf
        revision, since = self._seen.get(key, (0, 0.0))
        return (revision, since) if revision == entry.revision else (entry.revision, self._clock())

    async def _tidy(self, key: str, entry: Entry, since: float) -> None:
        if self._tidies and self._clock() - since > self._ttl * _GONE:
            try:
                await self._bucket.forget(key, entry.revision)  # not what it writes in this very moment
            except AipodError as error:
                self._tidies = False  # it may not be ours to do, and whoever shares must not wait for it
                _log.debug("%s is not removed: %s", key, error)

    async def share(self, total: int) -> int:
        """How many of ``total`` partitions are ours to hold, at most.

        Raises:
            Unavailable: The broker is away.
        """
        return -(-total // await self.members())

    async def _stay(self) -> None:
        while True:
            await asyncio.sleep(self._ttl / 3)
            try:
                await self._bucket.put(self.key, {"holder": self._holder})
            except AipodError as error:
                _log.debug("%s was not renewed: %s", self.key, error)

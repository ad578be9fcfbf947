"""How far tasks are, as the broker knows it: asked from anywhere, of nobody who is busy running them.

Three sources, each with what it alone can know. The consumer knows what was delivered and acknowledged. The entry of
the lease has what whoever runs the task says of itself, as it was at the last renewal. Where nobody runs it, a notice
may say why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from aipod.errors import AipodError, ConfigError
from aipod.stream.broker.bucket import peek
from aipod.stream.broker.connection import Connection
from aipod.stream.broker.consumer import ConsumerState, ensure
from aipod.stream.broker.lease import lease_key
from aipod.stream.broker.reader import get_message
from aipod.stream.dead import DeadLetters
from aipod.stream.errors import Refused
from aipod.stream.notice import notice_key
from aipod.stream.pipeline import BUCKET, consumer_of
from aipod.stream.tasks import StreamTask

__all__ = ["Standing", "State", "look", "rate"]

# A lease that is that many times its ttl old has run out; see aipod.stream.broker.lease.
_LATE = 1.1

State = Literal["running", "nobody", "unknown", "new", "failed", "stopped", "broken"]


@dataclass(frozen=True)
class Standing:
    """How far one partition of a task is.

    Attributes:
        task: The task's name.
        partition: Which, from 0; None if the task has one alone.
        state: ``running``; ``nobody`` runs it; ``unknown``, since it runs without a lease; ``new``: its consumer is not
            made yet; ``failed``: it is tried again; ``stopped``: it is not; ``broken``: the broker has it otherwise.
            ``problem`` says why.
        holder: Who runs it, or failed to.
        lag: Messages that wait for their first delivery.
        ack_pending: Messages that are delivered and not acknowledged.
        dead_letters: Letters of the whole task that nobody has put back yet, whoever buried them.
        oldest: Seconds since the oldest message that is not acknowledged was stored; 0.0 if there is none.
        told: Seconds since whoever failed or stopped told of the problem; 0.0 if there is none, or it is one of now.
        statistics: What the holder says of itself, as :mod:`aipod.stream.statistics` has it; empty if nobody does.
    """

    task: str
    partition: int | None = None
    state: State = "new"
    holder: str = ""
    lag: int = 0
    ack_pending: int = 0
    dead_letters: int = 0
    oldest: float = 0.0
    problem: str = ""
    told: float = 0.0
    statistics: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def count(self, name: str) -> int:
        """Give a counter of the holder's."""
        return int(self.statistics.get("counters", {}).get(name, 0))

    def gauge(self, name: str) -> float:
        """Give a gauge of the holder's."""
        return float(self.statistics.get("gauges", {}).get(name, 0))

    def document(self, before: Standing | None = None) -> dict[str, Any]:
        """Give it as plain values; the rates since an earlier look, if there was one."""
        return {
            "task": self.task,
            "partition": self.partition,
            "state": self.state,
            "holder": self.holder,
            "lag": self.lag,
            "ack_pending": self.ack_pending,
            "oldest_seconds": round(self.oldest, 3),
            "open_windows": int(self.gauge("open_windows")),
            "messages": self.count("messages"),
            "results": self.count("results"),
            "late": self.count("late"),
            "expired": self.count("expired"),
            "dead": self.count("dead"),
            "dead_letters": self.dead_letters,
            "messages_per_second": round(rate(self, "messages", before), 1),
            "results_per_second": round(rate(self, "results", before), 1),
            "problem": self.problem,
            "problem_seconds": round(self.told, 3),
        }


def rate(now: Standing, name: str, before: Standing | None = None) -> float:
    """How much a counter rose per second since an earlier look, or since the task began where there is none to compare.

    A holder that began anew counts from zero again: then it is since that.
    """
    seconds, count = now.statistics.get("seconds", 0.0), now.count(name)
    if before is not None and before.holder == now.holder:
        then, earlier = before.statistics.get("seconds", 0.0), before.count(name)
        if then < seconds and earlier <= count:
            seconds, count = seconds - then, count - earlier
    return float(count / seconds) if seconds > 0 else 0.0


async def look(conn: Connection, task: StreamTask) -> list[Standing]:
    """See how far each partition of a task is. Nothing is made or changed.

    Raises:
        Unavailable: The broker is away.
    """
    letters = await _letters(conn, task)
    return [replace(await _look(conn, task, each), dead_letters=letters) for each in range(task.partitions)]


async def _letters(conn: Connection, task: StreamTask) -> int:
    spec = task.dead_letters
    try:
        return await DeadLetters(conn, task.name, task.dead_subject, create=False, stream=spec.stream).count()
    except AipodError:  # there is no stream for them yet; or the broker is away, which the next question says
        return 0


async def _look(conn: Connection, task: StreamTask, partition: int) -> Standing:
    shown = partition if task.partitions > 1 else None
    try:
        state = await ensure(conn, consumer_of(task, partition), create=False)
    except ConfigError as error:
        return Standing(task.name, shown, "broken", problem=str(error))
    entry, written = await peek(conn, BUCKET, lease_key(task.name, partition))
    running = state.time - written <= _LATE * task.lease_ttl
    notice, told = ({}, 0.0) if running else await peek(conn, BUCKET, notice_key(task.name, partition))
    standing = Standing(
        task.name,
        shown,
        "running" if running else "new" if not state.exists else "nobody" if task.lease else "unknown",
        holder=str(entry.get("holder", "")) if running else "",
        lag=state.num_pending,
        ack_pending=state.ack_pending,
        oldest=await _oldest(conn, state) if state.exists else 0.0,
        statistics=entry.get("statistics") or {},
    )
    if notice.get("state") in ("failed", "stopped"):
        return replace(
            standing,
            state=notice["state"],
            holder=str(notice.get("holder", "")),
            problem=str(notice.get("problem", "")),
            told=max(0.0, state.time - told),
        )
    return standing


async def _oldest(conn: Connection, state: ConsumerState) -> float:
    if not state.ack_pending and not state.num_pending:
        return 0.0
    found = [await _stored(conn, state, subject) for subject in state.subjects or (">",)]
    return max((state.time - stored for stored in found if stored), default=0.0)


async def _stored(conn: Connection, state: ConsumerState, subject: str) -> float:
    """When the first message of a subject that is not acknowledged was stored; 0.0 if there is none."""
    try:
        first = await get_message(conn, state.stream, seq=state.floor + 1, subject=subject)
    except Refused:
        return 0.0
    return first.stored if first is not None else 0.0

"""Where a task's messages come from."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

from aipod.config.kinds import Kind, choice, size, whole
from aipod.errors import ConfigError
from aipod.stream.broker.address import Connect
from aipod.stream.broker.consumer import ConsumerSpec
from aipod.stream.tasks.items import Part, duration, item, maybe, one, word
from aipod.stream.tasks.subjects import overlap, problem_of

__all__ = ["PRESSURE", "Source"]

# What part of a source's bounds open windows may take up; beyond that the oldest are closed early.
PRESSURE = 0.9

_LETTERS = r"[^\s.*>/\\]{1,255}"
_START = re.compile(r"all|new|seq:([1-9][0-9]{0,18})|time:(.+)")


def _subjects() -> Kind[tuple[str, ...]]:
    def read(value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, (list, tuple)) or not value:
            raise TypeError(value)
        problems = []
        for subject in value:
            wrong = problem_of(subject, wildcards=True) if isinstance(subject, str) else "it is no text"
            if wrong:
                problems.append(f"{subject!r} is no subject: {wrong}")
        if problems:
            raise ConfigError(problems)
        return tuple(dict.fromkeys(value))

    return Kind("a subject, such as sensors.>, or a list of them", read)


def _start() -> Kind[str]:
    def read(value: object) -> str:
        if not isinstance(value, str):
            raise TypeError(value)
        match = _START.fullmatch(value.strip())
        if match is None:
            raise ValueError(value)
        # Python 3.10 reads no Z, which everybody writes.
        if match[2] and datetime.datetime.fromisoformat(re.sub("[zZ]$", "+00:00", match[2])).tzinfo is None:
            raise ValueError(value)
        return value.strip()

    return Kind("all, new, seq:NUMBER or time:2026-01-31T12:00:00Z", read)


@dataclass(frozen=True)
class Source(Part):
    """A stream's messages, as a durable consumer hands them out.

    Attributes:
        connect: The broker, and who one is there.
        subjects: What to take of the stream; may hold wildcards.
        durable: The consumer's name. It is made if it is not there.
        stream: The stream's name; None finds the one that has the subjects.
        start: Where a consumer that is made begins: ``all``, ``new``, ``seq:NUMBER``, ``time:ISO-8601 with an offset``.
        ack_wait: Seconds after which the broker delivers again what nobody has spoken for.
        max_ack_pending: How many messages may be unacknowledged at a time.
        max_bytes: How many bytes of messages may be held at a time.
        on_deleted: What to do when consumer or stream is deleted while the task runs: ``recreate`` or ``fail``.

    Raises:
        ConfigError: With one sentence for each problem.
    """

    connect: Connect = item(one(Connect, "a Connect"))
    subjects: tuple[str, ...] = item(_subjects())
    durable: str = item(word(_LETTERS, "a consumer's name: up to 255 characters without spaces and . * > / \\"))
    stream: str | None = item(maybe(word(_LETTERS, "a stream's name, without spaces and . * > / \\")), None)
    start: str = item(_start(), ConsumerSpec.start)
    ack_wait: float = item(duration(1.0, 3600.0), ConsumerSpec.ack_wait)
    max_ack_pending: int = item(whole(1, 1_000_000), ConsumerSpec.max_ack_pending)
    max_bytes: int = item(size(1024), 256 << 20)
    on_deleted: Literal["recreate", "fail"] = item(choice("recreate", "fail"), "recreate")

    @classmethod
    def cross(cls, good: Mapping[str, Any]) -> list[str]:
        # The broker refuses such a consumer, in words that say less.
        return [
            f"subjects: {mine!r} and {other!r} overlap; a message must fit one of them alone"
            for mine, other in combinations(good.get("subjects", ()), 2)
            if overlap(mine, other)
        ]

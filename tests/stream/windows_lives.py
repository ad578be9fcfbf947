"""A consumer that is killed again and again, without a broker: a record, acknowledgements, and lives in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from random import Random
from unittest.mock import patch

from windows_reference import Cut

from aipod.stream.message import Message
from aipod.stream.result import Recorded, expand
from aipod.stream.windows import Ahead, Closed, Done, Late, Outcome, Windower, WindowSpec, history

# What happens between two messages: the windower, the time of the one, the time of the other.
Between = Callable[[Windower, float, float], list[Outcome]]


@dataclass
class World:
    """What outlasts a life.

    Attributes:
        record: What is recorded, and the stream's time then.
        acked: Positions of messages that are acknowledged.
        late: Positions of messages that were dealt with as late.
        forgetful: Whether the record, asked for its history, leaves out what it may.
        workqueue: Whether the stream loses a message with its acknowledgement.
        many: Of a key with more results than so many all is looked at before its first message comes.
        known: What the present life was told of the record, and must not make again.
    """

    spec: WindowSpec
    messages: Sequence[Message]
    forgetful: bool = False
    workqueue: bool = False
    many: int = 256
    record: list[tuple[Recorded, float]] = field(default_factory=list)
    acked: set[int] = field(default_factory=set)
    late: set[int] = field(default_factory=set)
    ahead: set[int] = field(default_factory=set)
    known: list[Recorded] = field(default_factory=list)

    @property
    def floor(self) -> int:
        return self.floor_of(self.acked)

    def floor_of(self, acked: set[int]) -> int:
        floor = 0
        for one in self.messages:
            if one.seq not in acked:
                break
            floor = one.seq
        return floor

    @property
    def windows(self) -> set[Cut]:
        return {
            (one.key, one.id, one.revision, one.reason, one.start, one.end, tuple(expand(one.members)))
            for one, _ in self.record
        }

    def history(self) -> list[Recorded]:
        floor = self.floor
        if not self.forgetful:
            return [one for one, _ in self.record]
        since = next((one.stored for one in self.messages if one.seq > floor), 0.0) - self.spec.reach
        kept, seen, settled = [], set(), set()
        for one, at in reversed(self.record):
            settles = one.reason != "early" and one.key not in settled
            if one.last > floor or (self.spec.reach and at >= since) or one.key not in seen or settles:
                kept.append(one)
            seen.add(one.key)
            if settles:
                settled.add(one.key)
        return kept[::-1]

    def live(self, until: int, chance: Random, between: Between) -> None:
        """Read on up to so many messages of the stream, record and acknowledge some of what came of it, and die."""
        windower, queues = self._read(until, between)
        for key in sorted(queues):
            queue = queues[key]
            done = [one for outcome in queue[: chance.randint(0, len(queue))] for one in self._act(outcome, windower)]
            self.acked |= {one for one in done if chance.random() < 0.5}

    def end(self, *, flush: bool) -> Windower:
        """Live once more, to the end."""
        windower, queues = self._read(len(self.messages), lambda *_: [])
        outcomes = [one for queue in queues.values() for one in queue]
        for outcome in outcomes + (windower.flush() if flush else []):
            self.acked |= set(self._act(outcome, windower))
        return windower

    def _read(self, until: int, between: Between) -> tuple[Windower, dict[str, list[Outcome]]]:
        floor = self.floor
        self.known = self.history()
        # Whatever is read again is not known to be acknowledged.
        acked = set(self.acked) if self.workqueue else {one for one in self.acked if one <= floor}
        with patch.object(history, "_MANY", self.many):
            windower = Windower(self.spec, self.known)
        windower.forget(floor)
        queues: dict[str, list[Outcome]] = {}
        followed = zip(self.messages, [*self.messages[1:], None], strict=False)
        for one, after in islice(followed, until):
            if one.seq <= floor or (self.workqueue and one.seq in self.acked):
                continue
            outcomes = windower.feed(one)
            outcomes += between(windower, one.stored, after.stored if after else one.stored + 100.0)
            for outcome in outcomes:
                key = outcome.window.key if isinstance(outcome, Closed) else outcome.message.key
                queues.setdefault(key, []).append(outcome)
                if isinstance(outcome, Done) and outcome.recorded is not None:
                    acked.add(outcome.message.seq)
            windower.forget(self.floor_of(acked))
        return windower, queues

    def _act(self, outcome: Outcome, windower: Windower) -> Sequence[int]:
        """Do what an outcome asks for; the positions that may be acknowledged then."""
        if isinstance(outcome, Closed):
            recorded = outcome.window.recorded()
            assert identity(recorded) not in map(identity, self.known), f"{recorded} is made again"
            same = [one for one, _ in self.record if identity(one) == identity(recorded)]
            assert not same or same == [recorded], f"{recorded} contradicts {same}"
            if not same:
                self.record.append((recorded, outcome.window.messages[-1].stored))
            return outcome.window.releases
        if isinstance(outcome, Late):
            self.late.add(outcome.message.seq)
            return (outcome.message.seq,) if outcome.settled else ()
        if isinstance(outcome, Ahead):
            self.ahead.add(outcome.message.seq)
        else:
            assert isinstance(outcome, Done)
        return (outcome.message.seq,)


def identity(one: Recorded) -> tuple[str, str, int]:
    return one.key, one.id, one.revision

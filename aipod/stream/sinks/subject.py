"""Results in a JetStream subject: a record in two forms.

*By id* (the default): each result carries its identity as ``Nats-Msg-Id``, and the broker stores an identity once for
as long as its dedup window lasts. An outage that is longer than that can store a window twice.

*Fenced*: each result also says which message must be the last of its subject. That has no time limit, and shuts out a
writer that does not know what another has written since.

An early result or a correction says nothing about how far its key has come, and hides the result that does, since the
last message of a subject is what a restart finds. So such a result points to it, in ``Aipod-Settled``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from contextlib import aclosing
from typing import NamedTuple

from aipod.errors import ConfigError, SerializationError, Unavailable
from aipod.stream.broker.connection import Connection
from aipod.stream.errors import Diverged, Fenced, OutOfStep
from aipod.stream.message import Message
from aipod.stream.origin import mark_of
from aipod.stream.result import Identity, Recorded, Result
from aipod.stream.sinks.history import Recall, settles
from aipod.stream.sinks.publishing import Stored, fetch, publish
from aipod.stream.sinks.streams import find_stream
from aipod.stream.sinks.sweep import sweep
from aipod.stream.tasks.template import Template

__all__ = ["SubjectSink"]

_LOG = logging.getLogger("aipod.stream")
_SETTLED = "Aipod-Settled"
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_DEDUP = 600.0
# Subjects whose last message is remembered; of others it is asked for.
_MAX_TAILS = 100_000
_TRIES = 3
# So many results of the past are looked at before others have their turn on the loop.
_TURN = 500


class _Tail(NamedTuple):
    """The last message of a subject, and the last one that settles a window; 0 for none."""

    last: int
    settled: int


_EMPTY = _Tail(0, 0)


class SubjectSink:
    """Publishes results. A record.

    Args:
        subject: A template, see :mod:`aipod.stream.tasks.template`.
        task: The task's name.
        fenced: Whether a result names the message that it follows.
        stream: The stream that has the subject; None finds it.
        create: Make that stream if there is none.
    """

    def __init__(
        self,
        connection: Connection,
        subject: str,
        task: str,
        *,
        fenced: bool = False,
        stream: str | None = None,
        create: bool = False,
    ) -> None:
        self.name = f"{'nats-fenced' if fenced else 'nats'}:{subject}"
        self._connection = connection
        self._template = Template(subject)
        self._pattern = self._template.wildcard(task)
        self._task = task
        self._fenced = fenced
        self._wanted = stream
        self._create = create
        self._stream = ""
        self._tails: OrderedDict[str, _Tail] = OrderedDict()
        # Whether a subject that has no tail is known to be empty.
        self._complete = False
        self._places: dict[Identity, int] = {}

    def __repr__(self) -> str:
        return f"SubjectSink({self.name!r})"

    async def open(self) -> None:
        config = await find_stream(
            self._connection, self._pattern, name=self._wanted, create=self._create, dedup=_DEDUP
        )
        if config.get("retention", "limits") != "limits":
            raise ConfigError(
                [
                    f"stream {config['name']!r} drops results that were consumed, and so is no record; its retention"
                    " must be limits"
                ]
            )
        self._stream = config["name"]
        if not self._fenced:
            window = config.get("duplicate_window", 0) / 1e9
            _LOG.info("%s: stream %s knows a result again for %g s", self.name, self._stream, window)

    async def recall(self, since: float, floor: int) -> list[Recorded]:
        self._tails.clear()
        self._places.clear()
        self._complete = False
        # Without their values, which can be large, and many.
        found: dict[int, tuple[Recorded, float]] = {}
        hidden: set[int] = set()
        for start in (None, since):  # the recent ones second: what was stored meanwhile is among them
            async with aclosing(sweep(self._connection, self._stream, self._pattern, since=start)) as batches:
                async for batch in batches:
                    for message in batch:
                        result = self._owned(message)
                        found[message.seq] = result.recorded, message.stored
                        hidden.add(self._note(message, result))
        for seq in hidden - found.keys() - {0}:
            message_there = await fetch(self._connection, self._stream, seq=seq)
            if message_there is not None:
                found[seq] = self._owned(message_there).recorded, 0.0
        self._complete = len(self._tails) < _MAX_TAILS
        recall = Recall(since, floor)
        for number, seq in enumerate(sorted(found, reverse=True)):
            if number % _TURN == 0:
                await asyncio.sleep(0)
            recorded, stored = found.pop(seq)
            if recall.offer(recorded, stored):
                self._places[recorded.identity] = seq
        return recall.oldest_first()

    async def stored(self, recorded: Recorded) -> Result | None:
        seq = self._places.get(recorded.identity, 0)
        message = await fetch(self._connection, self._stream, seq=seq) if seq else None
        return None if message is None else self._owned(message)

    async def write(self, result: Result) -> None:
        recorded = result.recorded
        subject = self._template.render(
            task=self._task, key=recorded.key, headers=result.headers, subject=result.subject
        )
        data = result.encode()
        # The same window of a stream that was made anew is another one.
        message_id = result.identity + mark_of(recorded.source)
        headers = {"Nats-Msg-Id": message_id, "Aipod-Task": self._task, "Aipod-Window": recorded.id}
        for _ in range(_TRIES):
            tail = _EMPTY
            if self._fenced or not settles(recorded):
                tail = await self._tail(subject)
            if self._fenced:
                headers[_EXPECTED] = str(tail.last)
            if not settles(recorded):
                headers[_SETTLED] = str(tail.settled)
            try:
                answer = await publish(self._connection, self._stream, subject, data, headers)
            except OutOfStep:
                if await self._is_there(result, subject):
                    return
                continue  # the subject was emptied
            return await self._stored_as(result, subject, tail, answer)
        raise Unavailable(f"subject {subject!r} is being changed by others; trying again")

    async def close(self) -> None:
        """Nothing to give back: the connection is its owner's."""

    async def _tail(self, subject: str) -> _Tail:
        known = self._tails.get(subject)
        if known is None and not self._complete:
            known = self._tail_of(await fetch(self._connection, self._stream, subject=subject))
        return known or _EMPTY

    def _tail_of(self, message: Message | None) -> _Tail:
        if message is None:
            return _EMPTY
        settled = message.seq if settles(self._owned(message).recorded) else _pointer(message)
        return _Tail(message.seq, settled)

    async def _stored_as(self, result: Result, subject: str, tail: _Tail, answer: Stored) -> None:
        seq = answer.seq
        if answer.duplicate:
            # Either an earlier try of ours whose answer was lost, or another process that closed the window otherwise.
            message = await fetch(self._connection, self._stream, seq=seq)
            self._remember(subject, self._tail_of(await fetch(self._connection, self._stream, subject=subject)))
            if message is None:
                _LOG.warning("%s: %s was stored and has been removed since", self.name, result.identity)
            else:
                self._compare(result, self._owned(message))
            return
        self._remember(subject, _Tail(seq, seq if settles(result.recorded) else tail.settled))

    async def _is_there(self, result: Result, subject: str) -> bool:
        """Whether the last message of a subject is this very result; False if the subject is empty.

        Raises:
            Fenced: It is another result, so another process writes here.
            Diverged: It is this window, closed otherwise.
        """
        message = await fetch(self._connection, self._stream, subject=subject)
        if message is None:
            self._remember(subject, _EMPTY)
            return False
        there = self._owned(message)
        if there.identity != result.identity:
            raise Fenced(self._task)
        self._remember(subject, self._tail_of(message))
        self._compare(result, there)
        return True

    def _compare(self, result: Result, there: Result) -> None:
        if there.identity != result.identity:
            raise ConfigError([f"{self.name}: what has the id {result.identity} there is another result"])
        if not there.recorded.agrees(result.recorded):
            raise Diverged(there.recorded)

    def _note(self, message: Message, result: Result) -> int:
        """Remember the tail that a message is; the settled one that it hides, 0 for none."""
        known = self._tails.get(message.subject, _EMPTY)
        if message.seq > known.last:
            settled = message.seq if settles(result.recorded) else max(known.settled, _pointer(message))
            self._remember(message.subject, _Tail(message.seq, settled))
        return 0 if settles(result.recorded) else _pointer(message)

    def _remember(self, subject: str, tail: _Tail) -> None:
        self._tails[subject] = tail
        self._tails.move_to_end(subject)
        if len(self._tails) > _MAX_TAILS:
            self._tails.popitem(last=False)
            self._complete = False

    def _owned(self, message: Message) -> Result:
        try:
            result = Result.read(message.data)
        except SerializationError:
            what = "is no result of a window"
        else:
            if result.task == self._task and result.recorded.members:
                return result
            what = f"is a result of task {result.task!r}"
        raise ConfigError(
            [
                f"{self.name}: message {message.seq} of stream {self._stream}, on {message.subject!r}, {what};"
                f" give task {self._task!r} a subject of its own"
            ]
        )


def _pointer(message: Message) -> int:
    text = message.headers.get(_SETTLED, "")
    return int(text) if text.isascii() and text.isdigit() else 0

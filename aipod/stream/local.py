"""A task tried on a file, without a broker: the same reading, windows, model and sinks, on the caller's own thread, so
that breakpoints in a task's functions work.

Each line of the file is a message: either its payload as it is, or a JSON object with ``data`` and beside it no more
than ``subject``, ``headers`` and ``stored`` (unix seconds, or ISO 8601). There, a ``data`` of ``{"base64": "…"}``
stands for bytes. What has no ``stored`` was stored when it was read.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import logging
import math
import os
import re
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from aipod.errors import ConfigError
from aipod.stream.burial import Burial
from aipod.stream.ending import first_of
from aipod.stream.feed import Feed, Parts
from aipod.stream.inference import Inference, model_of
from aipod.stream.message import Message
from aipod.stream.recording import Recording
from aipod.stream.result import Members, Ranges
from aipod.stream.retry import Retry
from aipod.stream.sinks.interface import Record
from aipod.stream.sinks.opening import open_sink
from aipod.stream.sinks.thread import SinkThread
from aipod.stream.statistics import Statistics
from aipod.stream.tasks import StreamTask
from aipod.stream.windows import Windower

__all__ = ["run_file"]

_log = logging.getLogger("aipod.stream")

T = TypeVar("T")

_FIELDS = frozenset({"data", "subject", "headers", "stored"})
_BATCH = 256
# What has no end must not fill the memory before anybody sees that it is no file of messages.
_LONGEST_LINE = 128 << 20


def run_file(task: StreamTask, events: Path) -> dict[str, Any]:
    """Run a task on the messages of a file, to the end; windows that are open then are closed.

    Dead letters are logged. Nothing is tried again: whoever tries a task wants to see what is wrong.

    Args:
        events: The file; ``-`` is the standard input.

    Returns:
        The statistics.

    Raises:
        ConfigError: The file cannot be read, or one of the sinks needs a broker or is a record.
        AipodError: What the model or a sink raised.
    """
    if str(events) == "-":
        return asyncio.run(_run(task, sys.stdin.buffer))
    try:
        file = events.open("rb")
    except OSError as error:
        raise ConfigError([f"{events}: the file cannot be read: {error.strerror}"]) from error
    with file:
        return asyncio.run(_run(task, file))


async def _run(task: StreamTask, file: BinaryIO) -> dict[str, Any]:
    task = replace(task, model=replace(task.model, concurrency=1))  # one after the other, as one reads them
    statistics = Statistics()
    async with AsyncExitStack() as stack:
        thread = None
        if not file.seekable():
            # A person types, or another program writes. A line that never comes must not keep the process from ending:
            # so it is read by a thread that nobody waits for, from a file that nobody else can want to close.
            thread = SinkThread("lines")
            file = open(os.dup(file.fileno()), "rb")  # noqa: SIM115 - whoever reads it closes it
            stack.callback(thread.leave, file.close)
        lines = _Lines(file, task.source.subjects[0], thread, keep=task.window.late == "amend")
        predict = await stack.enter_async_context(model_of(task.model))
        once = _Once("", _log)
        burial = Burial(task.name, _Logged(), task.dead_letters, once, statistics)
        sinks = [open_sink(each, task.name) for each in task.sinks]
        records = [sink.name for sink in sinks if isinstance(sink, Record)]
        if records:
            # Lines have the positions of messages: the task would obey its own trial, and lose as many of those.
            raise ConfigError([f"sink {records[0]} is the task's record, which a trial must not change; use stdout"])
        recording = Recording(sinks, lambda name: once, statistics)
        stack.push_async_callback(recording.close)
        await recording.open()

        inference = Inference(predict, task.preparing(), once, burial, statistics)
        windower, pending, fetch = Windower(task.window), lines.unacknowledged, lines.fetch
        feed = Feed(task, 0, Parts(lines, windower, inference, recording, burial, statistics, pending, fetch))
        stack.push_async_callback(feed.operator.close)
        await first_of(feed.run(once=True), feed.operator.failure())  # which comes while a line is waited for
    return statistics.as_dict()


class _Lines:
    """A source that is a file: everything is there, and nothing is acknowledged."""

    held_messages = held_bytes = 0

    def __init__(self, file: BinaryIO, subject: str, thread: SinkThread | None, keep: bool) -> None:
        self._subject = subject
        self._thread = thread
        # What comes bit by bit counts at once, line by line.
        self._batch = _BATCH if thread is None else 1
        self._lines = _numbered(file)
        self._kept: dict[int, Message] | None = {} if keep else None
        self._now = -math.inf
        self.floor = 0
        self.caught_up = False

    async def get(self, timeout: float | None = None) -> list[Message]:
        messages: list[Message] = []
        while len(messages) < self._batch and not self.caught_up:
            # What comes bit by bit must not hold up what is in flight.
            thread = self._thread
            found = next(self._lines, None) if thread is None else await thread.run(next, self._lines, None)
            if found is None:
                self.caught_up = True
                break
            messages.append(self._message(*found))
        if self._kept is not None:
            self._kept.update((message.seq, message) for message in messages)
        return messages

    def done(self, seqs: Iterable[int]) -> None:
        pass

    def now(self) -> float:
        return self._now

    async def settled(self) -> float | None:
        return self._now

    async def unacknowledged(self) -> int:
        return 0

    async def fetch(self, ranges: Ranges) -> list[Message]:
        members = Members(ranges)
        return [message for seq, message in (self._kept or {}).items() if seq in members]

    def _message(self, number: int, line: bytes) -> Message:
        record = _record(line)
        try:
            stored = _instant(record["stored"]) if "stored" in record else time.time()
            headers = {str(name): str(value) for name, value in dict(record.get("headers") or {}).items()}
            data = _payload(record["data"]) if record else line
        except (TypeError, ValueError) as error:
            raise ConfigError([f"line {number}: it is no message: {error}"]) from error
        self._now = max(self._now, stored)  # a broker's clock does not go back
        return Message(number, self._now, str(record.get("subject", self._subject)), data, headers)


class _Logged:
    """Dead letters that go into the log."""

    async def bury(self, message: Message, reason: str, error: BaseException | None = None) -> None:
        _log.error("line %d is a dead letter: %s", message.seq, reason)


class _Once(Retry):
    async def __call__(self, attempt: Callable[[], Awaitable[T]]) -> T:
        return await attempt()


def _numbered(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(iter(partial(file.readline, _LONGEST_LINE + 1), b""), 1):
        if len(line) > _LONGEST_LINE:
            raise ConfigError([f"line {number}: it has more than {_LONGEST_LINE >> 20} MiB, and so is no message"])
        stripped = line.strip()
        if stripped:
            yield number, stripped


def _record(line: bytes) -> dict[str, Any]:
    """Read a line that is a message with all its parts; {} if it is a payload."""
    try:
        value = json.loads(line) if line.startswith(b"{") else None
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) and "data" in value and value.keys() <= _FIELDS else {}


def _payload(data: Any) -> bytes:
    if isinstance(data, dict) and data.keys() == {"base64"}:
        return base64.b64decode(data["base64"], validate=True)
    return json.dumps(data, ensure_ascii=False).encode()


def _instant(value: Any) -> float:
    try:
        if isinstance(value, str):
            moment = datetime.datetime.fromisoformat(re.sub("[zZ]$", "+00:00", value))
            return moment.replace(tzinfo=moment.tzinfo or datetime.timezone.utc).timestamp()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"stored is {value!r}; it must be unix seconds, or ISO 8601")

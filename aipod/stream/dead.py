"""Where messages go that nobody can use, and the way back.

A letter is removed when it has been put back, so that what is there is what nobody has dealt with yet.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

from aipod.errors import ConfigError, Unavailable
from aipod.stream.broker.connection import Connection
from aipod.stream.errors import NoTaker, Refused, TooLarge
from aipod.stream.letters import DeadLetter, read_letter, write_letter
from aipod.stream.message import Message
from aipod.stream.origin import mark_of
from aipod.stream.sinks.publishing import addressed, fetch, publish, wire_bytes
from aipod.stream.sinks.streams import find_stream
from aipod.stream.tasks.subjects import overlap

__all__ = ["DeadLetter", "DeadLetters"]

_LOG = logging.getLogger("aipod.stream")
# Letters are few, and the same message comes again after every crash until it is acknowledged.
_DEDUP = 3600.0


class DeadLetters:
    """The dead letters of a task.

    Args:
        task: The task's name.
        subject: Where they are, the task's own.
        source: The stream that its messages come from; needed to bury.
        origin: The same, as :mod:`aipod.stream.origin` names it.
        create: Make a stream for the subject if there is none.
        stream: That stream's name; None finds it.
    """

    def __init__(
        self,
        connection: Connection,
        task: str,
        subject: str,
        *,
        source: str = "",
        origin: str = "",
        create: bool = True,
        stream: str | None = None,
    ) -> None:
        self._connection = connection
        self._task = task
        self._subject = subject
        self._source = source
        self._origin = origin
        self._create = create
        self._wanted = stream
        self._stream = ""
        self._deny_delete = False

    def __repr__(self) -> str:
        return f"DeadLetters({self._subject!r})"

    async def open(self) -> None:
        """Find the stream, or make it; what else is called does it by itself.

        Raises:
            Unavailable: There is none, or the broker is away.
            ConfigError: It cannot be used.
        """
        config = await find_stream(
            self._connection, self._subject, name=self._wanted, create=self._create, dedup=_DEDUP
        )
        self._deny_delete = bool(config.get("deny_delete"))
        self._stream = config["name"]

    async def bury(self, message: Message, reason: str, error: BaseException | None = None) -> None:
        """Store a message, and return when it is durable: then it may be acknowledged.

        Buried twice within an hour (in a stream that we made; the dedup window of any other), it is there once.

        Raises:
            Unavailable: To be tried again.
            ConfigError: The stream takes no letters.
        """
        await self._open_once()
        limit = self._connection.nc.max_payload
        for _ in range(2):
            room = limit - wire_bytes(addressed(self._stream, {})) + wire_bytes({})
            headers, data = write_letter(message, self._task, self._source, reason, error, room, self._origin)
            try:
                await publish(self._connection, self._stream, self._subject, data, headers)
                return
            except TooLarge as refusal:
                limit = refusal.limit  # the stream's own, smaller than the broker's
            except Unavailable:
                self._stream = ""  # it may be gone, and is looked for again
                raise
        raise ConfigError([f"the stream of {self._subject!r} takes {limit} bytes, too few for any dead letter"])

    async def count(self) -> int:
        """Count the letters on the subject.

        Raises:
            Unavailable: The broker is away.
        """
        if not await self._is_there():
            return 0
        info = await self._info({"subjects_filter": self._subject})
        return sum((info["state"].get("subjects") or {}).values())

    async def list(self, limit: int | None = None, subject: str = ">") -> AsyncGenerator[DeadLetter, None]:
        """Read the letters, the oldest first, those of later not included. To be closed with ``aclosing``.

        Args:
            limit: At most so many.
            subject: Only messages that came from such subjects; wildcards are allowed.

        Raises:
            Unavailable: The broker is away.
        """
        if not await self._is_there():
            return
        last: int = (await self._info())["state"]["last_seq"]
        seq = 1
        while limit is None or limit > 0:
            found = await fetch(self._connection, self._stream, seq=seq, subject=self._subject)
            if found is None or found.seq > last:
                return
            seq = found.seq + 1
            letter = read_letter(found.seq, found.headers, found.data)
            if letter is not None and letter.task == self._task and overlap(letter.subject, subject):
                limit = None if limit is None else limit - 1
                yield letter

    async def replay(self, limit: int | None = None, subject: str = ">") -> int:
        """Publish messages again where they came from, as they were, and remove their letters; how many it were.

        May be interrupted at any point and begun anew: a message that was put back, and whose letter was not removed
        any more, is put back once, as long as the source's dedup window lasts. The letter of one that cannot be put
        back stays, and the log says why.

        Args:
            limit: At most so many.
            subject: Only messages that came from such subjects; wildcards are allowed.

        Raises:
            Unavailable: The broker or a stream is away; what was put back stays so.
            ConfigError: The stream does not let its messages be removed.
        """
        if not await self._is_there():
            return 0
        if self._deny_delete:
            raise ConfigError([f"stream {self._stream!r} denies removal, so a replay would never end; allow it"])
        # One that is made anew counts its letters from 1 again, and the source remembers the ids of the old ones.
        mark = mark_of(f"{self._stream}@{(await self._info())['created']}")
        done = 0
        async with aclosing(self.list(subject=subject)) as letters:
            async for letter in letters:
                if done == limit:
                    break
                done += await self._put_back(letter, mark)
        return done

    async def _put_back(self, letter: DeadLetter, mark: str) -> bool:
        headers, data = letter.headers, letter.data
        if letter.left_out:
            original = await fetch(self._connection, letter.stream, seq=letter.sequence)
            if original is None:
                _keep(letter, "was too large to be kept, and is gone there")
                return False
            headers, data = dict(original.headers), original.data
        headers = {name: value for name, value in headers.items() if not name.lower().startswith("nats-")}
        headers["Nats-Msg-Id"] = f"replay/{quote(self._stream, safe='')}/{letter.seq}{mark}"
        try:
            stored = await publish(self._connection, letter.stream, letter.subject, data, headers)
        except TooLarge as error:  # by what is added to it
            _keep(letter, f"is too large to be put back: it has {error.size} bytes then, and at most {error.limit} fit")
            return False
        if stored.duplicate and not await self._is_back(letter, stored.seq, data):
            _keep(letter, f"is not put back: the stream takes it for message {stored.seq}, which is another")
            return False
        await self._remove(letter)
        return not stored.duplicate

    async def _is_back(self, letter: DeadLetter, seq: int, data: bytes) -> bool:
        """Whether an earlier replay has put a message back as that one; it may have been removed since."""
        there = await fetch(self._connection, letter.stream, seq=seq)
        return there is None or (there.subject, there.data) == (letter.subject, data)

    async def _remove(self, letter: DeadLetter) -> None:
        try:
            await self._connection.api(f"STREAM.MSG.DELETE.{self._stream}", {"seq": letter.seq, "no_erase": True})
        except (Refused, Unavailable):
            # Another replay may have been faster.
            if await fetch(self._connection, self._stream, seq=letter.seq) is not None:
                raise

    async def _open_once(self) -> None:
        if not self._stream:
            await self.open()

    async def _is_there(self) -> bool:
        try:
            await self._open_once()
        except NoTaker:  # there never was a letter
            return False
        return True

    async def _info(self, request: dict[str, str] | None = None) -> dict[str, Any]:
        try:
            return await self._connection.api(f"STREAM.INFO.{self._stream}", request)
        except Refused as error:
            self._stream = ""
            raise Unavailable(str(error)) from error


def _keep(letter: DeadLetter, why: str) -> None:
    _LOG.warning("message %d of stream %s %s; its letter stays", letter.sequence, letter.stream, why)

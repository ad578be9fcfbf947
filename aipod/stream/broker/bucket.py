"""Small JSON values under keys, changed only by whoever saw the last change."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from nats.js import JetStreamContext
from nats.js.errors import BucketNotFoundError, KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from aipod.errors import ConfigError, Unavailable
from aipod.stream.broker.connection import Connection
from aipod.stream.broker.failures import translated
from aipod.stream.broker.reader import get_message
from aipod.stream.errors import Refused
from aipod.stream.message import Message

__all__ = ["Bucket", "Entry", "foresee", "peek", "token"]

_PLAIN: frozenset[int] = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


class Entry(NamedTuple):
    value: dict[str, Any]
    revision: int


def token(name: str) -> str:
    """Write any name as one token of a key: what a key cannot have becomes ``=`` and two digits for each byte."""
    raw = name.encode("utf-8", "surrogatepass")
    return "".join(chr(byte) if byte in _PLAIN else f"={byte:02X}" for byte in raw)


class Bucket:
    """A bucket, made when it is first used and not there.

    Every method raises :class:`~aipod.errors.Unavailable` if the broker is away, and
    :class:`~aipod.errors.ConfigError` if it does not let us.
    """

    def __init__(self, conn: Connection, name: str) -> None:
        self.name = name
        self._conn = conn
        self._js: JetStreamContext | None = None
        self._kv: KeyValue | None = None

    async def get(self, key: str) -> Entry | None:
        with self._translated(f"reading {key}"):
            try:
                entry = await (await self._open()).get(key)
            except KeyNotFoundError:
                return None
        return Entry(_read(entry.value), entry.revision or 0)

    async def put(self, key: str, value: Mapping[str, Any]) -> None:
        """Write, whatever is there."""
        with self._translated(f"writing {key}"):
            await (await self._open()).put(key, _written(value))

    async def change(self, key: str, value: Mapping[str, Any], last: int) -> int | None:
        """Write if the last change is still ``last`` (0: nothing is there); the new revision, None if it is not."""
        with self._translated(f"writing {key}"):
            kv = await self._open()
            try:
                if last:
                    return int(await kv.update(key, _written(value), last=last))
                return int(await kv.create(key, _written(value)))
            except KeyWrongLastSequenceError:
                return None

    async def remove(self, key: str, last: int | None = None) -> bool:
        """Remove if the last change is still ``last``, if that is given; whether it was so."""
        with self._translated(f"removing {key}"):
            try:
                await (await self._open()).delete(key, last=last)
            except Refused:
                return False
            except KeyWrongLastSequenceError:
                return False
        return True

    async def last(self, key: str) -> Entry | None:
        """Read the last change of a key, its removal too: that has an empty value. None if nothing is left of it."""
        with self._translated(f"reading {key}"):
            await self._open()
            found = await _last(self._conn, self.name, key)
        return None if found is None else Entry(_read(found.data), found.seq)

    async def forget(self, key: str, last: int | None = None) -> None:
        """Leave nothing of a key, not even that it was removed; of its changes up to ``last``, if that is given."""
        upto = {} if last is None else {"seq": last + 1}
        await self._ask("STREAM.PURGE", {"filter": f"$KV.{self.name}.{key}", **upto})

    async def keys(self, pattern: str) -> list[str]:
        """List the keys that fit a pattern of tokens, those included that were removed; sorted."""
        prefix = f"$KV.{self.name}."
        about = await self._ask("STREAM.INFO", {"subjects_filter": prefix + pattern})
        return sorted(subject[len(prefix) :] for subject in about["state"].get("subjects") or {})

    async def _ask(self, what: str, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._translated(what):
            await self._open()
            try:
                return await self._conn.api(f"{what}.KV_{self.name}", request)
            except Refused as error:  # it was removed in this very moment
                raise Unavailable(str(error)) from error

    async def _open(self) -> KeyValue:
        js = self._conn.js
        if self._kv is None or self._js is not js:
            with translated(f"opening bucket {self.name}"):
                try:
                    self._kv = await js.key_value(self.name)
                except BucketNotFoundError:
                    self._kv = await js.create_key_value(bucket=self.name)
            self._js = js
        return self._kv

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        try:
            with translated(doing):
                yield
        except Unavailable as error:
            self._kv = None  # nobody answers for a bucket that was removed, either: look for it again
            if why := self._conn.denial(error, self.name):
                raise ConfigError([_forbidden(self.name, why)]) from error
            raise


async def peek(conn: Connection, bucket: str, key: str) -> tuple[dict[str, Any], float]:
    """Read an entry, and when it was written, in unix seconds by the broker's clock; nothing and 0.0 if none is there.

    Not through the bucket's own door, which makes a bucket where there is none.

    Raises:
        Unavailable: The broker is away.
    """
    message = await _last(conn, bucket, key)
    found = _read(message.data) if message is not None else {}  # one that was removed has no data
    return found, message.stored if message is not None and found else 0.0


async def foresee(conn: Connection, bucket: str) -> str:
    """Say what the first use of a bucket would find; nothing is made.

    Raises:
        ConfigError: The broker does not let us.
        Unavailable: The broker is away.
    """
    try:
        await conn.api(f"STREAM.INFO.KV_{bucket}")
    except Refused as error:
        if not error.is_no_stream:
            raise
        return f"bucket {bucket} would be made"
    except Unavailable as error:
        if why := conn.denial(error, bucket):
            raise ConfigError([_forbidden(bucket, why)]) from error
        raise
    return f"bucket {bucket} is there"


def _forbidden(bucket: str, why: str) -> str:
    return f"the broker does not permit what is needed for bucket {bucket!r}: {why}"


async def _last(conn: Connection, bucket: str, key: str) -> Message | None:
    try:
        return await get_message(conn, f"KV_{bucket}", subject=f"$KV.{bucket}.{key}")
    except Refused:  # there is no bucket
        return None


def _written(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), default=str).encode()


def _read(value: bytes | None) -> dict[str, Any]:
    # Whatever somebody else has put there, it is nothing that we understand, and it is changed as such.
    try:
        found = json.loads(value or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}

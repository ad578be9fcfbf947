"""Small JSON values under keys, changed only by whoever saw the last change."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from nats.js import JetStreamContext
from nats.js.errors import BucketNotFoundError, KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from aipod.errors import Unavailable
from aipod.stream.broker.connection import Connection
from aipod.stream.broker.failures import Refused, translated
from aipod.stream.broker.times import nanoseconds

__all__ = ["Bucket", "Entry", "peek", "token"]

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

    Every method raises :class:`~aipod.errors.Unavailable` if the broker is away.
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

    async def keys(self, pattern: str) -> list[str]:
        """List the keys that fit a pattern of tokens, those included that were removed; sorted."""
        await self._open()
        prefix = f"$KV.{self.name}."
        about = await self._conn.api(f"STREAM.INFO.KV_{self.name}", {"subjects_filter": prefix + pattern})
        return sorted(subject[len(prefix) :] for subject in about["state"].get("subjects") or {})

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
        except Unavailable:
            self._kv = None  # nobody answers for a bucket that was removed, either: look for it again
            raise


async def peek(conn: Connection, bucket: str, key: str) -> tuple[dict[str, Any], float]:
    """Read an entry, and when it was written, in unix seconds by the broker's clock; nothing and 0.0 if none is there.

    Not through the bucket's own door, which makes a bucket where there is none.

    Raises:
        Unavailable: The broker is away.
    """
    try:
        answer = await conn.api(f"STREAM.MSG.GET.KV_{bucket}", {"last_by_subj": f"$KV.{bucket}.{key}"})
    except Refused:
        return {}, 0.0
    message = answer["message"]
    found = _read(base64.b64decode(message.get("data", "")))  # one that was removed has no data
    return (found, nanoseconds(message["time"]) / 1e9) if found else ({}, 0.0)


def _written(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), default=str).encode()


def _read(value: bytes | None) -> dict[str, Any]:
    # Whatever somebody else has put there, it is nothing that we understand, and it is changed as such.
    try:
        found = json.loads(value or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}

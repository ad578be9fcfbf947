"""Other names for versions, in one small file that every process reads again soon after it changed."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping
from contextlib import suppress

from aipod.errors import BadVersionName, InvalidArgument, StorageError
from aipod.model import disk
from aipod.model.layout import Layout
from aipod.model.locks import acquire
from aipod.model.names import check_version

__all__ = ["Aliases"]

logger = logging.getLogger("aipod.store")

_Signature = tuple[int, int, int]


class Aliases:
    """Alias -> version.

    Args:
        layout: The data path.
        refresh: Another process's change is seen within this many seconds, by a ``stat`` when somebody asks.
    """

    def __init__(self, layout: Layout, refresh: float = 1.0) -> None:
        self._layout = layout
        self._refresh = refresh
        # Replaced whole and never changed, so that resolve() reads it without the guard.
        self._table: Mapping[str, str] = {}
        self._due = 0.0
        # Only a file that could be read counts as seen: until it is mended every look fails, and with it every change.
        self._seen: _Signature | None = None
        self._warned: _Signature | None = None
        self._guard = threading.Lock()

    def resolve(self, name: str) -> str:
        """The version that ``name`` is an alias of, or ``name`` itself; a file that cannot be read changes nothing.

        What was read last holds on, so open a data path with :meth:`table`, which does not look past such a file.
        """
        if time.monotonic() >= self._due:
            with suppress(OSError, StorageError):
                self._look()
        return self._table.get(name, name)

    def table(self) -> dict[str, str]:
        """All of them, as they are now.

        Raises:
            StorageError: The file cannot be read.
        """
        self._look()
        return dict(self._table)

    def set(self, alias: str, version: str) -> None:
        """Let ``alias`` name ``version``; the caller has seen to it that one is no version and the other is."""
        with acquire(self._layout.root, exclusive=True):
            self._write({**self.table(), alias: version})

    def drop(self, alias: str) -> None:
        """
        Raises:
            InvalidArgument: There is no such alias.
        """
        with acquire(self._layout.root, exclusive=True):
            table = self.table()
            if alias not in table:
                raise InvalidArgument(f"there is no alias {alias!r}; see aliases()")
            del table[alias]
            self._write(table)

    def _write(self, table: Mapping[str, str]) -> None:
        text = json.dumps(dict(sorted(table.items())), indent=1, ensure_ascii=False)
        disk.write_file(self._layout.aliases, text.encode())
        disk.sync_dir(self._layout.root)
        self._look()

    def _look(self) -> None:
        with self._guard:
            self._due = time.monotonic() + self._refresh
            try:
                info = self._layout.aliases.stat()
            except FileNotFoundError:
                self._table, self._seen = {}, None
                return
            signature = (info.st_ino, info.st_mtime_ns, info.st_size)
            if signature == self._seen:
                return
            try:
                self._table, self._seen = _parse(self._layout.aliases.read_bytes()), signature
            except StorageError as error:
                if signature != self._warned:
                    self._warned = signature
                    logger.warning("%s; those that were read before still hold", error)
                raise


def _parse(text: bytes) -> dict[str, str]:
    try:
        table = json.loads(text)
        if not isinstance(table, dict):
            raise ValueError(f"a JSON {type(table).__name__} is no object")
        return {check_version(alias): check_version(version) for alias, version in table.items()}
    except (ValueError, RecursionError, BadVersionName) as error:
        reason = f"aliases.json does not hold one JSON object of names ({error}); mend it, or remove it"
        raise StorageError("reading the aliases", reason) from None

"""What the windows of one key are to those who hold them: written once, for every kind."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from aipod.stream.message import Message
from aipod.stream.result import Recorded
from aipod.stream.windows.history import Holdings
from aipod.stream.windows.retained import Retained
from aipod.stream.windows.spec import WindowSpec
from aipod.stream.windows.window import Late, Outcome, Reason

__all__ = ["KeyWindows"]


class KeyWindows(ABC):
    """The windows of one key. Everything that happens appends what comes out to ``out``.

    Args:
        recorded: What earlier lives recorded of the key.
        retained: Closed windows that may be amended, of all keys.

    Attributes:
        due: When :meth:`advance` has something to do, on the server's clock; infinite if never.
        armed: When the holder will look at ``due`` next; the holder's own.
        past: What holds messages that may come again; None once all of them have come.
    """

    __slots__ = ("_shown", "armed", "due", "key", "past", "retained", "spec")

    # Whether a key that has nothing open is worth remembering.
    lasting: ClassVar[bool]

    def __init__(self, key: str, spec: WindowSpec, recorded: Sequence[Recorded], retained: Retained) -> None:
        self.key = key
        self.spec = spec
        self.retained = retained
        self.due = math.inf
        self.armed = math.inf
        done = [window for window in recorded if window.reason != "early"]
        self.past = Holdings(done) if done else None
        self._shown: dict[str, int] | None = None
        if len(done) < len(recorded):
            early = sorted((window.revision, window.id) for window in recorded if window.reason == "early")
            self._shown = {name: revision + 1 for revision, name in early}

    @abstractmethod
    def feed(self, message: Message, out: list[Outcome]) -> None:
        """Take the next message of the key; it is above all before it."""

    @abstractmethod
    def advance(self, now: float, out: list[Outcome]) -> None:
        """Close what is due at ``now``, and set the next ``due``."""

    @abstractmethod
    def close(self, reason: Reason, out: list[Outcome]) -> None:
        """Close everything: for good if the reason is "end", so that others may go on behind it if not."""

    @abstractmethod
    def open(self) -> Sequence[Sequence[Message]]:
        """List what each open window holds, without those that hold nothing."""

    def _repeats(self, seq: int) -> bool:
        """Whether a recorded window may hold it; once none can any more, the past is dropped."""
        if self.past is None:
            return False
        if seq > self.past.last:
            self.past = None
            return False
        return True

    def _first_revision(self, name: str) -> int:
        """The first revision of a window that is not recorded as an early one."""
        return self._shown.get(name, 0) if self._shown else 0

    def _late(self, message: Message, windows: Sequence[Recorded | None], placed: bool, out: list[Outcome]) -> None:
        """Say that a message came after these windows; only to amend them are more than one of them needed."""
        known = [window for window in windows if window is not None]
        if self.spec.late != "amend":
            known = known[-1:]
        for window in known[:-1]:
            out.append(Late(message, window, settled=False))
        out.append(Late(message, known[-1] if known else None, settled=not placed))

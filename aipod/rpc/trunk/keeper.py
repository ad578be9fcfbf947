"""Keeps trunks to one server up, in the background: calls go unary until there is one, and whenever there is none.

Nothing waits here, and nothing is timed: a call that comes looks whether it is time to open the next one.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
import threading
import time
from typing import Any

import grpc

from aipod.codec import MAX_WHOLE_BYTES
from aipod.rpc.trunk import living
from aipod.rpc.trunk.buffers import Buffers
from aipod.rpc.trunk.chunks import MAX_FRAME_BYTES
from aipod.rpc.trunk.stream import close_channel, missing, open_channel
from aipod.rpc.trunk.trunk import Trunk

__all__ = ["Trunks"]

_log = logging.getLogger("aipod.trunk")

# A program that calls once needs no stream, nor the thread that reads it.
_CALLS_BEFORE = 2
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
# A server, or a proxy on the way, that does not know trunks is asked again after this, for it may be replaced.
_UNKNOWN_PAUSE = 60.0
_GREETING_SECONDS = 10.0
# A stream stays where it was opened. Renewed now and then, a server that was added gets its share.
_MAX_AGE = 300.0
# Dice of our own: programs that seeded theirs alike would all renew at once.
_DICE = random.SystemRandom()
_UNKNOWN = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)
# For a stream's thread to end, which takes it milliseconds.
_LAST_SECONDS = 2.0
_MESSAGE_LIMIT = "grpc.max_receive_message_length"


class Trunks:
    """The trunks of one connection.

    Args:
        address: Where to.
        options: Of the channel.
        max_message_bytes: The largest reply.
        count: How many at a time; where a name stands for several servers, each may lead to another one.
    """

    def __init__(self, address: str, options: list[tuple[str, Any]], max_message_bytes: int, count: int = 1) -> None:
        self._address = address
        # Of replies we see to their size ourselves; many small ones share a frame.
        frame_limit = (_MESSAGE_LIMIT, min(max(max_message_bytes, MAX_FRAME_BYTES), MAX_WHOLE_BYTES))
        self._options = [*(option for option in options if option[0] != _MESSAGE_LIMIT), frame_limit]
        self._max_message_bytes = max_message_bytes
        self.buffers = Buffers()
        self._count = count
        self._pid = os.getpid()
        # The cycle collector may call close() on a thread that is in the middle of something here.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._channel: Any = None
        # The first call of a connection has us made.
        self._calls = 1
        self._pause = _FIRST_PAUSE
        self._not_before = 0.0
        self._is_known = not missing()
        self._opening: Trunk | None = None
        self._up: tuple[Trunk, ...] = ()
        self._turns = itertools.count()
        self._old: set[Trunk] = set()
        self._closed = not self._is_known
        self._halted = False

    def __repr__(self) -> str:
        return f"<Trunks to {self._address}: {len(self._up)} up>"

    @property
    def load(self) -> int:
        """Calls that wait or are on their way."""
        return sum(trunk.load for trunk in self._up)

    @property
    def may_come(self) -> bool:
        """Whether the server is not known to have none."""
        return self._is_known and not self._closed

    def take(self, now: float) -> Trunk | None:
        """The trunk for a call; None: send it unary."""
        up = self._up
        if len(up) < self._count or now > self._not_before:
            self._tend(now)
            up = self._up
        if not up:
            return None
        if len(up) == 1:
            return up[0]
        # Of those that are alike each comes in its turn.
        turn = next(self._turns) % len(up)
        return min((*up[turn:], *up[:turn]), key=_load)

    def connect(self, timeout: float) -> bool:
        """Open one now, and wait for it; False if none is to be had, or not in time."""
        deadline = time.monotonic() + timeout
        with self._lock:
            if self._up:
                return True
            self._calls = _CALLS_BEFORE
            self._not_before = 0.0
            self._is_known = True
        while True:
            now = time.monotonic()
            if not self._up:
                self._tend(now)
            with self._lock:
                if self._up or self._closed or not self._is_known or now >= deadline:
                    return bool(self._up)
                self._changed.wait(max(0.0, min(deadline, max(self._not_before, now + _FIRST_PAUSE)) - now))

    def close(self) -> None:
        """End all of them, under the calls that are on them. Waits for nobody: the cycle collector may call it."""
        if self._pid != os.getpid():
            # After a fork: the threads and the connection are the parent's.
            return
        with self._lock:
            self._closed = True
            self._changed.notify_all()
            trunks = self._all()
        for trunk in trunks:
            trunk.cut()
        self.buffers.close()
        self._leave()

    def halt(self) -> None:
        """See :class:`~aipod.rpc.trunk.living.Living`."""
        with self._lock:
            self._halted = True
            trunks = self._all()
        for trunk in trunks:
            trunk.cut()
        for trunk in trunks:
            trunk.join(_LAST_SECONDS)

    def go_on(self) -> None:
        self._halted = False

    def _all(self) -> list[Trunk]:
        return [*self._up, *self._old, *([self._opening] if self._opening else [])]

    def _tend(self, now: float) -> None:
        """Open the next one if it is time, and give up one that is not greeted."""
        silent: Trunk | None = None
        with self._lock:
            if self._closed or self._halted or now < self._not_before:
                return
            self._calls += 1
            if self._calls < _CALLS_BEFORE:
                return
            if self._opening is None:
                self._not_before = now + _GREETING_SECONDS
                self._open()
            elif _silent(self._opening):
                silent = self._opening
        if silent is not None:
            silent.cut()

    def _open(self) -> None:
        if self._channel is None:
            self._channel = open_channel(self._address, self._options)
            living.enter(self)
        try:
            self._opening = Trunk(
                self._channel,
                self._address,
                self._max_message_bytes,
                self.buffers,
                on_up=self._on_up,
                on_drain=self._on_drain,
                on_end=self._on_end,
            )
        except RuntimeError:
            # No thread can begin: there are too many, or the program is at its end.
            self._not_before = time.monotonic() + _UNKNOWN_PAUSE

    # On the trunks' threads.

    def _on_up(self, trunk: Trunk) -> None:
        with self._lock:
            if trunk is not self._opening:
                return
            self._opening = None
            self._is_known = True
            # One that was retired an age ago, and is not closed by its server.
            leftover = [one for one in self._old if not one.load]
            self._up = (*self._up, trunk)
            oldest = self._up[0] if len(self._up) > self._count else None
            if oldest is not None:
                self._up = self._up[1:]
                self._old.add(oldest)
            is_full = len(self._up) == self._count
            age = _MAX_AGE / self._count * _DICE.uniform(0.75, 1.25)
            self._not_before = time.monotonic() + (age if is_full else 0.0)
            self._changed.notify_all()
        if oldest is not None:
            oldest.retire()
        for one in [*leftover, *([trunk] if self._closed else [])]:
            one.cut()

    def _on_drain(self, trunk: Trunk) -> None:
        """The server wants no more calls on it."""
        with self._lock:
            if trunk is self._opening or trunk in self._up:
                self._old.add(trunk)
                self._up = tuple(one for one in self._up if one is not trunk)
                self._opening = None if trunk is self._opening else self._opening
                self._rest(trunk)
                self._changed.notify_all()
        trunk.retire()

    def _on_end(self, trunk: Trunk, code: grpc.StatusCode) -> None:
        with self._lock:
            was_up = trunk in self._up
            self._up = tuple(one for one in self._up if one is not trunk)
            self._old.discard(trunk)
            if trunk is self._opening:
                self._opening = None
                self._is_known = code not in _UNKNOWN and not _silent(trunk)
                self._rest(trunk)
            elif was_up:
                self._rest(trunk)
            self._changed.notify_all()
        self._leave()
        _log.debug("the stream to %s ended (%s)", self._address, code.name)

    def _rest(self, trunk: Trunk) -> None:
        """Say when to open the next one; a server whose streams come to nothing is asked less and less often."""
        now = time.monotonic()
        if not self._is_known:
            self._not_before = now + _UNKNOWN_PAUSE
            return
        if trunk.has_answered:
            self._pause = _FIRST_PAUSE
        self._not_before = now + self._pause
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    # The end.

    def _leave(self) -> None:
        """Close the channel after the last stream; before, gRPC may wait for it, perhaps on its own thread."""
        with self._lock:
            if not self._closed or self._all():
                return
            channel, self._channel = self._channel, None
        if channel is not None:
            close_channel(channel)
            living.leave(self)


def _load(trunk: Trunk) -> int:
    return trunk.load


def _silent(trunk: Trunk) -> bool:
    return time.monotonic() - trunk.opened >= _GREETING_SECONDS

"""The child's side: threads that do what the parent says.

The main thread makes and loads the instance, trains it, and disposes of it, as the main thread of a script would. Calls
that come while it is busy run on threads beside it, as many as come at a time: how many that are is for the parent to
say. Coroutines run on one event loop. A thread of its own reads what the parent says.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from types import FrameType

from aipod import shm
from aipod.engine.child.frames import TOKEN, Frame, Piece, Talk, Word, outcome_piece, read_piece, value_of_piece
from aipod.engine.child.hosted import Hosted
from aipod.engine.child.orders import MakeOrder
from aipod.engine.invoke import error_of
from aipod.errors import AipodError
from aipod.memory import reuse_freed_memory
from aipod.process import Lifeline

__all__ = ["run"]

_BEAT_SECONDS = 1.0
_SHARE_SECONDS = 60.0

_log = logging.getLogger("aipod.engine")


def run(sock: socket.socket, memory: int, memory_bytes: int) -> None:
    """Be a child until the parent says that it is over, or is no more.

    Args:
        sock: The conversation.
        memory: The number of the socket over which memory comes to be shared; -1 for none.
        memory_bytes: How much of it either side may lend.
    """
    lifeline = Lifeline()
    lifeline.die_with_parent()
    reuse_freed_memory()
    link = None
    if memory >= 0:
        shared = socket.socket(fileno=memory)
        shared.settimeout(_SHARE_SECONDS)
        with contextlib.suppress(OSError, AipodError):
            link = shm.exchange(shared, TOKEN, memory_bytes)
    _Host(Talk(sock, link), lifeline).work()


class _Source:
    """A call, as the model may ask about it."""

    def __init__(self, version: str, method: str, instant: float) -> None:
        self.version = version
        self.method = method
        self.deadline = None if math.isinf(instant) else instant
        self.cancelled = False
        self.on_cancel: Callable[[], object] | None = None

    def cancel(self) -> None:
        self.cancelled = True
        action = self.on_cancel
        if action is not None:
            action()


class _Host:
    def __init__(self, talk: Talk, lifeline: Lifeline) -> None:
        self._talk = talk
        # To let go of it would be to live on alone.
        self._lifeline = lifeline
        # For whichever thread is free; None ends all of them.
        self._tasks: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._calls: dict[int, _Source] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hosted: Hosted | None = None
        self._version = ""
        self._terminated = False

    def work(self) -> None:
        """The main thread's: whatever there is to do, and in the end the instance's disposal."""
        signal.signal(signal.SIGTERM, self._terminate)
        threading.Thread(target=self._listen, name="aipod-listen", daemon=True).start()
        try:
            self._serve()
            if self._hosted is not None:
                self._hosted.dispose()
        except BaseException:
            if self._terminated:
                _die()
            _log.exception("the end of an instance of version %r failed", self._version)

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        # Whatever the main thread is in may tidy up behind itself.
        self._terminated = True
        raise SystemExit(128 + number)

    def _listen(self) -> None:
        try:
            while True:
                self._take(self._talk.receive())
        except OSError:
            # The parent is no more, and the kernel ends this process, too; or it has no kernel that does.
            self._tasks.put(None)

    def _take(self, frame: Frame) -> None:
        if frame.word is Word.CANCEL:
            call = self._calls.get(frame.number)
            if call is not None:
                call.cancel()
        elif frame.word is Word.WISH:
            self._wish(value_of_piece(self._talk, frame.pieces[0]))
        elif frame.word is Word.END:
            self._tasks.put(None)
        elif frame.word is Word.CALL or frame.word is Word.BATCH:
            try:
                self._call(frame)
            except AipodError as error:
                self._say(Frame(Word.ANSWER, frame.number, (outcome_piece(self._talk, error),)))
        else:
            self._submit(partial(self._answer, frame.number, partial(self._prepare, frame)), for_main=True)

    def _wish(self, wish: str) -> None:
        run = self._hosted.run if self._hosted is not None else None
        if run is not None:
            if wish == "cancel":
                run.cancel()
            else:
                run.stopping = True

    def _prepare(self, frame: Frame) -> Sequence[Piece]:
        """Make the instance, or have it load."""
        if frame.word is Word.LOAD:
            assert self._hosted is not None
            return (outcome_piece(self._talk, self._hosted.load()),)
        order = MakeOrder(**value_of_piece(self._talk, frame.pieces[0]))
        self._version = order.version
        _set_up_logging(self._talk, order)
        self._hosted = Hosted(self._talk, order, self._beat)
        if order.job_id:
            threading.Thread(target=self._keep_beating, name="aipod-beat", daemon=True).start()
        return (outcome_piece(self._talk, None),)

    def _call(self, frame: Frame) -> None:
        hosted = self._hosted
        assert hosted is not None
        messages = [read_piece(self._talk, piece) for piece in frame.pieces]
        method = messages[0].version if frame.word is Word.CALL else ""
        self._calls[frame.number] = source = _Source(self._version, method or "predict", frame.instant)
        if hosted.is_async(method):
            work = hosted.call_async(messages[0], source) if method else hosted.batch_async(messages, source)
            loop = self._running_loop()
            task = asyncio.run_coroutine_threadsafe(work, loop)
            source.on_cancel = task.cancel
            task.add_done_callback(lambda done: self._answer(frame.number, done.result))
        else:
            call = partial(hosted.call, messages[0], source) if method else partial(hosted.batch, messages, source)
            self._submit(partial(self._answer, frame.number, call), for_main=method == "train")

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, name="aipod-async", daemon=True).start()
        return self._loop

    def _submit(self, task: Callable[[], object], for_main: bool = False) -> None:
        # What the main thread is to do comes while there is no other, and it is free, or about to be.
        if not self._idle.acquire(blocking=for_main):
            threading.Thread(target=self._serve, name="aipod-call", daemon=True).start()
            self._idle.acquire()
        self._tasks.put(task)

    def _serve(self) -> None:
        while True:
            self._idle.release()
            task = self._tasks.get()
            if task is None:
                # For the others, too: the main thread is one of them.
                self._tasks.put(None)
                return
            task()
            # The arguments are free from here on, however long this thread now waits.
            del task

    def _answer(self, number: int, work: Callable[[], Sequence[Piece]]) -> None:
        """Do what was asked for, and say what came of it."""
        try:
            pieces = work()
        except BaseException as error:
            if self._terminated:
                _die()
            pieces = (outcome_piece(self._talk, error_of(error)),)
        self._calls.pop(number, None)
        self._say(Frame(Word.ANSWER, number, pieces))

    def _say(self, frame: Frame) -> None:
        # Where nobody listens any more, this process is about to end.
        with contextlib.suppress(OSError):
            self._talk.send(frame)

    def _beat(self) -> None:
        self._say(Frame(Word.BEAT))

    def _keep_beating(self) -> None:
        # A thread that computes in Python lets this one have its turn; one that hangs with the lock does not.
        never = threading.Event()
        while not never.wait(_BEAT_SECONDS):
            self._beat()


def _die() -> None:
    """End as whoever sent the signal expects."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


class _ToParent(logging.Handler):
    """Hands what is logged on to the parent's log."""

    def __init__(self, talk: Talk) -> None:
        super().__init__()
        self._talk = talk
        # The parent's log has the rest of the line itself.
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        told = {"name": record.name, "level": record.levelno, "text": self.format(record)}
        with contextlib.suppress(OSError):
            self._talk.send(Frame(Word.LOG, 0, (outcome_piece(self._talk, told),)))


def _set_up_logging(talk: Talk, order: MakeOrder) -> None:
    handlers: list[logging.Handler] = [_ToParent(talk)]
    if order.echo:
        echo = logging.StreamHandler(sys.stderr)
        echo.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handlers.append(echo)
    logging.basicConfig(level=order.log_level, handlers=handlers)

"""An instance that lives in a process of its own, seen from the process that uses it.

Rules of this file:

- Every request is answered exactly once: by a frame from the child, or, once that has ended and all that it said before
  has been read, by :class:`~aipod.errors.ModelCrashed`. The thread that reads does both.
- No lock is held while anything is sent, or while anybody is called back.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import math
import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import wait as wait_for
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Protocol

from aipod import shm
from aipod.config import inherited
from aipod.engine.child import __main__ as bootstrap
from aipod.engine.child.frames import TOKEN, Frame, Piece, Talk, Word, call_piece, outcome_piece, value_of_piece
from aipod.engine.child.orders import MakeOrder
from aipod.errors import AipodError, ModelCrashed
from aipod.model.call import CallSource
from aipod.process import Child, Ended

__all__ = ["ChildInstance", "NeverRan", "Source"]

_log = logging.getLogger("aipod.engine")

_OUTPUT_BYTES = 64 * 1024
_SHARE_SECONDS = 60.0
_PUMP_SECONDS = 2.0


class NeverRan(ModelCrashed):
    """The process was gone before it could hear of the call: whoever has another one may ask that."""


class Source(CallSource, Protocol):
    """A call, as the child is told of it."""

    def watch(self, action: Callable[[], object]) -> None:
        """Have an action run once nobody waits for the answer any more; at once, if that is so by now."""


class ChildInstance:
    """An instance in a child. Its methods may be called from any thread.

    Attributes:
        pid: Of its process.
        ended: Has how the process ended, as soon as it has.
    """

    def __init__(self, version: str, child: Child, talk: Talk, on_beat: Callable[[], object]) -> None:
        self.version = version
        self.pid = child.pid
        self.ended = child.ended
        self._child = child
        self._talk = talk
        self._on_beat = on_beat
        self._pump: threading.Thread | None = None
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        # Who waits for an answer, by its number; None once nothing will be answered any more.
        self._waiting: dict[int, Callable[[Frame | ModelCrashed], object]] | None = {}
        child.ended.add_done_callback(lambda _: talk.hang_up())
        self._reader = threading.Thread(target=self._read, name=f"aipod-child-{self.pid}-reader", daemon=True)
        self._reader.start()

    @classmethod
    def start(
        cls,
        order: MakeOrder,
        *,
        environ: Mapping[str, str] | None = None,
        shared_memory_bytes: int = 0,
        on_output: Callable[[bytes], object] | None = None,
        on_beat: Callable[[], object] = lambda: None,
        on_begin: Callable[[ChildInstance], object] = lambda _: None,
    ) -> ChildInstance:
        """Start a process and make the instance there; returns when that is made.

        Args:
            order: What it is to be.
            environ: What is added to the environment of its process.
            shared_memory_bytes: How much memory either side may lend to the other; 0 for none.
            on_output: Takes what the process writes to its outputs, on a thread of its own; None leaves them together
                with this one's.
            on_beat: Called about once a second while a training lives, and after each of its records.
            on_begin: Given the instance as soon as there is a process, for who may have to end that before it is made.

        Raises:
            AipodError: What the class, or its ``__init__``, raised; ModelCrashed if the process ended.
            OSError: There is no room for one more process.
        """
        instance = _begin(cls, order.version, environ, shared_memory_bytes, on_output, on_beat)
        level = logging.getLogger().getEffectiveLevel()
        told = replace(order, log_level=level, echo=on_output is not None)
        on_begin(instance)
        try:
            instance._request(Word.MAKE, (outcome_piece(instance._talk, told.fields()),))
        except BaseException:
            instance.kill()
            instance.end(0.0)
            raise
        return instance

    def __repr__(self) -> str:
        return f"<ChildInstance of {self.version!r}, {self._child!r}>"

    def load(self) -> int:
        """Have it ``load()`` and ``warmup()``; gives the bytes of memory that it takes.

        Raises:
            AipodError: What those raised.
        """
        return int(self._request(Word.LOAD, ()))

    def call(self, method: str, arguments: dict[str, Any], source: Source) -> Any:
        """Run a method there and wait for what it returns.

        Raises:
            AipodError: What it raised, or ModelCrashed if the process ended meanwhile.
        """
        return self._request(Word.CALL, (call_piece(self._talk, method, arguments),), source)

    async def call_async(self, method: str, arguments: dict[str, Any], source: Source) -> Any:
        """:meth:`call` for an event loop; who gives up leaves the method running there, and it is told."""
        [answer] = await self._request_async(Word.CALL, (call_piece(self._talk, method, arguments),), source)
        return value_of_piece(self._talk, answer)

    def batch(self, inputs: Sequence[dict[str, Any]], source: Source) -> list[Any]:
        """Have ``predict_batch`` answer several calls; gives its output for each, an error among them as an object.

        Raises:
            AipodError: What it raised for all of them.
        """
        answers = self._ask(Word.BATCH, [call_piece(self._talk, "predict", one) for one in inputs], source)
        return self._outputs(answers, len(inputs))

    async def batch_async(self, inputs: Sequence[dict[str, Any]], source: Source) -> list[Any]:
        """:meth:`batch` for an event loop."""
        pieces = [call_piece(self._talk, "predict", one) for one in inputs]
        return self._outputs(await self._request_async(Word.BATCH, pieces, source), len(inputs))

    def ask(self, wish: Literal["cancel", "stop"]) -> None:
        """Set a flag that its training looks at; never raises."""
        self._tell(Frame(Word.WISH, 0, (outcome_piece(self._talk, wish),)))

    def terminate(self) -> None:
        """Ask the process to end, by SIGTERM."""
        self._child.ask()

    def kill(self) -> None:
        """End the process at once, with those that it started."""
        self._child.kill()

    def end(self, grace: float) -> Ended:
        """Have the instance disposed of and its process end; kill it if that takes longer than ``grace`` seconds."""
        self._tell(Frame(Word.END))
        wait_for([self.ended], grace)
        self._child.kill()
        ended = self.ended.result()
        self._reader.join()
        if self._pump is not None:
            # What it said last is read, too; a process that it started and let go may keep the pipe open.
            self._pump.join(_PUMP_SECONDS)
        self._talk.close()
        self._child.close()
        return ended

    def _request(self, word: Word, pieces: Sequence[Piece], source: Source | None = None) -> Any:
        [answer] = self._ask(word, pieces, source)
        return value_of_piece(self._talk, answer)

    def _ask(self, word: Word, pieces: Sequence[Piece], source: Source | None) -> Sequence[Piece]:
        waiter = _Waiter()
        number = self._send(word, pieces, source, waiter)
        if source is not None:
            source.watch(partial(self._tell, Frame(Word.CANCEL, number)))
        return _answered(waiter.wait())

    async def _request_async(self, word: Word, pieces: Sequence[Piece], source: Source) -> Sequence[Piece]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Frame | ModelCrashed] = loop.create_future()

        def arrived(frame: Frame | ModelCrashed) -> None:
            if not answer.done():
                answer.set_result(frame)

        number = self._send(word, pieces, source, lambda frame: loop.call_soon_threadsafe(arrived, frame))
        try:
            return _answered(await answer)
        except asyncio.CancelledError:
            self._tell(Frame(Word.CANCEL, number))
            raise

    def _send(
        self,
        word: Word,
        pieces: Sequence[Piece],
        source: Source | None,
        answer: Callable[[Frame | ModelCrashed], object],
    ) -> int:
        number = next(self._numbers)
        with self._lock:
            gone = self._waiting is None
            if self._waiting is not None:
                self._waiting[number] = answer
        if gone:
            raise self._never_ran()
        deadline = None if source is None else source.deadline
        try:
            self._talk.send(Frame(word, number, pieces, math.inf if deadline is None else deadline))
        except OSError:
            # What was written of it no process reads. Its end is on the way to the thread that reads, too.
            self._talk.hang_up()
            with self._lock:
                unanswered = self._waiting is None or self._waiting.pop(number, None) is not None
            if unanswered:
                raise self._never_ran() from None
        return number

    def _tell(self, frame: Frame) -> None:
        # If it is gone, whatever this was about is gone with it.
        with contextlib.suppress(OSError):
            self._talk.send(frame)

    def _read(self) -> None:
        try:
            while True:
                self._arrived(self._talk.receive())
        except OSError:
            pass
        except Exception:
            _log.exception("the process of version %r says what cannot be read", self.version)
        # A process that has closed its end, and lives, is of no use.
        wait_for([self.ended], 1.0)
        self._child.kill()
        self.ended.result()
        with self._lock:
            waiting, self._waiting = self._waiting, None
        for answer in (waiting or {}).values():
            answer(self._crashed())

    def _arrived(self, frame: Frame) -> None:
        if frame.word is Word.ANSWER:
            with self._lock:
                answer = self._waiting.pop(frame.number, None) if self._waiting is not None else None
            if answer is not None:
                answer(frame)
        elif frame.word is Word.BEAT:
            self._on_beat()
        elif frame.word is Word.LOG:
            record = value_of_piece(self._talk, frame.pieces[0])
            logging.getLogger(record["name"]).log(record["level"], "%s", record["text"])

    def _crashed(self) -> ModelCrashed:
        what = f"the process of version {self.version!r} ({self.pid}) is gone: {self.ended.result()}"
        return ModelCrashed(f"{what}; the call can have run, and is not tried again by itself")

    def _never_ran(self) -> NeverRan:
        ended = self.ended.result()
        return NeverRan(f"the process of version {self.version!r} ({self.pid}) is gone: {ended}; the call was not run")

    def _outputs(self, answers: Sequence[Piece], count: int) -> list[Any]:
        if len(answers) != count:
            # One answer for all of them is why there are none.
            return [value_of_piece(self._talk, answer) for answer in answers]
        return [self._output(answer) for answer in answers]

    def _output(self, answer: Piece) -> Any:
        try:
            return value_of_piece(self._talk, answer)
        except AipodError as error:
            return error


class _Waiter:
    """One thread that waits for one answer; a lock, since that is the cheapest way to wait."""

    __slots__ = ("_answer", "_gate")

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._gate.acquire()
        self._answer: Frame | ModelCrashed | None = None

    def __call__(self, answer: Frame | ModelCrashed) -> None:
        self._answer = answer
        self._gate.release()

    def wait(self) -> Frame | ModelCrashed:
        self._gate.acquire()
        assert self._answer is not None
        return self._answer


def _answered(answer: Frame | ModelCrashed) -> Sequence[Piece]:
    if isinstance(answer, ModelCrashed):
        raise answer
    return answer.pieces


def _begin(
    cls: type[ChildInstance],
    version: str,
    environ: Mapping[str, str] | None,
    shared_memory_bytes: int,
    on_output: Callable[[bytes], object] | None,
    on_beat: Callable[[], object],
) -> ChildInstance:
    """Start the process and the conversation with it."""
    ours, theirs = socket.socketpair()
    memory = _Memory(shared_memory_bytes)
    output, written = os.pipe() if on_output is not None else (-1, None)
    order = {"path": sys.path, "shared_memory_socket": memory.descriptor, "shared_memory_bytes": shared_memory_bytes}
    try:
        child = Child.start(
            [sys.executable, "-u", str(bootstrap.__file__), str(theirs.fileno()), f"version={version}"],
            environ=inherited(environ or {}),
            descriptors=[fd for fd in (theirs.fileno(), memory.descriptor) if fd >= 0],
            output=written,
        )
    except BaseException:
        ours.close()
        memory.close()
        if output >= 0:
            os.close(output)
        raise
    finally:
        theirs.close()
        if written is not None:
            os.close(written)
    pump = None
    if on_output is not None:
        name = f"aipod-child-{child.pid}-output"
        pump = threading.Thread(target=_pump, args=(output, on_output), name=name, daemon=True)
        pump.start()
    # One that died at once is found by whoever reads.
    with contextlib.suppress(OSError):
        ours.sendall(json.dumps(order).encode() + b"\n")
    instance = cls(version, child, Talk(ours, memory.share()), on_beat)
    instance._pump = pump
    return instance


class _Memory:
    """The socket pair over which the two come to share memory, where they can.

    Attributes:
        descriptor: The child's end; -1 if there is none.
    """

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes
        self._pair: tuple[socket.socket, socket.socket] | None = None
        self.descriptor = -1
        if nbytes and not shm.available():
            self._pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.descriptor = self._pair[1].fileno()

    def share(self) -> shm.Link | None:
        """Share it with the child that has been started; None where that cannot be, and the socket carries all."""
        if self._pair is None:
            return None
        ours, theirs = self._pair
        theirs.close()
        ours.settimeout(_SHARE_SECONDS)
        try:
            return shm.exchange(ours, TOKEN, self._nbytes)
        except (OSError, AipodError):
            ours.close()
            return None

    def close(self) -> None:
        for one in self._pair or ():
            one.close()


def _pump(output: int, on_output: Callable[[bytes], object]) -> None:
    with open(output, "rb", buffering=0) as file:
        while chunk := file.read(_OUTPUT_BYTES):
            try:
                on_output(chunk)
            except Exception:
                _log.exception("what a model's process wrote could not be kept")

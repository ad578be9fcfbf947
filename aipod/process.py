"""A child process and its end: the parent is told of the child's, and the child of the parent's.

A child's standard input is one end of a socket pair, the *lifeline*. Whichever of the two processes ends, however it
ends, the other one reads end-of-file from it. (``PR_SET_PDEATHSIG`` would tell the child when the *thread* that started
it ends, and on Linux alone.) Both may write to it as well.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Child", "Ended", "Lifeline"]

# Of Linux's fcntl.h, and not in Python's fcntl: which signal says that something has come.
_F_SETSIG = 10


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: Its exit code, or, as Python has it, a signal's number with a minus.
    """

    code: int

    @property
    def signal(self) -> str:
        """Name the signal that ended it; ``""`` if it left by itself."""
        if self.code >= 0:
            return ""
        try:
            return signal.Signals(-self.code).name
        except ValueError:  # a real-time one, which has no name
            return f"signal {-self.code}"

    def __str__(self) -> str:
        return f"ended by {self.signal}" if self.signal else f"exit code {self.code}"


class Child:
    """A process that this one started, and that is told when this one ends.

    What it started itself, and left in its process group, is killed when it has ended. Methods may be called from any
    thread.

    Attributes:
        pid: Its process id.
        ended: Has its :class:`Ended` as soon as it has ended. It cannot be cancelled, so that any number may wait for
            it, those on an event loop by ``asyncio.wrap_future``.
        lifeline: This side's end of the socket pair, for what the two have to say to each other.
    """

    def __init__(self, process: subprocess.Popen[bytes], lifeline: socket.socket) -> None:
        self._process = process
        self.pid = process.pid
        self.lifeline = lifeline
        self.ended: Future[Ended] = Future()
        self.ended.set_running_or_notify_cancel()
        threading.Thread(target=self._wait, name=f"aipod-child-{self.pid}", daemon=True).start()

    @classmethod
    def start(
        cls,
        argv: Sequence[str],
        *,
        directory: Path | None = None,
        environ: Mapping[str, str] | None = None,
        descriptors: Sequence[int] = (),
        output: int | None = None,
    ) -> Child:
        """Start a program, in a session of its own: what is typed on a terminal is for this process alone.

        Args:
            argv: The program and its arguments. It may follow this process by :class:`Lifeline`.
            directory: Where it is to run; None means here.
            environ: Its environment; None means this one's.
            descriptors: What it is to have open beside its input and outputs, under the same numbers.
            output: Where both of its outputs go; None means where this process's go.

        Raises:
            OSError: There is no such program, or no room for one more process.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = subprocess.Popen(
                    argv,
                    stdin=theirs.fileno(),
                    stdout=output,
                    stderr=output,
                    cwd=directory,
                    env=environ,
                    pass_fds=descriptors,
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        return cls(process, ours)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *error: object) -> None:
        self.end(0.0)

    def __repr__(self) -> str:
        return f"<Child {self.pid}, {self.ended.result() if self.ended.done() else 'running'}>"

    def ask(self) -> None:
        """Ask it to end (SIGTERM); once it has ended this does nothing."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once (SIGKILL); once it has ended this does nothing."""
        if not self.ended.done():
            self._kill_group()

    def end(self, grace: float) -> Ended:
        """Ask it to end, and kill it if it still runs ``grace`` seconds later; returns when it has ended."""
        self.ask()
        wait_for([self.ended], grace)
        self.kill()
        ended = self.ended.result()
        self.close()
        return ended

    def close(self) -> None:
        """Close the lifeline: a child that follows this process ends, as if this process had."""
        self.lifeline.close()

    def _wait(self) -> None:
        code = self._process.wait()
        # However it ended: what it started itself has nobody left to follow. Only now, since the number of a group
        # that still has members is not given to another.
        self._kill_group()
        self.ended.set_result(Ended(code))

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


class Lifeline:
    """The child's end: whom a program follows that :meth:`Child.start` started.

    Standard input reads as empty from then on: what comes there is not for the program.

    Raises:
        OSError: Something else started this process, and its standard input is no lifeline.
    """

    def __init__(self) -> None:
        # A copy that no process started from here gets, or the parent would wait for the end of those, too.
        copy = os.dup(0)
        try:
            self.socket = socket.socket(fileno=copy)
        except OSError:
            os.close(copy)
            raise
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)

    def follow(self, on_end: Callable[[], None]) -> None:
        """Call ``on_end``, on a thread of its own, when the parent has ended; what the parent writes is dropped."""

        def watch() -> None:
            with contextlib.suppress(OSError):
                while self.socket.recv(4096):
                    pass
            on_end()

        threading.Thread(target=watch, name="aipod-lifeline", daemon=True).start()

    def die_with_parent(self) -> None:
        """Have this process, and all that it started and left in its group, killed when the parent has ended.

        On Linux the kernel does it, whatever this process is in the middle of: code that keeps the interpreter's lock
        would not let a thread of ours run. The parent must write nothing: what comes would end this process as well.
        """
        if not _kill_on_input(self.socket):
            self.follow(_kill_own_group)
        # Else it may have ended before that.
        elif _is_over(self.socket):
            _kill_own_group()

    def tell(self, text: bytes) -> None:
        """Write a few bytes to the parent without waiting; dropped if the parent does not read, or is no more."""
        with contextlib.suppress(OSError):
            self.socket.send(text, socket.MSG_DONTWAIT)


def _kill_on_input(sock: socket.socket) -> bool:
    """Have the kernel kill this process's group when something comes on a socket, its end too; False if it cannot."""
    if not sys.platform.startswith("linux"):
        return False
    fcntl.fcntl(sock, fcntl.F_SETOWN, -os.getpgid(0))
    fcntl.fcntl(sock, _F_SETSIG, int(signal.SIGKILL))
    fcntl.fcntl(sock, fcntl.F_SETFL, fcntl.fcntl(sock, fcntl.F_GETFL) | os.O_ASYNC)
    return True


def _is_over(sock: socket.socket) -> bool:
    try:
        return not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _kill_own_group() -> None:
    # The parent made it a group of its own.
    os.killpg(os.getpgid(0), signal.SIGKILL)

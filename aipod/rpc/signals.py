"""SIGTERM and SIGINT of a process that serves.

The kernel hands a signal to any thread, Python runs its handler on the main thread alone, and a main thread that sleeps
on a lock does not notice. So the main thread sleeps on a socket, which the interpreter writes to whichever thread the
signal came to, and everything that takes time runs on another thread.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["Signals"]

T = TypeVar("T")

_DONE = b"\0"


class Signals:
    """Watches for signals from its making to :meth:`close`. On another thread than the main one it sees none."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            # The socket first, and last in close(): a signal that finds the handler alone would be lost.
            signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, _leave_it_to_the_socket)

    def wait(self) -> int:
        """Sleep until a signal comes; its number."""
        while not (number := self._reader.recv(1)[0]):
            pass
        return number

    def run(self, work: Callable[[], T], on_signal: Callable[[int], None]) -> T:
        """Do something on another thread, and react at once to a signal that comes meanwhile.

        Returns:
            What ``work`` returned; what it raised is raised here.
        """
        result: Future[T] = Future()

        def do() -> None:
            try:
                result.set_result(work())
            except BaseException as error:
                result.set_exception(error)
            self._writer.send(_DONE)

        threading.Thread(target=do, name="aipod-main", daemon=True).start()
        while number := self._reader.recv(1)[0]:
            on_signal(number)
        return result.result()

    def close(self) -> None:
        """Give the handlers back to whom they belonged."""
        if self._before:
            for number, handler in self._before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()


def _leave_it_to_the_socket(number: int, frame: object) -> None:
    """A handler there must be, or the interpreter would not write to the socket."""

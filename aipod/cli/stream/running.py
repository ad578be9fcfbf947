"""How a command that goes on until it is told to stop begins and ends."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from aipod.errors import ConfigError
from aipod.process import Lifeline
from aipod.rpc.signals import Signals

__all__ = ["PATIENCE", "follow_supervisor", "log_to_stderr", "run_until_told"]

# Seconds in which a broker has to answer somebody who only wants to know something.
PATIENCE = 3.0

_log = logging.getLogger("aipod.stream")

Main = Callable[[asyncio.Event], Coroutine[Any, Any, None]]


def run_until_told(main: Main, grace: float) -> None:
    """Run a coroutine on an event loop; SIGTERM and SIGINT ask it to end.

    The loop has a thread of its own, so that signals are obeyed even where something blocks it: whoever has not ended
    when the grace is over is left behind, and the process ends with 0, as it does in time. A second signal ends it at
    once.

    Args:
        main: Is given an event, and has to end within the grace after that is set.
        grace: In seconds.
    """
    signals = Signals()
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    too_late = threading.Timer(grace, _leave)
    too_late.daemon = True

    async def begin() -> None:
        stop = asyncio.Event()
        begun.set_result((asyncio.get_running_loop(), stop))
        await main(stop)

    def on_signal(number: int) -> None:
        if too_late.ident is not None:
            os._exit(128 + number)
        too_late.start()
        _log.info("%s: stopping, within %g s", signal.Signals(number).name, grace)
        loop, stop = begun.result()
        with suppress(RuntimeError):  # the loop has just ended by itself
            loop.call_soon_threadsafe(stop.set)

    try:
        signals.run(lambda: asyncio.run(begin()), on_signal)
    finally:
        too_late.cancel()
        signals.close()


def follow_supervisor() -> Lifeline:
    """Have this process end when the one that started it does, in the way in which a signal ends it.

    Raises:
        ConfigError: No supervisor has started it.
    """
    try:
        lifeline = Lifeline()
    except OSError as error:
        raise ConfigError(["--share is what a supervisor says to its workers; write --workers"]) from error
    lifeline.follow(lambda: os.kill(os.getpid(), signal.SIGTERM))
    return lifeline


def log_to_stderr(level: str) -> None:
    """Show our log, unless somebody has set logging up already. Standard output is for results."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("aipod").setLevel(level)


def _leave() -> None:
    _log.warning("the grace is over; what was under way is done again by whoever comes next")
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)

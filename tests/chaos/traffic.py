"""Threads that call, over and over, and an account of what came of it."""

from __future__ import annotations

import random
import threading
import traceback
from collections import Counter
from collections.abc import Callable

__all__ = ["Traffic"]

_MOST_SURPRISES = 20


class Traffic:
    """Runs actions until :meth:`stop`, or the end of the block.

    An action is handed dice of its own and says in a word what came of it; what it raises is a surprise.

    Args:
        dice: What the dice of each thread are made from.
    """

    def __init__(self, dice: random.Random) -> None:
        self.counts: Counter[str] = Counter()
        self.surprises: list[str] = []
        self._dice = dice
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Traffic:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def add(self, threads: int, action: Callable[[random.Random], str], pace: float = 0.0) -> None:
        """Begin.

        Args:
            threads: How many do the same.
            action: What they do.
            pace: Seconds between two actions of a thread, about.
        """
        for _ in range(threads):
            thread = threading.Thread(target=self._run, args=(action, random.Random(self._dice.random()), pace))
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Let each finish what it does."""
        self._end.set()
        for thread in self._threads:
            thread.join()

    def __str__(self) -> str:
        return ", ".join(f"{count} {what}" for what, count in sorted(self.counts.items()))

    def _run(self, action: Callable[[random.Random], str], dice: random.Random, pace: float) -> None:
        while not self._end.wait(dice.uniform(0.5, 1.5) * pace):
            try:
                outcome = action(dice)
            except BaseException as error:
                outcome = f"surprise: {type(error).__name__}"
                with self._lock:
                    if len(self.surprises) < _MOST_SURPRISES:
                        self.surprises.append(traceback.format_exc())
            with self._lock:
                self.counts[outcome] += 1

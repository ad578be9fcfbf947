"""What holds for an arena whatever is lent, held, found, given back and trimmed, in whatever order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from shm_world import make_pair

from aipod.shm.region import GRAIN, PAGE

SIZE = 4 * GRAIN

sizes = st.integers(0, SIZE // 2) | st.sampled_from([PAGE, PAGE + 1, GRAIN, SIZE])
steps = st.lists(
    st.tuples(st.sampled_from(["lend", "lend", "reserve", "find", "take back", "trim"]), sizes)
    | st.tuples(st.just("drop"), st.integers(0, 50)),
    max_size=40,
)


@dataclass
class Seen:
    """Bytes that somebody can see, and what they have to be."""

    memory: np.ndarray[Any, Any]
    pattern: int


class World:
    """A lender and a borrower, and all that is alive."""

    def __init__(self) -> None:
        self.pair = make_pair(SIZE)
        self.arena = self.pair.lender.arena
        self.alive: list[Seen] = []
        self.patterns = 0

    def do(self, what: str, number: int) -> None:
        if what in ("lend", "take back"):
            self.lend(number, take_back=what == "take back")
        elif what == "reserve":
            memory = self.arena.reserve(number)
            if memory is not None:
                self.fill(np.frombuffer(memory, np.uint8))
        elif what == "find":
            self.find(number)
        elif what == "trim":
            self.arena.trim()
        elif self.alive:
            self.alive.pop(number % len(self.alive))

    def lend(self, nbytes: int, take_back: bool) -> None:
        loan = self.arena.lend(nbytes)
        if loan is None:
            return
        if take_back:
            loan.take_back()
            return
        self.fill(np.frombuffer(loan.view, np.uint8))
        written = self.alive.pop()
        self.alive.append(Seen(self.borrow(loan), written.pattern))

    def find(self, nbytes: int) -> None:
        """Lend all that is held and large enough once more."""
        for held in [seen for seen in self.alive if seen.memory.flags.writeable]:
            part = held.memory[:nbytes]
            loan = self.arena.find(part.ctypes.data, part.nbytes) if part.nbytes else None
            if loan is not None:
                self.alive.append(Seen(self.borrow(loan), held.pattern))

    def borrow(self, loan: Any) -> np.ndarray[Any, Any]:
        return np.frombuffer(self.pair.borrower.borrowed.borrow(loan.place), np.uint8)

    def fill(self, memory: np.ndarray[Any, Any]) -> None:
        self.patterns = self.patterns % 255 + 1
        memory[:] = self.patterns
        self.alive.append(Seen(memory, self.patterns))

    def check(self) -> None:
        for seen in self.alive:
            assert (seen.memory == seen.pattern).all()
        counts = self.arena.statistics()
        assert counts["used_bytes"] <= counts["backed_bytes"] <= SIZE

    def end(self) -> None:
        self.alive.clear()
        counts = self.arena.statistics()
        assert counts == {"used_bytes": 0, "backed_bytes": counts["backed_bytes"], "held": 0, "lent": 0}
        self.arena.trim()
        self.arena.trim()
        assert self.arena.statistics()["backed_bytes"] == 0
        whole = self.arena.lend(SIZE)
        assert whole is not None
        self.pair.close()


@given(steps)
def test_nothing_that_is_alive_is_written_over_and_all_of_it_comes_back(steps):
    world = World()
    for what, number in steps:
        world.do(what, number)
        world.check()
    world.end()

"""Which messages of a window the model does not take.

Halving finds the smallest subsets that fail. That alone would accuse the innocent: where one message has another shape
than all others and cannot be stacked with them, the smallest subset that fails is that one *and its neighbour*. So
those who failed in company are then held against the messages that are beyond doubt, and who spoils those is guilty.

Pure: what a probe costs, and how often one is repeated before it counts, is the caller's business. One guilty message
among n takes about 2·log2(n) probes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["isolate"]

M = TypeVar("M")
E = TypeVar("E", bound=BaseException)

# A window in which everybody spoils everybody would take n of them; beyond this, who stands together falls together.
_CONFRONTATIONS = 256


async def isolate(
    members: Sequence[M],
    error: E,
    probe: Callable[[Sequence[M]], Awaitable[E | None]],
    *,
    singly: bool = False,
) -> dict[int, E]:
    """Find out who is to blame.

    Args:
        members: A window that fails as a whole.
        error: What it failed with.
        probe: Tries some of the members, in their order; None if they pass.
        singly: Whether to blame nobody who passes alone, as where all of them together are just too many.

    Returns:
        Positions in ``members``, and what the smallest failing probe with each said. The others may still fail
        together: then ask again with those. If there is none, all of them have passed together by now, so that none of
        them was to blame; or, if ``singly``, each passes alone.
    """
    return await _Search(members, probe).run(error, singly)


class _Search(Generic[M, E]):
    def __init__(self, members: Sequence[M], probe: Callable[[Sequence[M]], Awaitable[E | None]]) -> None:
        self._members = members
        self._probe = probe
        self._left = _CONFRONTATIONS
        self._passing: list[int] = []
        self._blamed: dict[int, E] = {}

    async def run(self, error: E, singly: bool) -> dict[int, E]:
        everybody = list(range(len(self._members)))
        failing = await self._smallest(everybody, error)
        self._blamed = {subset[0]: why for subset, why in failing if len(subset) == 1}
        if singly:
            return self._blamed
        suspects = [(subset, why) for subset, why in failing if len(subset) > 1]
        if suspects:
            accused = {position for subset, _ in failing for position in subset}
            self._passing = [position for position in everybody if position not in accused]
            if self._passing and await self._try(self._passing) is not None:
                # Nobody is beyond doubt after all: all begin anew, one after another.
                self._passing = []
                suspects = [([position for position in everybody if position not in self._blamed], error)]
            for subset, _ in suspects:
                await self._confront(subset)
        return self._blamed

    async def _smallest(self, subset: list[int], error: E) -> list[tuple[list[int], E]]:
        """List the smallest failing subsets, by halving, of one that fails."""
        found: list[tuple[list[int], E]] = []
        for half in _halves(subset):
            why = await self._try(half)
            if why is not None:
                found += await self._smallest(half, why)
        return found or [(subset, error)]

    async def _confront(self, suspects: list[int]) -> None:
        """Hold suspects against those who pass: who spoils them is to blame, who does not joins them."""
        self._left -= 1
        why = await self._try(sorted(self._passing + suspects))
        if why is None:
            self._passing += suspects
        elif len(suspects) == 1 or self._left <= 0:
            self._blamed.update(dict.fromkeys(suspects, why))
        else:
            for half in _halves(suspects):
                await self._confront(half)

    async def _try(self, subset: list[int]) -> E | None:
        return await self._probe([self._members[position] for position in subset])


def _halves(subset: list[int]) -> list[list[int]]:
    middle = len(subset) // 2
    return [subset[:middle], subset[middle:]] if middle else []

"""Ranges of integers, and what can be taken out of them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

__all__ = ["Ranges"]


class Ranges:
    """Half-open ranges of integers, in order; those that touch are one.

    Args:
        ranges: The first ones, as ``(start, end)``; an empty range is none.
    """

    __slots__ = ("_edges",)

    def __init__(self, *ranges: tuple[int, int]) -> None:
        # Where it begins and ends, by turns: an odd index is within a range.
        self._edges: list[int] = []
        for start, end in ranges:
            self.add(start, end)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield ``(start, end)`` of each, as they are now."""
        edges = self._edges
        return iter(list(zip(edges[::2], edges[1::2], strict=True)))

    def __repr__(self) -> str:
        return f"Ranges({', '.join(map(str, self))})"

    @property
    def total(self) -> int:
        """How many integers are in them."""
        return sum(self._edges[1::2]) - sum(self._edges[::2])

    def add(self, start: int, end: int) -> None:
        """Put a range in, whatever of it is there already."""
        if start < end:
            self._replace(start, end, inside=0)

    def remove(self, start: int, end: int) -> None:
        """Take a range out, whatever of it is there at all."""
        if start < end:
            self._replace(start, end, inside=1)

    def without(self, others: Ranges) -> Ranges:
        """Copy what is not in ``others``."""
        rest = Ranges()
        rest._edges = list(self._edges)
        for start, end in others:
            rest.remove(start, end)
        return rest

    def first(self, length: int) -> int | None:
        """Find where the first range starts that is at least so long; None if none is."""
        edges = self._edges
        for index in range(0, len(edges), 2):
            if edges[index + 1] - edges[index] >= length:
                return edges[index]
        return None

    def _replace(self, start: int, end: int, inside: int) -> None:
        # An edge stays where the two sides of it differ from now on.
        low, high = bisect_left(self._edges, start), bisect_right(self._edges, end)
        self._edges[low:high] = [edge for edge, index in ((start, low), (end, high)) if index % 2 == inside]

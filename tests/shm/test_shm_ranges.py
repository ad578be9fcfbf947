"""Ranges, beside the sets of integers that they stand for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aipod.shm.ranges import Ranges

edges = st.integers(0, 24)
steps = st.lists(st.tuples(st.booleans(), edges, edges), max_size=12)


def play(steps: list[tuple[bool, int, int]]) -> tuple[Ranges, set[int]]:
    ranges, numbers = Ranges(), set()
    for add, start, end in steps:
        if add:
            ranges.add(start, end)
            numbers |= set(range(start, end))
        else:
            ranges.remove(start, end)
            numbers -= set(range(start, end))
    return ranges, numbers


def runs(numbers: set[int]) -> list[tuple[int, int]]:
    """The longest runs of numbers that follow each other."""
    starts = sorted(number for number in numbers if number - 1 not in numbers)
    ends = sorted(number + 1 for number in numbers if number + 1 not in numbers)
    return list(zip(starts, ends, strict=True))


@given(steps)
def test_they_hold_what_was_put_in_and_not_taken_out(steps):
    ranges, numbers = play(steps)
    assert list(ranges) == runs(numbers)
    assert ranges.total == len(numbers)


@given(steps, steps)
def test_what_is_left_of_one_without_the_other_is_a_copy(steps, others):
    (ranges, numbers), (without, gone) = play(steps), play(others)
    assert list(ranges.without(without)) == runs(numbers - gone)
    assert list(ranges) == runs(numbers)


@given(steps, st.integers(1, 10))
def test_the_first_that_is_long_enough_is_found(steps, length):
    ranges, numbers = play(steps)
    fitting = [start for start, end in runs(numbers) if end - start >= length]
    assert ranges.first(length) == (fitting[0] if fitting else None)


def test_they_say_what_they_hold():
    assert repr(Ranges((5, 7), (1, 3))) == "Ranges((1, 3), (5, 7))"

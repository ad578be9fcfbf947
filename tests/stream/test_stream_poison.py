"""Who is to blame for a window that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from hypothesis import given
from hypothesis import strategies as st

from aipod.stream.poison import isolate


class Probes:
    """Counts them; ``refuses`` says what is wrong with a subset, if anything."""

    def __init__(self, refuses: Callable[[Sequence[int]], bool]) -> None:
        self._refuses = refuses
        self.made: list[list[int]] = []

    async def __call__(self, subset: Sequence[int]) -> Exception | None:
        self.made.append(list(subset))
        return ValueError(str(list(subset))) if self._refuses(subset) else None


def blamed(members: Sequence[int], probes: Probes) -> dict[int, Exception]:
    return asyncio.run(isolate(members, ValueError("all"), probes))


def test_one_bad_message_of_many_is_found_in_few_probes() -> None:
    probes = Probes(lambda subset: 700 in subset)
    assert set(blamed(range(1000), probes)) == {700}
    assert len(probes.made) <= 20


def test_what_is_said_of_a_message_is_what_the_smallest_probe_with_it_said() -> None:
    found = blamed(range(32), Probes(lambda subset: 5 in subset or 20 in subset))
    assert {position: str(error) for position, error in found.items()} == {5: "[5]", 20: "[20]"}


def test_a_window_of_one_is_to_blame_itself() -> None:
    probes = Probes(lambda subset: True)
    assert set(blamed([7], probes)) == {0}
    assert not probes.made


def test_members_are_probed_in_their_order() -> None:
    probes = Probes(lambda subset: len({value % 2 for value in subset}) > 1)
    blamed([0, 2, 4, 3, 6, 8, 10, 12], probes)
    order = {value: position for position, value in enumerate([0, 2, 4, 3, 6, 8, 10, 12])}
    assert all(subset == sorted(subset, key=order.__getitem__) for subset in probes.made)


def test_the_one_that_differs_is_to_blame_and_not_its_neighbour() -> None:
    # What cannot be stacked: a message alone always passes.
    for odd in range(32):
        shapes = ["b" if position == odd else "a" for position in range(32)]
        probes = Probes(lambda subset, shapes=shapes: len({shapes[position] for position in subset}) > 1)
        assert set(blamed(range(32), probes)) == {odd}


def test_several_that_differ_from_the_rest_are_to_blame() -> None:
    shapes = ["b" if position in (3, 4, 17) else "a" for position in range(32)]
    found = blamed(range(32), Probes(lambda subset: len({shapes[position] for position in subset}) > 1))
    assert set(found) == {3, 4, 17}


def test_where_two_halves_do_not_go_together_the_later_one_goes() -> None:
    found = blamed(range(8), Probes(lambda subset: min(subset) < 4 <= max(subset)))
    assert set(found) == {4, 5, 6, 7}


def test_a_failure_that_no_probe_repeats_is_nobodys() -> None:
    probes = Probes(lambda subset: False)
    assert not blamed(range(4), probes)
    assert probes.made[-1] == [0, 1, 2, 3]


def test_who_failed_in_company_and_passes_with_everybody_is_not_to_blame() -> None:
    probes = Probes(lambda subset: len(probes.made) <= 4 and set(subset) >= {2, 3} and len(subset) < 8)
    assert not blamed(range(8), probes)
    assert probes.made[-1] == list(range(8))


@given(st.integers(1, 64).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), min_size=1))))
def test_exactly_the_bad_are_found_where_each_is_bad_by_itself(case: tuple[int, set[int]]) -> None:
    count, bad = case
    assert set(blamed(range(count), Probes(lambda subset: bool(bad & set(subset))))) == bad


@given(st.lists(st.integers(0, 2), min_size=2, max_size=40).filter(lambda shapes: len(set(shapes)) > 1))
def test_asked_again_and_again_it_comes_to_an_end_with_a_window_that_passes(shapes: list[int]) -> None:
    def refuses(subset: Sequence[int]) -> bool:
        return len({shapes[position] for position in subset}) > 1

    left = list(range(len(shapes)))
    while left and refuses(left):
        gone = blamed(left, Probes(refuses))
        assert gone
        left = [value for position, value in enumerate(left) if position not in gone]
    assert left, "all were buried, though those of one shape pass together"

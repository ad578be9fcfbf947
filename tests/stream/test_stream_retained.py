"""Closed windows that may be amended: for as long as they are told to be, and no work of all of them at once."""

from __future__ import annotations

from dataclasses import replace

from aipod.stream.result import Recorded
from aipod.stream.windows.retained import Retained


def window(number: int, key: str = "a", revision: int = 0) -> Recorded:
    return Recorded(key, f"s{number}", revision, 0.0, 1.0, "full", ((number, number),))


def test_a_window_can_be_amended_until_its_time_is_over() -> None:
    retained = Retained(10.0)
    retained.keep(window(1), 5.0)
    retained.keep(window(2), 6.0)
    retained.amended(window(2, revision=1))
    retained.expire(14.9)
    assert retained.of("a") == [window(1), window(2, revision=1)]
    retained.expire(15.0)
    assert retained.of("a") == [window(2, revision=1)]
    retained.expire(16.0)
    assert retained.of("a") == [] and len(retained) == 0


def test_a_window_that_is_kept_again_has_the_later_time() -> None:
    retained = Retained(10.0)
    retained.keep(window(1), 5.0)
    retained.keep(replace(window(1), reason="end"), 8.0)
    retained.expire(15.0)
    assert [one.reason for one in retained.of("a")] == ["end"]
    retained.expire(18.0)
    assert len(retained) == 0


def test_what_was_recalled_is_as_new_as_the_first_instant() -> None:
    retained = Retained(10.0, [window(1)])
    assert retained.of("a") == [window(1)]
    retained.expire(100.0)
    retained.expire(109.9)
    assert retained.of("a") == [window(1)]
    retained.expire(110.0)
    assert retained.of("a") == []


def test_very_many_that_are_over_at_one_instant_go_by_and_by_and_are_listed_no_more() -> None:
    many = 10_000
    retained = Retained(10.0, [window(number, f"k{number % 100}") for number in range(many)])
    retained.expire(0.0)
    retained.expire(10.0)
    assert len(retained) > many - 1000
    assert not any(retained.of(f"k{number}") for number in range(100))
    for instant in range(11, many):
        if not len(retained):
            break
        retained.expire(float(instant))
    assert not len(retained)


def test_more_go_than_come_even_where_time_stands_still() -> None:
    retained = Retained(10.0, [window(number) for number in range(1000)])
    retained.expire(0.0)
    retained.expire(10.0)
    before = len(retained)
    for number in range(400):
        retained.keep(window(number, "b"), 10.0)
    assert len(retained) == before - 400

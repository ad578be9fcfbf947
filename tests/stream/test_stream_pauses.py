"""Growing pauses."""

from __future__ import annotations

import pytest

from aipod.stream import pauses as module
from aipod.stream.pauses import Pauses


@pytest.fixture
def _exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SPREAD", 0.0)


@pytest.mark.usefixtures("_exact")
def test_they_grow_to_a_bound_and_begin_anew_when_it_works() -> None:
    pauses = Pauses(1.0, 5.0)
    assert not pauses.begun
    assert [pauses.next() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert pauses.begun
    pauses.reset()
    assert not pauses.begun
    assert pauses.next() == 1.0


@pytest.mark.usefixtures("_exact")
def test_a_healthy_life_makes_them_short_again() -> None:
    pauses = Pauses(1.0, 5.0, 60.0)
    assert [pauses.next(2.0) for _ in range(3)] == [1.0, 2.0, 4.0]
    assert [pauses.next(lived) for lived in (60.0, 0.0, 61.0)] == [1.0, 2.0, 1.0]


def test_those_who_wait_for_the_same_do_not_come_at_once() -> None:
    given = [Pauses(1.0, 5.0).next() for _ in range(100)]
    assert len(set(given)) > 50
    assert all(0.75 <= pause <= 1.0 for pause in given)

"""Who gets in and who must go, as a table."""

from __future__ import annotations

import pytest

from aipod.engine.admission import Decision, Occupant, decide


def busy(version: str, size: int = 10) -> Occupant:
    return Occupant(version, size, last_used=1.0)


def idle(version: str, last_used: float, size: int = 10) -> Occupant:
    return Occupant(version, size, last_used, evictable=True)


def leaving(version: str, size: int = 10) -> Occupant:
    return Occupant(version, size, last_used=1.0, leaving=True)


@pytest.mark.parametrize(
    ("occupants", "newcomers", "max_count", "max_bytes", "decision"),
    [
        pytest.param([], [10, 10], 0, 0, Decision(admit=2), id="without limits all get in"),
        pytest.param([], [10, 10], 1, 0, Decision(admit=1, stuck=True), id="one place is for one"),
        pytest.param([busy("a")], [10], 2, 0, Decision(admit=1), id="there is room beside a busy one"),
        pytest.param([busy("a")], [10], 1, 0, Decision(stuck=True), id="a busy one is not evicted"),
        pytest.param([idle("a", 1)], [10], 1, 0, Decision(evict=("a",)), id="an idle one is, and the newcomer waits"),
        pytest.param([idle("a", 2), idle("b", 1)], [10], 2, 0, Decision(evict=("b",)), id="the least recently used"),
        pytest.param([idle("a", 1), busy("b")], [10, 10], 2, 0, Decision(evict=("a",)), id="no more than there are"),
        pytest.param([leaving("a")], [10], 1, 0, Decision(), id="a place that comes free is waited for"),
        pytest.param([leaving("a"), idle("b", 1)], [10], 2, 0, Decision(), id="and nobody is evicted beside it"),
        pytest.param(
            [leaving("a"), idle("b", 1)],
            [10, 10],
            2,
            0,
            Decision(evict=("b",)),
            id="one place comes free for one newcomer",
        ),
        pytest.param([], [10, 10, 10], 0, 20, Decision(admit=2, stuck=True), id="bytes limit as well"),
        pytest.param(
            [idle("a", 1), idle("b", 2), idle("c", 3)],
            [15],
            0,
            30,
            Decision(evict=("a", "b")),
            id="as many go as it takes",
        ),
        pytest.param([idle("a", 1), busy("b", 25)], [10], 0, 30, Decision(stuck=True), id="none goes in vain"),
        pytest.param([], [99], 0, 30, Decision(admit=1), id="what is too large may try alone"),
        pytest.param([idle("a", 1)], [99], 0, 30, Decision(evict=("a",)), id="when all others are gone"),
        pytest.param(
            [busy("a", 20)],
            [15, 5],
            0,
            30,
            Decision(stuck=True),
            id="a small one does not overtake a large one that waits",
        ),
    ],
)
def test_a_decision(occupants, newcomers, max_count, max_bytes, decision):
    assert decide(occupants, newcomers, max_count, max_bytes) == decision

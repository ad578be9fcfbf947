"""What expired is counted once, and told in a line now and then."""

from __future__ import annotations

import logging

import pytest

from aipod.stream.expiry import Expiry
from aipod.stream.statistics import Statistics

log = logging.getLogger("aipod.stream.t")


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage().partition(";")[0] for record in caplog.records]


def test_what_is_told_again_is_not_counted_again(caplog: pytest.LogCaptureFixture) -> None:
    statistics = Statistics()
    for _ in range(2):  # as two lives in one process
        expiry = Expiry("S@1", False, statistics, log)
        expiry(3, 12, True)
        expiry(11, 14, True)
    assert statistics.expired == 12
    assert lines(caplog) == ["10 messages were removed from the stream before they were processed, from 3 to 12"]


def test_the_positions_of_another_stream_are_others(caplog: pytest.LogCaptureFixture) -> None:
    statistics = Statistics()
    Expiry("S@1", False, statistics, log)(1, 10, True)
    Expiry("S@2", False, statistics, log)(1, 5, True)
    assert statistics.expired == 15


def test_who_loses_messages_all_the_time_says_so_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = [0.0]
    expiry = Expiry("S@1", False, Statistics(), log, lambda: clock[0])
    for first in range(1, 100, 10):
        expiry(first, first + 4, True)
        clock[0] += 10.0
    assert [line.partition(" messages")[0] for line in lines(caplog)] == ["5", "30"]
    assert lines(caplog)[1].endswith("from 11 to 65")


@pytest.mark.parametrize(("shared", "exact"), [(True, True), (False, False)])
def test_what_nobody_can_know_exactly_is_not_said_to_be_exact(
    shared: bool, exact: bool, caplog: pytest.LogCaptureFixture
) -> None:
    Expiry("S@1", shared, Statistics(), log)(1, 10, exact)
    assert lines(caplog)[0].startswith("up to 10 messages were removed")

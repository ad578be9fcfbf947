"""What windows do within one life, rule by rule; tests/stream/test_stream_windows_recovery.py has what comes after."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from windows_reference import message

from aipod.stream.message import Message
from aipod.stream.result import Recorded
from aipod.stream.windows import Ahead, Closed, Late, Outcome, Window, Windower, WindowSpec


def feed(windower: Windower, *messages: Message) -> list[Outcome]:
    return [outcome for one in messages for outcome in windower.feed(one)]


def at(*times: float, key: str = "", first: int = 1, stored: float | None = None) -> list[Message]:
    """Messages of those times; all stored at one instant if that is given."""
    return [message(first + number, time if stored is None else stored, key, time) for number, time in enumerate(times)]


def windows(outcomes: Sequence[Outcome]) -> list[Window]:
    return [one.window for one in outcomes if isinstance(one, Closed)]


def short(outcomes: Sequence[Outcome]) -> list[tuple[str, str, list[int]]]:
    """Id, reason and members of what was closed; of the rest, what it is and of which message."""
    said = []
    for one in outcomes:
        if isinstance(one, Closed):
            said.append((one.window.id, one.window.reason, [member.seq for member in one.window.messages]))
        else:
            said.append((type(one).__name__, "", [one.message.seq]))
    return said


def spec(text: str, **more: Any) -> WindowSpec:
    return WindowSpec.parse(text, **more)


def test_a_count_window_closes_with_its_last_message() -> None:
    windower = Windower(spec("count:3"))
    assert feed(windower, *at(1, 2)) == []
    (window,) = windows(feed(windower, *at(5, first=3)))
    assert (window.key, window.id, window.reason, window.start, window.end) == ("", "s1", "full", 1, 5)
    assert window.releases == (1, 2, 3)
    assert window.final
    assert window.recorded() == Recorded("", "s1", 0, 1, 5, "full", ((1, 3),))
    assert short(feed(windower, *at(6, 7, 8, first=4))) == [("s4", "full", [4, 5, 6])]


def test_keys_have_windows_of_their_own() -> None:
    windower = Windower(spec("count:2"))
    stream = [message(1, 1, "a"), message(2, 1, "b"), message(3, 1, "a"), message(4, 1, "b")]
    assert short(feed(windower, *stream)) == [("s1", "full", [1, 3]), ("s2", "full", [2, 4])]


def test_the_bounds_of_a_window_of_own_times_are_its_oldest_and_newest_member() -> None:
    windower = Windower(spec("count:3", own_time=True))
    (window,) = windows(feed(windower, *at(12, 10, 11, stored=10)))
    assert (window.start, window.end) == (10, 12)


def test_a_count_window_waits_no_longer_than_max_wait() -> None:
    windower = Windower(spec("count:3,max_wait=10s"))
    feed(windower, *at(100, 105))
    assert windower.deadline() == 110
    assert windower.advance(109.9) == []
    assert short(windower.advance(110)) == [("s1", "idle", [1, 2])]
    assert windower.deadline() is None


def test_a_message_closes_what_was_due_before_it_is_taken() -> None:
    windower = Windower(spec("count:3,max_wait=10s"))
    assert short(feed(windower, *at(100, 105, 110, 111, 112))) == [("s1", "idle", [1, 2]), ("s3", "full", [3, 4, 5])]


def test_any_key_makes_time_pass_for_all() -> None:
    windower = Windower(spec("count:3,max_wait=10s"))
    assert short(feed(windower, message(1, 100, "a"), message(2, 110, "b"))) == [("s1", "idle", [1])]


def test_a_window_that_was_closed_leaves_no_deadline_behind() -> None:
    windower = Windower(spec("count:2,max_wait=10s"))
    feed(windower, *at(100, 101, 105))
    assert windower.deadline() == 115
    assert windower.advance(110) == []


def test_the_deadline_is_the_earliest_of_all_keys() -> None:
    windower = Windower(spec("count:2,max_wait=10s"))
    feed(windower, message(1, 100, "a"), message(2, 101, "b"), message(3, 102, "a"))
    assert windower.deadline() == 111


def test_sliding_windows_share_all_but_their_step() -> None:
    windower = Windower(spec("sliding:4:2"))
    (first, second) = windows(feed(windower, *at(*range(1, 7))))
    assert (first.id, first.releases, [one.seq for one in first.messages]) == ("s1", (1, 2), [1, 2, 3, 4])
    assert (second.id, second.releases, [one.seq for one in second.messages]) == ("s3", (3, 4), [3, 4, 5, 6])


def test_a_sliding_window_that_waits_too_long_is_closed_with_what_it_has() -> None:
    windower = Windower(spec("sliding:4:2,max_wait=10s"))
    feed(windower, *at(1, 2, 3, 4, 5))
    assert windower.deadline() == 13
    (window,) = windows(windower.advance(13))
    assert (window.id, window.reason, window.releases) == ("s3", "idle", (3, 4, 5))
    assert short(feed(windower, *at(20, 21, 22, 23, first=6))) == [("s6", "full", [6, 7, 8, 9])]


def test_a_ring_of_messages_that_were_in_a_window_is_given_up_without_another() -> None:
    windower = Windower(spec("sliding:4:2,max_wait=10s"))
    feed(windower, *at(1, 2, 3, 4))
    assert short(windower.advance(13)) == [("Done", "", [3]), ("Done", "", [4])]
    assert windower.open_messages == 0


def test_tumbling_windows_are_aligned_to_the_epoch_and_not_to_their_first_message() -> None:
    windower = Windower(spec("tumbling:10s"))
    (window,) = windows(feed(windower, *at(17, 19.999, 20)))
    assert (window.id, window.start, window.end, window.reason) == ("t10000000", 10, 20, "time")
    assert [one.seq for one in window.messages] == [1, 2]


def test_bounds_can_be_aligned_to_another_epoch() -> None:
    windower = Windower(spec("tumbling:10s,align=3s"))
    (window,) = windows(feed(windower, *at(12, 13)))
    assert (window.start, window.end) == (3, 13)


def test_bounds_that_no_float_has_divide_time_all_the_same() -> None:
    windower = Windower(spec("tumbling:100ms"))
    (window,) = windows(feed(windower, *at(0.3, 0.35, 0.4)))
    assert (window.id, [one.seq for one in window.messages]) == ("t300000", [1, 2])


def test_stored_time_closes_the_windows_of_every_key() -> None:
    windower = Windower(spec("tumbling:10s,lateness=2s"))
    feed(windower, message(1, 11, "a"))
    assert feed(windower, message(2, 21.5, "b")) == []
    assert short(feed(windower, message(3, 22, "b"))) == [("t10000000", "time", [1])]


def test_stored_time_closes_windows_on_a_quiet_stream() -> None:
    windower = Windower(spec("tumbling:10s,lateness=2s"))
    feed(windower, *at(11))
    assert windower.deadline() == 22
    assert short(windower.advance(22)) == [("t10000000", "time", [1])]


def test_own_time_is_each_keys_own() -> None:
    windower = Windower(spec("tumbling:10s", own_time=True))
    feed(windower, message(1, 100, "a", 50), message(2, 100, "b", 95))
    assert feed(windower, message(3, 100, "a", 55)) == []
    assert short(feed(windower, message(4, 100, "a", 60))) == [("t50000000", "time", [1, 3])]


def test_lateness_is_waited_for() -> None:
    windower = Windower(spec("tumbling:10s,lateness=5s", own_time=True))
    assert feed(windower, *at(50, 64, 58, stored=100)) == []
    (window,) = windows(feed(windower, *at(65, first=4, stored=100)))
    assert [one.seq for one in window.messages] == [1, 3]
    assert window.watermark == 60


def test_a_message_behind_the_watermark_is_late() -> None:
    windower = Windower(spec("tumbling:10s", own_time=True))
    (late,) = feed(windower, *at(71, 55, stored=100))
    assert late == Late(late.message, None, settled=True)  # type: ignore[union-attr]


def test_own_time_is_closed_by_the_servers_clock_where_a_key_goes_silent() -> None:
    windower = Windower(spec("tumbling:10s,max_wait=30s", own_time=True))
    feed(windower, *at(55, stored=100))
    assert windower.deadline() == 130
    assert short(windower.advance(130)) == [("t50000000", "idle", [1])]
    assert short(feed(windower, *at(56, 61, first=2, stored=131))) == [("Late", "", [2])]


def test_what_ends_earlier_is_finished_with_what_is_finished() -> None:
    windower = Windower(spec("tumbling:10s,lateness=20s,max_wait=30s", own_time=True))
    feed(windower, *at(65, stored=100), *at(55, first=2, stored=110))
    assert short(windower.advance(130)) == [("t50000000", "idle", [2]), ("t60000000", "idle", [1])]


@pytest.mark.parametrize("time", [160.001, math.inf, math.nan, -math.inf, -1e300])
def test_a_time_that_cannot_be_believed_moves_nothing(time: float) -> None:
    windower = Windower(spec("tumbling:10s,max_ahead=60s", own_time=True))
    feed(windower, message(1, 100, time=95))
    (outcome,) = feed(windower, message(2, 100, time=time))
    assert isinstance(outcome, Ahead)
    assert feed(windower, message(3, 100, time=96), message(4, 100, time=160)) != [outcome]
    assert windower.open_messages == 1


def test_stored_time_is_never_ahead() -> None:
    windower = Windower(spec("count:1"))
    assert len(windows(feed(windower, message(1, 100, time=1e9)))) == 1


def test_a_message_is_in_every_hopping_window_that_covers_it() -> None:
    windower = Windower(spec("hopping:10s:5s"))
    closed = windows(feed(windower, *at(12, 17, 30)))
    assert [(one.start, [member.seq for member in one.messages]) for one in closed] == [
        (5, [1]),
        (10, [1, 2]),
        (15, [2]),
    ]


def test_a_message_is_released_by_the_last_window_that_holds_it() -> None:
    windower = Windower(spec("hopping:10s:5s"))
    closed = windows(feed(windower, *at(12, 17, 30)))
    assert [one.releases for one in closed] == [(), (1,), (2,)]


def test_a_message_can_be_late_for_one_hopping_window_and_in_time_for_another() -> None:
    windower = Windower(spec("hopping:10s:5s", own_time=True))
    outcomes = feed(windower, *at(20.5, 16, stored=100))
    assert [(type(one), one.settled) for one in outcomes] == [(Late, False)]  # type: ignore[union-attr]
    (closed, *_) = windows(windower.flush())
    assert (closed.start, closed.releases) == (15, (2,))


def test_a_window_that_is_full_is_closed_and_goes_on() -> None:
    windower = Windower(spec("tumbling:10s,max_messages=2"))
    assert short(feed(windower, *at(1, 2, 3, 4, 5, 10))) == [
        ("t0", "max_messages", [1, 2]),
        ("t0.1", "max_messages", [3, 4]),
        ("t0.2", "time", [5]),
    ]


def test_a_window_that_was_closed_when_full_is_not_closed_again_for_nothing() -> None:
    windower = Windower(spec("tumbling:10s,max_messages=2"))
    assert short(feed(windower, *at(1, 2, 10))) == [("t0", "max_messages", [1, 2])]


def test_a_session_lasts_until_no_message_comes_for_its_gap() -> None:
    windower = Windower(spec("session:5s"))
    (window,) = windows(feed(windower, *at(1, 5, 9.9, 15)))
    assert (window.id, window.reason, window.start, window.end) == ("s1", "gap", 1, 9.9)
    assert windower.deadline() == 20


def test_sessions_of_own_time_end_with_the_watermark_or_with_silence() -> None:
    windower = Windower(spec("session:5s,lateness=1s", own_time=True))
    assert short(feed(windower, *at(50, 56, 57, stored=100))) == [("s1", "gap", [1])]
    assert windower.deadline() == 106
    assert short(windower.advance(106)) == [("s2", "idle", [2, 3])]


def test_a_message_is_late_if_a_session_of_it_alone_would_be_over() -> None:
    windower = Windower(spec("session:5s,lateness=1s", own_time=True))
    assert short(feed(windower, *at(60, 54, 54.001, stored=100))) == [("Late", "", [2])]


def test_a_message_between_two_sessions_makes_them_one() -> None:
    windower = Windower(spec("session:5s,lateness=60s", own_time=True))
    feed(windower, *at(50, 58, stored=100))
    assert windower.open_windows == 2
    feed(windower, *at(54, first=3, stored=100))
    (window,) = windows(windower.flush())
    assert (window.id, window.start, window.end) == ("s1", 50, 58)
    assert [one.seq for one in window.messages] == [1, 2, 3]


def test_a_message_that_touches_a_closed_session_is_late() -> None:
    windower = Windower(spec("session:5s", own_time=True))
    feed(windower, *at(50, stored=100))
    windower.advance(105)
    assert short(feed(windower, *at(54.9, 55, first=2, stored=106))) == [("Late", "", [2])]


def test_a_late_message_still_joins_an_open_session() -> None:
    windower = Windower(spec("session:5s", own_time=True))
    feed(windower, *at(50, 55.5, 54, stored=100))
    assert short(windower.flush()) == [("s2", "end", [2, 3])]


def test_a_session_is_cut_when_full_and_another_goes_on() -> None:
    windower = Windower(spec("session:5s,max_messages=2"))
    assert short(feed(windower, *at(1, 2, 3))) == [("s1", "max_messages", [1, 2])]
    assert short(windower.flush()) == [("s3", "end", [3])]


def test_a_session_is_cut_when_too_long_and_another_goes_on() -> None:
    windower = Windower(spec("session:5s,max_wait=6s"))
    assert short(feed(windower, *at(1, 4, 7, 10))) == [("s1", "max_wait", [1, 2])]
    assert short(windower.flush()) == [("s3", "end", [3, 4])]


def test_sessions_that_would_be_too_large_together_stay_apart() -> None:
    windower = Windower(spec("session:5s,max_messages=4,lateness=60s", own_time=True))
    outcomes = feed(windower, *at(50, 50, 58, 58, 54, stored=100))
    assert short(outcomes) == [("s1", "max_messages", [1, 2, 5])]
    assert short(windower.flush()) == [("s3", "end", [3, 4])]


@pytest.mark.parametrize("text", ["count:6", "tumbling:10s", "session:5s"])
def test_early_results_come_while_a_window_fills_and_release_nothing(text: str) -> None:
    windower = Windower(spec(text, early=2))
    first, second, last = windows(feed(windower, *at(1, 2, 3, 4, 4.5)) + windower.flush())
    assert [(one.reason, one.revision, one.final, one.releases) for one in (first, second)] == [
        ("early", 0, False, ()),
        ("early", 1, False, ()),
    ]
    assert (len(first.messages), len(second.messages)) == (2, 4)
    assert (last.id, last.revision, last.final, last.releases) == (first.id, 2, True, (1, 2, 3, 4, 5))


def test_the_last_message_of_a_count_window_makes_no_early_result() -> None:
    windower = Windower(spec("count:4", early=2))
    assert [one.reason for one in windows(feed(windower, *at(1, 2, 3, 4)))] == ["early", "full"]


@pytest.mark.parametrize(
    ("text", "closed"),
    [
        ("count:10", [("s1", "pressure", [1, 3])]),
        ("sliding:10:1", [("s1", "pressure", [1, 3])]),
        ("tumbling:10s", [("t0", "pressure", [1, 3])]),
        ("hopping:10s:5s", [("t-5000000", "pressure", [1, 3]), ("t0", "pressure", [1, 3])]),
        ("session:10s", [("s1", "pressure", [1, 3])]),
    ],
)
def test_pressure_closes_the_oldest_until_enough_is_released(text: str, closed: list[Any]) -> None:
    windower = Windower(spec(text))
    feed(windower, message(1, 1, "a"), message(2, 1, "b"), message(3, 1, "a"), message(4, 1, "c"))
    assert short(windower.relieve(2)) == closed
    assert windower.open_messages == 2
    assert len(windows(windower.relieve(1000))) == 2 * (2 if "hopping" in text else 1)
    assert windower.relieve(1000) == []


def test_a_window_that_pressure_closed_goes_on() -> None:
    windower = Windower(spec("tumbling:10s"))
    feed(windower, *at(1))
    windower.relieve(1)
    assert short(feed(windower, *at(2, 10, first=2))) == [("t0.1", "time", [2])]


def test_the_end_of_a_stream_closes_everything_the_oldest_first() -> None:
    windower = Windower(spec("count:3"))
    feed(windower, message(1, 1, "b"), message(2, 1, "a"))
    assert short(windower.flush()) == [("s1", "end", [1]), ("s2", "end", [2])]


def test_a_late_message_names_the_window_that_it_amends() -> None:
    windower = Windower(spec("tumbling:10s", own_time=True, late="amend"))
    (closed, late) = feed(windower, *at(51, 61, 52, stored=100))
    assert isinstance(closed, Closed)
    assert isinstance(late, Late)
    assert late.recorded == closed.window.recorded()
    amended = replace(closed.window.recorded(), revision=1, reason="amended", members=((1, 1), (3, 3)))
    windower.amended(amended)
    (again,) = feed(windower, *at(53, first=4, stored=100))
    assert again == Late(again.message, amended, settled=True)  # type: ignore[union-attr]


def test_a_late_message_amends_each_of_its_hopping_windows() -> None:
    windower = Windower(spec("hopping:10s:5s", own_time=True, late="amend"))
    closed = windows(feed(windower, *at(52, 70, stored=100)))
    late = feed(windower, *at(53, first=3, stored=100))
    assert [one.recorded for one in late] == [one.recorded() for one in closed]  # type: ignore[union-attr]
    assert [one.settled for one in late] == [False, True]  # type: ignore[union-attr]


def test_a_late_message_names_the_session_that_it_would_have_been_in() -> None:
    windower = Windower(spec("session:5s", own_time=True, late="amend"))
    closed = windows(feed(windower, *at(50, 60, 70, stored=100)))
    (late,) = feed(windower, *at(52, first=4, stored=100))
    assert late.recorded == closed[0].recorded()  # type: ignore[union-attr]


def test_a_window_can_be_amended_for_a_while_only() -> None:
    windower = Windower(spec("tumbling:10s,retain=30s", own_time=True, late="amend"))
    feed(windower, *at(51, 61, stored=100))
    windower.advance(120)
    (late,) = feed(windower, *at(52, first=3, stored=129))
    assert late.recorded is not None  # type: ignore[union-attr]
    windower.advance(130)
    (late,) = feed(windower, *at(52, first=4, stored=129.5))
    assert late.recorded is None  # type: ignore[union-attr]


def test_closed_windows_are_kept_for_amending_alone() -> None:
    windower = Windower(spec("tumbling:10s", own_time=True))
    *_, late = feed(windower, *at(51, 61, 52, stored=100))
    assert late == Late(late.message, None, settled=True)  # type: ignore[union-attr]


def test_keys_without_open_windows_cost_nothing_where_windows_are_counted() -> None:
    windower = Windower(spec("count:1"))
    feed(windower, *(message(seq, seq, f"k{seq}") for seq in range(1, 100)))
    assert not windower._keys
    assert not windower._resting


def test_only_so_many_keys_without_open_windows_are_remembered() -> None:
    windower = Windower(spec("tumbling:10s,max_wait=20s", own_time=True), remember=2)
    feed(windower, *(message(seq, 100, f"k{seq}", 95) for seq in range(1, 4)))
    windower.advance(120)
    again = [message(seq, 120, f"k{seq - 10}", 94) for seq in range(11, 14)]
    assert [type(one).__name__ for one in feed(windower, *again)] == ["Late", "Late"]
    assert windower.keys == 1


def test_a_windower_shows_what_is_open() -> None:
    windower = Windower(spec("count:3"))
    feed(windower, message(1, 1, "a"), message(2, 1, "a"), message(3, 1, "b"))
    assert (windower.open_messages, windower.open_windows, windower.keys) == (3, 2, 2)
    assert repr(windower) == "<Windower count:3: 3 messages in 2 windows of 2 keys>"


def test_nothing_passes_when_time_goes_backwards() -> None:
    windower = Windower(spec("count:3,max_wait=10s"))
    feed(windower, *at(100))
    assert windower.advance(50) == []
    assert feed(windower, *at(40, first=2)) == []
    assert [type(one) for one in windower.flush()] == [Closed]


def test_a_window_that_begins_anew_for_a_forgotten_key_can_be_amended_for_as_long_as_any() -> None:
    windower = Windower(spec("tumbling:10s,retain=100s,max_wait=10s", own_time=True, late="amend"), remember=1)
    feed(windower, *at(1, 11, key="a", stored=1), *at(1, 11, key="b", first=3, stored=2))
    feed(windower, *at(1, key="c", first=5, stored=3))
    windower.advance(40)
    anew = [*feed(windower, *at(2, key="a", first=6, stored=41)), *windower.advance(60)]
    assert [one.id for one in windows(anew)] == ["t0"]
    windower.advance(140)
    (late,) = feed(windower, *at(3, key="a", first=7, stored=141))
    assert late.recorded == windows(anew)[0].recorded()  # type: ignore[union-attr]
    windower.advance(1000)

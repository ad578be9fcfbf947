"""What a restart makes of what is recorded: each rule of aipod.stream.windows.history by itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from windows_reference import message

from aipod.stream.message import Message
from aipod.stream.result import Recorded, ranges_of
from aipod.stream.windows import Closed, Done, Late, Outcome, Windower, WindowSpec, keyed


def recorded(name: str, members: Iterable[int], reason: str, bounds: tuple[float, float] = (0, 0), **more: Any) -> Any:
    return Recorded(
        **{
            "key": "",
            "id": name,
            "revision": 0,
            "start": bounds[0],
            "end": bounds[1],
            "reason": reason,
            "members": ranges_of(members),
            **more,
        }
    )


def again(text: str, history: Sequence[Recorded], *messages: Message, **more: Any) -> list[str]:
    """What comes of messages in a second life, in words."""
    windower = Windower(WindowSpec.parse(text, **more), history)
    return [said for one in messages for outcome in windower.feed(one) for said in [word(outcome)]]


def word(outcome: Outcome) -> str:
    if isinstance(outcome, Closed):
        window = outcome.window
        return f"{window.id} {[one.seq for one in window.messages]} {window.revision}"
    return f"{type(outcome).__name__} {outcome.message.seq}"


def at(*times: float, first: int = 1) -> list[Message]:
    return [message(first + number, 1000.0, time=time) for number, time in enumerate(times)]


def test_members_of_a_recorded_window_are_done() -> None:
    window = recorded("s1", [1, 2], "full")
    windower = Windower(WindowSpec.parse("count:2"), [window])
    one, two, three = at(1, 2, 3)
    assert windower.feed(one) == [Done(one, window)]
    assert windower.feed(two) == [Done(two, window)]
    assert windower.feed(three) == []


def test_the_next_count_window_begins_behind_the_last_recorded_one() -> None:
    # It was closed early, so that counting from the first message would come to other windows.
    history = [recorded("s1", [1, 2, 3], "pressure")]
    assert again("count:2", history, *at(*range(5)))[3:] == ["s4 [4, 5] 0"]


def test_what_is_older_than_the_last_recorded_window_was_in_one_before() -> None:
    history = [recorded("s3", [3, 4], "full")]
    assert again("count:2", history, *at(1, 2)) == ["Done 1", "Done 2"]


def test_each_key_has_a_history_of_its_own() -> None:
    history = [recorded("s1", [1, 3], "full", key="a")]
    outcomes = again("count:2", history, message(1, 1, "a"), message(2, 1, "b"), message(3, 1, "a"), message(4, 1, "b"))
    assert outcomes == ["Done 1", "Done 3", "s2 [2, 4] 0"]


def test_members_go_back_into_the_ring_of_a_full_sliding_window() -> None:
    history = [recorded("s1", [1, 2, 3, 4], "full")]
    assert again("sliding:4:2", history, *at(*range(6))) == ["Done 1", "Done 2", "s3 [3, 4, 5, 6] 0"]


def test_members_that_went_back_into_the_ring_make_no_window_alone() -> None:
    windower = Windower(WindowSpec.parse("sliding:4:2"), [recorded("s1", [1, 2, 3, 4], "full")])
    outcomes = [one for each in at(*range(4)) for one in windower.feed(each)] + windower.flush()
    assert [word(one) for one in outcomes] == ["Done 1", "Done 2", "Done 3", "Done 4"]


@pytest.mark.parametrize("reason", ["idle", "pressure", "end"])
def test_a_ring_begins_afresh_after_a_window_that_was_not_full(reason: str) -> None:
    history = [recorded("s1", [1, 2, 3], reason)]
    assert again("sliding:4:2", history, *at(*range(7)))[3:] == ["s4 [4, 5, 6, 7] 0"]


def test_a_ring_that_was_given_up_is_not_filled_again() -> None:
    history = [recorded("s1", [1, 2, 3, 4], "full")]
    assert again("sliding:4:2", history, *at(*range(5), first=4)) == ["Done 4", "s5 [5, 6, 7, 8] 0"]


def test_a_ring_that_was_given_up_stays_so_whatever_else_comes() -> None:
    # The third was not readable before, and is now.
    history = [recorded("s1", [1, 2, 4, 5], "full")]
    assert again("sliding:4:1", history, *at(3, 4, 5, first=3)) == ["Done 3", "Done 4", "Done 5"]


def test_a_finished_window_takes_nothing_any_more() -> None:
    window = recorded("t50000000", [1], "idle", (50, 60))
    windower = Windower(WindowSpec.parse("tumbling:10s", own_time=True), [window])
    one, two = at(51, 52)
    assert windower.feed(one) == [Done(one, window)]
    assert windower.feed(two) == [Late(two, None, settled=True)]


def test_a_late_message_that_is_read_again_names_the_window_it_was_late_for() -> None:
    window = recorded("t50000000", [1, 3], "idle", (50, 60))
    windower = Windower(WindowSpec.parse("tumbling:10s", own_time=True), [window])
    one, two, three = at(51, 52, 53)
    windower.feed(one)
    assert windower.feed(two) == [Late(two, window, settled=True)]
    assert windower.feed(three) == [Done(three, window)]


def test_a_window_that_ended_before_a_finished_one_is_over_too() -> None:
    history = [recorded("t50000000", [2], "idle", (50, 60))]
    assert again("tumbling:10s,lateness=60s", history, *at(45), own_time=True) == ["Late 1"]


def test_a_window_that_ends_after_the_last_finished_one_is_open() -> None:
    history = [recorded("t50000000", [1], "idle", (50, 60))]
    assert again("tumbling:10s", history, *at(51, 61, 71), own_time=True) == ["Done 1", "t60000000 [2] 0"]


@pytest.mark.parametrize("reason", ["max_messages", "pressure"])
def test_the_next_part_of_a_window_takes_the_rest(reason: str) -> None:
    history = [
        recorded("t50000000", [1], reason, (50, 60)),
        recorded("t50000000.1", [2], reason, (50, 60)),
    ]
    outcomes = again("tumbling:10s", history, *at(51, 52, 53, 61), own_time=True)
    assert outcomes == ["Done 1", "Done 2", "t50000000.2 [3] 0"]


def test_a_message_is_done_with_some_of_its_hopping_windows_and_goes_into_the_others() -> None:
    history = [recorded("t5000000", [1], "time", (5, 15))]
    outcomes = again("hopping:10s:5s", history, message(1, 12), message(2, 30))
    assert outcomes == ["t10000000 [1] 0"]


def test_a_message_in_all_of_its_hopping_windows_is_done_once() -> None:
    history = [recorded("t5000000", [1], "time", (5, 15)), recorded("t10000000", [1], "time", (10, 20))]
    assert again("hopping:10s:5s", history, message(1, 12)) == ["Done 1"]


def test_members_that_are_done_make_their_keys_time_pass() -> None:
    # The second ends the window of the first, which is not recorded: it was in flight.
    history = [recorded("t60000000", [3], "max_messages", (60, 70))]
    outcomes = again("tumbling:10s,lateness=4s,max_messages=1000", history, *at(55, 56, 64, 57), own_time=True)
    assert outcomes == ["t50000000 [1, 2] 0", "Done 3", "Late 4"]


def test_an_unfinished_window_says_how_far_its_keys_time_had_come() -> None:
    history = [recorded("t60000000", [1], "max_messages", (60, 70))]
    assert again("tumbling:10s", history, *at(55, first=2), own_time=True) == ["Late 2"]


def test_inside_a_finished_session_nothing_new_begins() -> None:
    history = [recorded("s1", [1, 2], "idle", (50, 52))]
    outcomes = again("session:5s", history, *at(50, 52, 56.9, 57, 70), own_time=True)
    assert outcomes == ["Done 1", "Done 2", "Late 3", "s4 [4] 0"]


@pytest.mark.parametrize("reason", ["max_messages", "max_wait", "pressure"])
def test_behind_a_session_that_was_cut_another_begins(reason: str) -> None:
    history = [recorded("s1", [1, 2], reason, (50, 52))]
    assert again("session:5s", history, *at(50, 52, 53, 60), own_time=True) == ["Done 1", "Done 2", "s3 [3] 0"]


def test_an_open_session_may_be_older_than_what_an_early_result_of_it_says() -> None:
    history = [recorded("s1", [1, 2, 3, 4], "early", (50, 68))]
    windower = Windower(WindowSpec.parse("session:7s", own_time=True, early=4), history)
    assert [one for each in at(50, 56, 62, 68) for one in windower.feed(each)] == []
    assert [word(one) for one in windower.flush()] == ["s1 [1, 2, 3, 4] 1"]


def test_a_cut_session_says_how_far_its_keys_time_had_come() -> None:
    history = [recorded("s1", [1, 3], "max_messages", (50, 70))]
    assert again("session:5s", history, *at(65, 65.5, 80, first=4), own_time=True) == ["Late 4", "s5 [5] 0"]


@pytest.mark.parametrize(
    ("text", "name", "bounds"),
    [("count:4", "s1", (1, 2)), ("tumbling:10s", "t0", (0, 10)), ("session:5s", "s1", (1, 2))],
)
def test_an_early_result_that_is_recorded_is_not_made_again(text: str, name: str, bounds: tuple[float, float]) -> None:
    history = [recorded(name, [1, 2], "early", bounds)]
    windower = Windower(WindowSpec.parse(text, early=2, own_time=True), history)
    assert [one for each in at(1, 2, 3) for one in windower.feed(each)] == []
    assert [word(one) for one in windower.flush()] == [f"{name} [1, 2, 3] 1"]


@pytest.mark.parametrize("windows", [3, 300], ids=["few", "many"])
@pytest.mark.parametrize("read_again", [0, 2], ids=["acknowledged", "unacknowledged"])
def test_an_early_result_is_not_made_again_once_the_windows_before_it_are_forgotten(
    windows: int, read_again: int
) -> None:
    firsts = range(1, 2 * windows, 2)
    history = [recorded(f"s{first}", [first, first + 1], "full") for first in firsts]
    begun = 2 * windows + 1
    windower = Windower(WindowSpec.parse("count:3", early=1), [*history, recorded(f"s{begun}", [begun], "early")])
    windower.forget(begun - 1 - read_again)
    for seq in range(begun - read_again, begun):
        assert [word(one) for one in windower.feed(message(seq, 1))] == [f"Done {seq}"]
    windower.forget(begun - 1)
    assert windower.feed(message(begun, 1)) == []
    assert [word(one) for one in windower.feed(message(begun + 1, 1))] == [f"s{begun} [{begun}, {begun + 1}] 1"]


def test_what_is_closed_before_its_recorded_early_result_has_a_higher_revision() -> None:
    windower = Windower(WindowSpec.parse("count:4", early=2), [recorded("s1", [1, 2], "early")])
    windower.feed(message(1, 1))
    assert [word(one) for one in windower.relieve(1)] == ["s1 [1] 1"]


def test_a_corrected_window_is_obeyed_in_its_last_revision() -> None:
    history = [
        recorded("t50000000", [1], "idle", (50, 60)),
        recorded("t50000000", [1, 2], "amended", (50, 60), revision=1),
    ]
    windower = Windower(WindowSpec.parse("tumbling:10s", own_time=True, late="amend"), history)
    one, two, three = at(51, 52, 53)
    assert windower.feed(one) == [Done(one, history[1])]
    assert windower.feed(two) == [Done(two, history[1])]
    assert windower.feed(three) == [Late(three, history[1], settled=True)]


def test_windows_of_earlier_lives_can_be_amended_for_a_while() -> None:
    history = [recorded("t50000000", [1], "idle", (50, 60))]
    windower = Windower(WindowSpec.parse("tumbling:10s,retain=30s", own_time=True, late="amend"), history)
    (late,) = windower.feed(message(2, 1000, time=51))
    assert late.recorded == history[0]  # type: ignore[union-attr]
    (late,) = windower.feed(message(3, 1030, time=51))
    assert late.recorded is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("count:2", recorded("t0", [1, 3], "time", (0, 10))),
        ("count:2", recorded("s1", [1, 3], "gap", (0, 10))),
        ("sliding:2", recorded("t0", [1, 3], "time", (0, 10))),
        ("tumbling:10s", recorded("s1", [1, 3], "full", (1, 3))),
        ("tumbling:10s", recorded("t0", [1, 3], "time", (0, 60))),
        ("tumbling:10s", recorded("t3000000", [1, 3], "time", (3, 13))),
        ("hopping:10s:5s", recorded("nonsense", [1, 3], "time", (0, 10))),
        ("session:5s", recorded("s1", [1, 3], "full", (1, 3))),
    ],
)
def test_windows_of_another_shape_hold_their_members_and_nothing_else(text: str, window: Recorded) -> None:
    windower = Windower(WindowSpec.parse(text), [window])
    outcomes = [word(one) for each in (message(seq, seq) for seq in (1, 2, 3)) for one in windower.feed(each)]
    assert outcomes == ["Done 1", "Done 3"]
    assert windower.open_messages == 1


@pytest.mark.parametrize(("size", "part"), [("20s", "t0.1 [2] 0"), ("5s", "t0.1 [2] 0")])
def test_windows_of_another_shape_do_not_share_a_name(size: str, part: str) -> None:
    history = [recorded("t0", [1], "time", (0, 10))]
    assert again(f"tumbling:{size}", history, message(1, 1), message(2, 3), message(3, 25)) == ["Done 1", part]


def test_windows_of_another_shape_say_nothing_about_time() -> None:
    history = [recorded("s1", [1], "full", (1, 100))]
    assert again("session:5s", history, *at(50, 60, first=2), own_time=True) == ["s2 [2] 0"]


def test_windows_that_overlap_are_all_obeyed() -> None:
    history = [recorded("t0", [1, 2, 3, 4], "time", (0, 60)), recorded("t1", [2], "time", (0, 60))]
    assert again("count:2", history, *at(1, 2, 3, 4)) == ["Done 1", "Done 2", "Done 3", "Done 4"]


@pytest.mark.parametrize("text", ["count:2", "tumbling:10s", "session:5s"])
def test_what_cannot_come_again_is_forgotten(text: str) -> None:
    history = [recorded("s1", [1], "idle", key="a"), recorded("s2", [2], "idle", key="b")]
    windower = Windower(WindowSpec.parse(text), history, remember=0)
    windower.forget(1)
    assert len(windower._history) == 1
    windower.feed(message(2, 1, "b"))
    windower.forget(2)
    assert not windower._keys
    assert not windower._history
    assert not windower._repeating


def test_a_key_with_open_windows_rests_once_its_past_is_forgotten_and_they_are_closed() -> None:
    windower = Windower(WindowSpec.parse("tumbling:10s"), [recorded("t0", [1, 5], "time", (0, 10))])
    windower.feed(message(2, 11))
    windower.forget(5)
    assert windower.keys == 1
    windower.advance(20)
    assert not windower._keys


def test_how_far_a_keys_time_had_come_outlasts_its_messages() -> None:
    windower = Windower(WindowSpec.parse("tumbling:10s", own_time=True), [recorded("t50000000", [1], "idle", (50, 60))])
    windower.forget(1)
    assert [word(one) for one in windower.feed(message(2, 1000, time=55))] == ["Late 2"]


def test_a_history_without_members_says_nothing() -> None:
    assert again("count:1", [recorded("s1", [], "full")], *at(1)) == ["s1 [1] 0"]


def test_a_long_history_is_taken_in_before_the_first_message(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    class Counted(keyed.Holdings):
        def __init__(self, windows: Iterable[Recorded]) -> None:
            windows = list(windows)
            taken.append(len(windows))
            super().__init__(windows)

    monkeypatch.setattr(keyed, "Holdings", Counted)
    history = [recorded(f"s{seq}", [seq], "full", key="long") for seq in range(1, 1001)]
    history += [recorded(f"s{seq}", [seq], "full", key=str(seq)) for seq in range(1001, 1101)]
    windower = Windower(WindowSpec.parse("count:1"), history)
    assert taken == [1000]
    assert [word(one) for one in windower.feed(message(1000, 1, "long"))] == ["Done 1000"]
    assert taken == [1000]
    assert [word(one) for one in windower.feed(message(1001, 1, "1001"))] == ["Done 1001"]
    assert taken == [1000, 1]


def test_to_forget_much_takes_several_turns() -> None:
    history = [recorded(f"s{seq}", [seq], "full", key=str(seq)) for seq in range(1, 5001)]
    windower = Windower(WindowSpec.parse("count:1"), history)
    for seq in range(1, 2001):
        windower.feed(message(seq, 1, str(seq)))
    turns = 1
    before = len(windower._keys) + len(windower._history)
    while not windower.forget(4500):
        left = len(windower._keys) + len(windower._history)
        assert 0 < before - left <= 2000
        before, turns = left, turns + 1
    assert turns > 2
    assert (len(windower._keys), len(windower._history)) == (0, 500)
    assert windower.forget(4500)


def test_of_each_key_the_windows_of_earlier_lives_can_be_amended() -> None:
    history = [recorded("t50000000", [seq], "time", (50, 60), key=key) for seq, key in enumerate("abc", 1)]
    windower = Windower(WindowSpec.parse("tumbling:10s", own_time=True, late="amend"), history)
    for seq, key in enumerate("abc", 4):
        (late,) = windower.feed(message(seq, 100, key, 55))
        assert late.recorded == history[seq - 4]  # type: ignore[union-attr]


def test_a_message_that_has_amended_what_there_was_to_amend_is_done() -> None:
    # It is late for three windows, of which the first life knew one; the others never were.
    spec = WindowSpec.parse("hopping:3s:1s", own_time=True, late="amend")
    stream = [message(1, 101, time=10.5), message(2, 102, time=20.5), message(3, 103, time=12.5)]
    life = Windower(spec)
    outcomes = [one for each in stream for one in life.feed(each)]
    history = [one.window.recorded() for one in outcomes if isinstance(one, Closed)]
    (late,) = [one for one in outcomes if isinstance(one, Late)]
    assert late.recorded == history[-1]
    history.append(replace(history[-1], revision=1, reason="amended", members=((1, 1), (3, 3))))
    life = Windower(spec, history)
    life.forget(1)
    assert [one for each in stream[1:] for one in life.feed(each)][-1:] == [Done(stream[2], history[-1])]


def test_a_message_that_amended_one_of_its_windows_amends_the_others_that_are_known() -> None:
    spec = WindowSpec.parse("hopping:2s:1s", own_time=True, late="amend")
    one, two, three = message(1, 101, time=10.5), message(2, 102, time=20.5), message(3, 103, time=10.6)
    life = Windower(spec)
    history = [each.window.recorded() for fed in (one, two) for each in life.feed(fed) if isinstance(each, Closed)]
    assert [each.id for each in history] == ["t9000000", "t10000000"]
    history.append(replace(history[0], revision=1, reason="amended", members=((1, 1), (3, 3))))
    life = Windower(spec, history)
    life.feed(two)
    assert life.feed(three) == [Late(three, history[1], settled=True)]

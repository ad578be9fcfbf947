"""Which windows: the text, the defaults, and everything that is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipod.errors import ConfigError
from aipod.stream.windows import WindowSpec


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("count:32", WindowSpec("count", 32)),
        ("sliding:32:8", WindowSpec("sliding", 32, 8)),
        ("sliding:32", WindowSpec("sliding", 32, 1)),
        ("tumbling:60s", WindowSpec("tumbling", 60.0)),
        ("tumbling:5m", WindowSpec("tumbling", 300.0)),
        ("hopping:60s:10s", WindowSpec("hopping", 60.0, 10.0)),
        ("session:30s", WindowSpec("session", 30.0)),
        ("count:100,max_wait=50ms", WindowSpec("count", 100, max_wait=0.05)),
        (
            "hopping:1h:250s,max_messages=9,lateness=2s,max_ahead=0s,own_time=true,late=amend,retain=90s,early=5,align=-3s",
            WindowSpec("hopping", 3600.0, 250.0, 9, None, 2.0, 0.0, True, "amend", 90.0, 5, -3.0),
        ),
    ],
)
def test_a_text_says_which_windows(text: str, expected: WindowSpec) -> None:
    spec = WindowSpec.parse(text)
    assert spec == expected
    assert str(spec) == text


durations = st.one_of(st.integers(1, 100_000).map(float), st.floats(0.001, 1e6))


@given(st.data())
def test_what_a_spec_says_of_itself_makes_the_same_spec(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["count", "sliding", "tumbling", "hopping", "session"]))
    more: dict[str, Any] = {"max_ahead": data.draw(durations), "retain": data.draw(durations)}
    more["late"] = data.draw(st.sampled_from(["drop", "dead_letter", "amend"]))
    if kind in ("count", "sliding"):
        size: float = data.draw(st.integers(1, 10_000))
    else:
        size = data.draw(durations)
        more["lateness"] = data.draw(durations)
    if kind in ("sliding", "hopping"):
        more["step"] = size
    spec = WindowSpec(kind=kind, size=size, **more)  # type: ignore[arg-type]
    assert WindowSpec.parse(str(spec)) == spec


def test_fields_given_as_keywords_override_the_text() -> None:
    assert WindowSpec.parse("count:8,max_wait=1s", max_wait=2.0).max_wait == 2.0


def test_sizes_of_counted_windows_are_whole_numbers() -> None:
    spec = WindowSpec("sliding", 4.0, 2.0)
    assert (spec.size, spec.step, type(spec.size), type(spec.step)) == (4, 2, int, int)


def test_without_max_wait_bounds_come_first() -> None:
    assert WindowSpec("count", 8).wait == 60.0
    assert WindowSpec("tumbling", 10.0, lateness=2.0).wait == 17.0
    assert WindowSpec("session", 10.0, lateness=2.0).wait == 102.0
    assert WindowSpec("count", 8, max_wait=1.0).wait == 1.0


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"kind": "rolling"}, "kind is 'rolling'; it must be one of count"),
        ({"size": 0}, "size is 0; of count windows it is a number of messages"),
        ({"size": 2.5}, "size is 2.5"),
        ({"size": "8"}, "size is '8'"),
        ({"size": True}, "size is True"),
        ({"size": float("nan")}, "size is nan"),
        ({"size": 99_999_999}, "size is 99999999, more than max_messages"),
        ({"step": 2}, "count windows have none"),
        ({"kind": "tumbling", "size": 0.0}, "size is 0.0; of tumbling windows it is a duration"),
        ({"kind": "tumbling", "size": float("inf")}, "size is inf"),
        ({"kind": "hopping", "size": 8.0}, "hopping windows need one"),
        ({"kind": "hopping", "size": 8.0, "step": 9.0}, "would be in no window"),
        ({"kind": "hopping", "size": 3600.0, "step": 0.25}, "more than 1000 steps"),
        ({"kind": "sliding", "size": 8, "step": 9}, "would be in no window"),
        ({"kind": "sliding", "size": 8, "step": -1}, "step is -1"),
        ({"kind": "sliding", "early": 2}, "early is for windows that take long"),
        ({"max_messages": 0}, "max_messages is 0"),
        ({"max_wait": 0.0}, "max_wait is 0.0"),
        ({"max_wait": float("inf")}, "max_wait is inf"),
        ({"kind": "tumbling", "size": 8.0, "max_wait": 7.0}, "would be closed early"),
        ({"kind": "session", "size": 8.0, "max_wait": 7.0}, "cut before its gap"),
        ({"lateness": -1.0}, "lateness is -1.0"),
        ({"max_ahead": -1.0}, "max_ahead is -1.0"),
        ({"retain": float("nan")}, "retain is nan"),
        ({"own_time": "yes"}, "own_time is 'yes'"),
        ({"late": "ignore"}, "late is 'ignore'; it must be one of drop, dead_letter, amend"),
        ({"early": -1}, "early is -1"),
        ({"align": float("nan")}, "align is nan"),
    ],
)
def test_windows_that_make_no_sense_are_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        WindowSpec(**{"kind": "count", "size": 8, **given})
    assert len(caught.value.problems) == 1


def test_all_problems_are_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        WindowSpec("count", 0, max_messages=0, late="never")  # type: ignore[arg-type]
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "begins with no kind"),
        ("rolling:8", "begins with no kind"),
        ("count", "says no size"),
        ("count:", "size cannot be ''"),
        ("count:many", "size cannot be 'many'"),
        ("count:1_000", "size cannot be '1_000'"),
        ("sliding:8:2:1", "too many numbers"),
        ("count:8,size=9", "there is no 'size'"),
        ("count:8,wait=9", "there is no 'wait'; a window can have max_messages"),
        ("count:8,max_wait=soon", "max_wait cannot be 'soon'; write a duration"),
        ("count:8,max_wait=1e999", "max_wait is inf"),
        ("count:8,max_messages=9.5", "max_messages cannot be '9.5'; write a whole number"),
        ("tumbling:8s,own_time=yes", "own_time cannot be 'yes'; write true or false"),
        ("count:60s,early=x,late=", "early cannot be 'x'"),
    ],
)
def test_texts_that_say_no_windows_are_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        WindowSpec.parse(text)


def test_a_spec_can_be_changed_into_another() -> None:
    spec = replace(WindowSpec.parse("sliding:8"), own_time=True)
    assert (spec.step, spec.own_time) == (1, True)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("sliding:8:1234567", "step is 1234567, more than size (8)"),
        ("hopping:1h:100d", "step is 2400h, more than size (1h)"),
        ("tumbling:20d,max_wait=1s,lateness=100ms", "max_wait is 1s, less than size and lateness (1728000100ms)"),
    ],
)
def test_numbers_are_said_as_one_writes_them(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        WindowSpec.parse(text)
    assert sentence in str(raised.value)


def test_a_restart_looks_back_as_far_as_windows_can_be_amended() -> None:
    spec = WindowSpec.parse("tumbling:60s,lateness=5s,retain=10m")
    assert spec.reach == 60 + 5 + spec.wait
    assert replace(spec, late="amend").reach == 600
    assert replace(spec, late="amend", retain=1.0).reach == spec.reach
    assert WindowSpec.parse("count:5,late=amend").reach == 0

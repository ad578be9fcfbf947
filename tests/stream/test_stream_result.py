"""What is recorded of a window, and what is read of it again."""

from __future__ import annotations

import datetime
import json
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stream_results import result_of

from aipod.errors import SerializationError
from aipod.stream.result import Members, Recorded, Result, expand, ranges_of

seqs = st.sets(st.integers(1, 60), min_size=1)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(seqs)
def test_positions_become_ranges_and_come_back(positions: set[int]) -> None:
    ranges = ranges_of(positions)
    assert list(expand(ranges)) == sorted(positions)
    assert all(last + 1 < first for (_, last), (first, _) in pairwise(ranges))
    members = Members(ranges)
    assert {seq for seq in range(62) if seq in members} == positions


def test_no_positions_are_no_ranges() -> None:
    assert ranges_of(()) == ()
    assert list(expand(())) == []
    assert 1 not in Members(())


@given(key=st.text(st.characters(codec="utf-8")), value=plain, positions=seqs, start=st.floats(0, 1e10))
def test_a_result_comes_back_as_it_was(key: str, value: Any, positions: set[int], start: float) -> None:
    recorded = Recorded(key, "s1", 3, start, start + 1, "full", ranges_of(positions))
    result = Result("t", recorded, value, ((1, 1),))
    payload = result.encode()
    assert b"\n" not in payload
    assert Result.read(payload) == result
    assert result.count == len(positions)


def test_the_document_says_all_that_a_restart_must_know() -> None:
    result = result_of(1, 9, "k", members=((1, 3), (9, 9)), dropped=((2, 2),), value={"x": 1}, revision=2)
    assert json.loads(result.encode()) == {
        "task": "t",
        "key": "k",
        "window": {
            "id": "s1",
            "revision": 2,
            "start": 1.0,
            "end": 9.0,
            "count": 4,
            "reason": "full",
            "members": [[1, 3], [9, 9]],
        },
        "dropped": [[2, 2]],
        "result": {"x": 1},
    }


def test_a_result_says_of_which_stream_its_members_are_positions() -> None:
    recorded = Recorded("k", "s1", 0, 1.0, 2.0, "full", ((1, 3),), "S@2026-11-20T09:13:51.123456789Z")
    payload = Result("t", recorded, 1.5).encode()
    assert json.loads(payload)["window"]["source"] == recorded.source
    assert Result.read(payload).recorded == recorded


@pytest.mark.parametrize(
    ("members", "source", "agree"),
    [(((1, 3),), "S@1", True), (((1, 3),), "", True), (((1, 3),), "S@2", False), (((1, 2),), "S@1", False)],
)
def test_two_of_one_window_agree_if_they_are_of_the_same_messages(members: Any, source: str, agree: bool) -> None:
    one = Recorded("k", "s1", 0, 1.0, 2.0, "full", ((1, 3),), "S@1")
    other = Recorded("k", "s1", 0, 5.0, 6.0, "idle", members, source)
    assert (one.agrees(other), other.agrees(one)) == (agree, agree)


def test_what_models_return_is_written_as_plain_values() -> None:
    when = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.timezone.utc)
    value = {
        "array": np.arange(4, dtype=np.float32).reshape(2, 2),
        "scalar": np.int64(7),
        "flag": np.True_,
        "bytes": b"\0\xff",
        "when": when,
        "tuple": (1, 2),
        "many": [float("nan"), float("inf"), float("-inf")],
    }
    again = Result.read(result_of(1, 2, value=value).encode()).value
    assert [math.isnan(again["many"][0]), *again.pop("many")[1:]] == [True, math.inf, -math.inf]
    assert again == {
        "array": [[0.0, 1.0], [2.0, 3.0]],
        "scalar": 7,
        "flag": True,
        "bytes": {"base64": "AP8="},
        "when": "2026-01-31T12:00:00+00:00",
        "tuple": [1, 2],
    }


def _loop() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value", [1j, {1, 2}, object(), np.zeros(2, complex), {(1, 2): 3}, _loop(), "\ud800", np.array([object()])]
)
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    with pytest.raises(SerializationError, match="result: it does not fit into JSON"):
        result_of(1, 2, value=value).encode()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"hello",
        b"\xff",
        b"[]",
        b"null",
        b"3",
        b'"text"',
        b"{}",
        b'{"task": "t", "key": "k", "window": 3, "dropped": [], "result": 1}',
        b'{"task": "t", "key": "k", "window": {}, "dropped": [], "result": 1}',
        result_of(1, 2).encode().replace(b"[[1,2]]", b"[[1]]"),
        result_of(1, 2).encode().replace(b"[[1,2]]", b"7"),
        result_of(1, 2).encode().replace(b'"result":1.5', b'"x":1'),
        b"[" * 100_000,
    ],
)
def test_what_is_no_result_is_said_to_be_none(payload: bytes) -> None:
    with pytest.raises(SerializationError, match="no result of a window"):
        Result.read(payload)


@given(
    first=st.tuples(st.text(st.characters(codec="utf-8")), st.integers(0, 3)),
    second=st.tuples(st.text(st.characters(codec="utf-8")), st.integers(0, 3)),
)
def test_an_identity_is_ascii_and_one_windows_alone(first: tuple[str, int], second: tuple[str, int]) -> None:
    names = [result_of(1, 2, key, revision=revision).identity for key, revision in (first, second)]
    assert (names[0] == names[1]) == (first == second)
    assert all(name.isascii() and name.isprintable() and " " not in name for name in names)


def test_the_same_window_has_the_same_identity_whatever_closed_it() -> None:
    assert result_of(1, 2, value=1).identity == result_of(1, 3, id="s1", value=2, reason="idle").identity == "t/k/s1/0"

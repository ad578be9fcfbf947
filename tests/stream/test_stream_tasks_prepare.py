"""What the model is given of a window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from aipod.errors import ConfigError, InvalidArgument, ModelError
from aipod.stream.message import Message
from aipod.stream.tasks.prepare import preparing
from aipod.stream.windows import Window

HERE = __name__


def window(*values: Any) -> Window:
    messages = tuple(Message(seq, 0.0, "s", b"", value=value) for seq, value in enumerate(values, 1))
    return Window(key="k", id="s1", start=1.0, end=2.0, messages=messages, reason="full")


def take(columns: Mapping[str, str], *values: Any) -> dict[str, Any]:
    return preparing("", columns)(window(*values))


def spread(of: Window) -> dict[str, Any]:
    values = [message.value for message in of.messages]
    if values[0] is None:
        raise InvalidArgument("no value")
    return {"spread": max(values) - min(values), "key": of.key}


def positional(of: Window) -> list[str]:
    return [of.key]


TOLD = {"key": "k", "id": "s1", "start": 1.0, "end": 2.0, "count": 3, "reason": "full"}


def test_without_a_word_the_model_gets_messages_and_window() -> None:
    assert preparing("", {})(window(1, "b", None)) == {"messages": [1, "b", None], "window": TOLD}


def test_a_function_of_the_users_makes_the_keywords() -> None:
    assert preparing(f"{HERE}:spread", {})(window(1, 5, 3)) == {"spread": 4, "key": "k"}


def test_a_function_that_fails_is_the_models_code_that_failed() -> None:
    with pytest.raises(ModelError, match="spread raised TypeError") as raised:
        preparing(f"{HERE}:spread", {})(window(1, "x"))
    assert raised.value.type == "TypeError"


def test_an_error_of_our_tree_passes_through() -> None:
    with pytest.raises(InvalidArgument, match="no value"):
        preparing(f"{HERE}:spread", {})(window(None))


def test_a_function_that_gives_no_keywords_is_nobodys_fault_among_the_messages() -> None:
    with pytest.raises(ConfigError, match="returned list; it must return the keywords of predict"):
        preparing(f"{HERE}:positional", {})(window(1))


@pytest.mark.parametrize(
    ("path", "values", "expected"),
    [
        ("a", [{"a": 1}, {"a": 2}, {"a": 3}], np.array([1, 2, 3])),
        ("a", [{"a": 1}, {"a": 2.5}, {"a": 3}], np.array([1, 2.5, 3])),
        ("a", [{"a": True}, {"a": False}, {"a": True}], np.array([True, False, True])),
        ("a", [{"a": "x"}, {"a": "long"}, {"a": ""}], np.array(["x", "long", ""])),
        ("a.b", [{"a": {"b": [1, 2]}}] * 3, np.array([[1, 2]] * 3)),
        ("a.0", [{"a": [5, "x"]}] * 3, np.array([5, 5, 5])),
        (".", [np.eye(2, dtype="f4")] * 3, np.array([np.eye(2)] * 3, dtype="f4")),
        (".", [[["a", "b"]]] * 3, np.array([[["a", "b"]]] * 3)),
        (".", [np.float32(1), np.float32(2), np.float32(3)], np.array([1, 2, 3], dtype="f4")),
        (".", [np.datetime64(1, "s")] * 3, np.array([1, 1, 1], dtype="M8[s]")),
    ],
)
def test_a_column_is_one_array_of_a_field_of_all_messages(path: str, values: list[Any], expected: Any) -> None:
    made = take({"x": path}, *values)
    assert made["window"] == TOLD
    assert made["x"].dtype == expected.dtype
    np.testing.assert_array_equal(made["x"], expected)


@pytest.mark.parametrize(
    ("values", "at", "problem"),
    [
        ([{"a": 1}, {}, {"a": 3}], 1, "there is no field 'a'"),
        ([{"a": 1}, {"a": 2}, 7], 2, "there is no field 'a'"),
        ([{"a": 1}, {"a": None}, {"a": 3}], 1, "'a' is null"),
        ([{"a": 1}, {"a": "2"}, {"a": 3}], 1, "'a' is a text; the others have a number"),
        ([{"a": "1"}, {"a": "2"}, {"a": 3}], 2, "'a' is a number; the others have a text"),
        ([{"a": [1]}, {"a": [1, 2]}, {"a": [3, 4]}], 0, "numbers of shape [1]; the others have numbers of shape [2]"),
        ([{"a": 1}, {"a": [1]}, {"a": 2}], 1, "numbers of shape [1]; the others have a number"),
        ([{"a": [1, [2]]}, {"a": [1, 2]}, {"a": [3, 4]}], 0, "a list of unlike things"),
        ([{"a": [1, "x"]}, {"a": [1, 2]}, {"a": [3, 4]}], 0, "a list of unlike things"),
        ([{"a": 1}, {"a": {}}, {"a": 3}], 1, "is dict"),
        ([{"a": 1}, {"a": b"x"}, {"a": 3}], 1, "is bytes"),
        ([{"a": 1}, {"a": 2}, {"a": 10**30}], 2, "is int"),
    ],
)
def test_the_message_that_does_not_fit_is_named(values: list[Any], at: int, problem: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        take({"x": "a"}, *values)
    assert str(raised.value).startswith(f"column 'x': message {at} of 3: ")
    assert problem in str(raised.value)


def test_all_columns_that_make_no_sense_are_named() -> None:
    with pytest.raises(ConfigError) as raised:
        preparing("", {"window": "a", "x": "a..b"})
    assert len(raised.value.problems) == 2

"""What ``aipod predict`` prints for each type that an answer can hold."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pytest

from aipod.cli.json_text import to_json


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ({"模": [True, 1, 2.5, "型"]}, '{"模": [true, 1, 2.5, "型"]}'),
        ((1, (2,)), "[1, [2]]"),
        (b"\x00\xff", '{"base64": "AP8="}'),
        (datetime(2024, 2, 29, 12, tzinfo=timezone.utc), '"2024-02-29T12:00:00+00:00"'),
        (np.float32(0.5), "0.5"),
        (np.float64(0.5), "0.5"),
        (np.longdouble(0.5), "0.5"),
        (np.bool_(True), "true"),
        (np.complex64(1 + 2j), "[1.0, 2.0]"),
        (np.clongdouble(1 + 2j), "[1.0, 2.0]"),
        (np.str_("型"), '"型"'),
        (np.bytes_(b"a"), '{"base64": "YQ=="}'),
        (np.datetime64("2024-02-29T12:00", "ns"), '"2024-02-29T12:00:00.000000000"'),
        (np.datetime64("NaT", "s"), '"NaT"'),
        (np.zeros(1, "M8")[0], "0"),
        (np.timedelta64(5, "s"), '"5 seconds"'),
        (np.array(3), "3"),
        (np.array([], np.float32), "[]"),
        (np.zeros((2, 0)), "[[], []]"),
        (np.array([[1, 2], [3, 4]], ">i2"), "[[1, 2], [3, 4]]"),
        (np.array([1.5], np.longdouble), "[1.5]"),
        (np.array([1j]), "[[0.0, 1.0]]"),
        (np.array([b"a"]), '[{"base64": "YQ=="}]'),
        (np.array(["2024-02"], "M8[M]"), '["2024-02"]'),
        (np.array([b"ab"], "V2"), '[{"base64": "YWI="}]'),
        (np.array([(1, [2.0, 3.0])], [("n", "i4"), ("x", "f8", 2)]), '[{"n": 1, "x": [2.0, 3.0]}]'),
        ([float("nan"), float("inf"), np.float32("-inf")], "[NaN, Infinity, -Infinity]"),
    ],
)
def test_every_type_has_its_text(value: Any, text: str) -> None:
    assert to_json(value) == text


@pytest.mark.parametrize("name", ["bfloat16", "float8_e5m2", "int4"])
def test_the_numbers_of_ml_dtypes_are_numbers(name: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = np.array([1, 2], getattr(ml_dtypes, name))
    assert json.loads(to_json({"array": array, "scalar": array[1]})) == {"array": [1, 2], "scalar": 2}

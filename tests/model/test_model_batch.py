"""``predict_batch`` of a class alone: a batch of one, and what is put together and taken apart."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from aipod.errors import InvalidArgument, ModelError, NotSupportedError
from aipod.model import AIModelBase
from aipod.model.base import has_batches
from aipod.model.stacking import arrays, signature, split, stack


class Doubles(AIModelBase):
    def predict_batch(self, inputs: Any) -> Any:
        return [2 * one["x"] for one in inputs]


# The class alone


def test_predict_is_a_batch_of_one() -> None:
    assert Doubles().predict(x=3) == 6


def test_it_is_a_coroutine_where_predict_batch_is_one() -> None:
    class Async(AIModelBase):
        async def predict_batch(self, inputs: Any) -> Any:
            return [2 * one["x"] for one in inputs]

    assert asyncio.run(Async().predict(x=3)) == 6


def test_stacked_gets_one_and_gives_one() -> None:
    class Stacked(AIModelBase):
        stacked = True

        def predict_batch(self, inputs: Any) -> Any:
            assert inputs["x"].shape == (1, 2)
            return {"sum": inputs["x"].sum(axis=1), "name": inputs["name"]}

    assert Stacked().predict(x=[1, 2], name="a") == {"sum": 3, "name": "a"}


def test_an_exception_in_place_of_the_output_is_raised() -> None:
    class Refusing(AIModelBase):
        def predict_batch(self, inputs: Any) -> Any:
            return [KeyError("no")]

    with pytest.raises(KeyError, match="no"):
        Refusing().predict(x=1)


def test_what_it_raises_is_raised_and_a_wrong_output_is_a_model_error() -> None:
    with pytest.raises(KeyError, match="x"):
        Doubles().predict(y=1)

    class Wrong(AIModelBase):
        def predict_batch(self, inputs: Any) -> Any:
            return [1, 2]

    with pytest.raises(ModelError, match=r"predict_batch\(\) returned 2 outputs for 1 inputs"):
        Wrong().predict()


def test_arguments_have_names() -> None:
    with pytest.raises(InvalidArgument, match="pass them by keyword"):
        Doubles().predict(3)


def of(**methods: Any) -> type[AIModelBase]:
    return type("Model", (AIModelBase,), methods)


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        (of(predict_batch=lambda self, inputs: []), True),
        (of(predict_batch=lambda self, rows: []), True),
        (of(predict_batch=lambda self, inputs, more=1: []), True),
        (of(predict_batch=lambda *args: []), True),
        (of(predict_batch=lambda self: []), False),
        (of(predict_batch=lambda self, inputs, size: []), False),
        (of(predict_batch=32), False),
        (of(), False),
        # Code of 1.0 may have had one, for itself.
        (of(predict_batch=lambda self, images: [], predict=lambda self, x: x), False),
        (of(predict_batch=lambda self, inputs: [], predict=lambda self, x: x), True),
    ],
)
def test_which_classes_have_batches(model: type[AIModelBase], answer: bool) -> None:
    assert has_batches(model) is answer
    if not answer and model.predict is AIModelBase.predict:
        with pytest.raises(NotSupportedError, match=r"Model has no predict\(\)"):
            model().predict(x=1)


# Stacks


def one_stack(*inputs: dict[str, Any], any_shape: bool = False) -> bool:
    return len({signature(arrays(one), any_shape) for one in inputs}) == 1


@pytest.mark.parametrize(
    ("one", "other", "apart", "padded"),
    [
        (1, 2, True, True),
        (1, 2.0, False, False),
        (True, 1, False, False),
        ([1, 2], [3, 4], True, True),
        ([1, 2], [3], False, True),
        ([1], [[1]], False, False),
        ("a", "bc", True, True),
        ("a", 1, False, False),
        ("a", None, True, True),
        (2**63, 1, False, False),
        (2**64, 2**70, True, True),
        (numpy.float32(1), numpy.float64(1), False, False),
        (numpy.zeros(2, "f4"), numpy.zeros(2, "f4"), True, True),
        (numpy.zeros(2, "f4"), numpy.zeros(2, ">f4"), False, False),
        (datetime(2026, 1, 1), datetime(2026, 1, 2), True, True),
        (["a", "b"], ["c"], True, True),
        ([{"a": 1}], [], False, False),
    ],
)
def test_who_shares_a_stack(one: Any, other: Any, apart: bool, padded: bool) -> None:
    assert one_stack({"x": one}, {"x": other}) is apart
    assert one_stack({"x": one}, {"x": other}, any_shape=True) is padded
    assert not one_stack({"x": one}, {"y": one})
    assert not one_stack({"x": one}, {"x": one, "y": 1})
    assert one_stack({"x": one, "y": 1}, {"y": 1, "x": one})


@pytest.mark.parametrize("ragged", [[[1], [1, 2]], [1, [2]], [[[1]], [[1, 2]]], [numpy.zeros(2), numpy.zeros(3)]])
def test_what_is_no_rectangle_is_refused_by_its_name(ragged: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^image: its rows differ in length or depth"):
        arrays({"image": ragged})


def test_padding_is_behind_the_end_of_every_axis() -> None:
    rows = [arrays({"x": value}) for value in ([[1, 2, 3]], [[4], [5]])]
    assert stack(rows, -1)["x"].tolist() == [[[1, 2, 3], [-1, -1, -1]], [[4, -1, -1], [5, -1, -1]]]
    assert stack(rows, -1)["x"].dtype == numpy.asarray([1]).dtype


@given(st.data())
def test_what_was_stacked_is_split_into_what_it_was(data: st.DataObject) -> None:
    dtypes = st.sampled_from(["?", "i1", "u8", "f2", "f4", "c16", "M8[s]", "S3", "U2"])
    dtype, shape = data.draw(dtypes), data.draw(npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    parts = data.draw(st.lists(npst.arrays(dtype, shape), min_size=1, max_size=4))
    stacked = stack([arrays({"x": part}) for part in parts])["x"]
    assert stacked.dtype == parts[0].dtype
    for outputs in (stacked, list(stacked)):
        found = split(outputs, len(parts))
        assert found is not None
        for part, back in zip(parts, found, strict=True):
            numpy.testing.assert_array_equal(part, back)
    found = split({"x": stacked, "pair": (stacked, stacked)}, len(parts))
    assert found is not None
    assert [sorted(one) for one in found] == [["pair", "x"]] * len(parts)


@pytest.mark.parametrize(
    "outputs", [None, 1, "ab", {}, (), {"a": 1}, ([1, 2], [1]), {"a": [1, 2], "b": None}, numpy.array(2), iter([1, 2])]
)
def test_what_is_not_one_output_for_each_is_none(outputs: Any) -> None:
    assert split(outputs, 2) is None

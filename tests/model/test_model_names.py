"""What a version may be called, and that a name is never more than one component of a path."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aipod.errors import BadVersionName
from aipod.model.names import MAX_NAME_BYTES, check_version


@pytest.mark.parametrize("name", [None, ""])
def test_no_name_means_default(name: str | None) -> None:
    assert check_version(name) == "default"


@pytest.mark.parametrize(
    "name", ["v1", "default", "模型-2024.v2", "café", "हिन्दी", "ไทย", "١٢", "_", "v1.", "v.-_1", "a" * 200]
)
def test_letters_marks_and_digits_of_any_script_are_accepted(name: str) -> None:
    assert check_version(name) == name


@pytest.mark.parametrize(
    "name",
    [
        ".", "..", "../x", "../../victim", "/abs", "a/b", "a\\b", "a\0b", ".hidden", "-rf", "a b",
        "a\n", "a\u202eb", "a\u200db", "v1@x", "a:b", "a*", "~", "x²", "\ud800", "a" * 201, "模" * 67, "٪", "😀",
    ],
)  # fmt: skip
def test_anything_else_is_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(BadVersionName, match="is no version name: ") as caught:
        check_version(name)
    str(caught.value).encode()


def test_a_decomposed_name_is_refused_and_the_composed_one_named() -> None:
    with pytest.raises(BadVersionName, match="café"):
        check_version(unicodedata.normalize("NFD", "café"))


@pytest.mark.parametrize("name", [1, b"v1", ["v1"], 1.5, object()])
def test_what_is_not_text_is_no_name(name: object) -> None:
    with pytest.raises(BadVersionName, match="a name is text"):
        check_version(name)


def test_a_huge_name_is_cut_in_the_error() -> None:
    with pytest.raises(BadVersionName) as caught:
        check_version("a" * 1_000_000)
    assert len(str(caught.value)) < 200


@given(st.text(max_size=210))
@example("models/../..")
@example("a\u0338")
def test_an_accepted_name_is_one_component_of_a_path(name: str) -> None:
    try:
        checked = check_version(name)
    except BadVersionName:
        return
    assert checked == (name or "default")
    assert len(checked.encode()) <= MAX_NAME_BYTES
    path = Path("/data/models", checked)
    assert path.name == checked
    assert path.parent == Path("/data/models")
    assert os.path.normpath(path) == str(path)
    assert check_version(checked) == checked

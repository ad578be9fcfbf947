"""Subjects with variables, and the rules of subjects."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipod.errors import ConfigError
from aipod.stream.tasks import Template
from aipod.stream.tasks.subjects import overlap, problem_of
from aipod.stream.tasks.template import token


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("results", "results"),
        ("results.{key}", "results.pump-7"),
        ("r.{task}.{key}.x", "r.vibration.pump-7.x"),
        ("r.v{key}", "r.vpump-7"),
        ("r.{header:Site}", "r.north%20hall"),
        ("r.{header:None}", "r._"),
        ("r.{subject:1}.{subject:9}", "r.7._"),
    ],
)
def test_variables_are_filled_in(text: str, subject: str) -> None:
    rendered = Template(text).render(
        task="vibration", key="pump-7", headers={"Site": "north hall"}, subject="plant.7.temperature"
    )
    assert rendered == subject


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("abc-_~9", "abc-_~9"),
        ("", "_"),
        ("_", "%5F"),
        ("__", "__"),
        ("a.b", "a%2Eb"),
        ("*", "%2A"),
        (">", "%3E"),
        ("a b\r\n", "a%20b%0D%0A"),
        ("100%", "100%25"),
        ("é", "%C3%A9"),
        ("$JS", "%24JS"),
        ("\ud800", "%ED%A0%80"),
    ],
)
def test_any_value_is_one_legal_token(value: str, expected: str) -> None:
    assert token(value) == expected


@given(st.lists(st.text(st.characters(), max_size=40), min_size=2, max_size=8, unique=True))
def test_different_keys_have_different_subjects(keys: list[str]) -> None:
    tokens = [token(key) for key in keys]
    assert len(set(tokens)) == len(keys)
    assert not [each for each in tokens if problem_of(each, wildcards=False) or not each.isascii() or "." in each]


def test_a_long_value_becomes_a_token_that_a_subject_can_hold() -> None:
    one, other = token("x" * 64_000), token("x" * 64_001)
    assert len(one) == len(other) == 768
    assert one != other


@pytest.mark.parametrize(
    ("text", "wildcard"),
    [
        ("results", "results"),
        ("results.{key}", "results.*"),
        ("r.{task}.{key}", "r.t%2E1.*"),
        ("r.a{key}b.{header:X.Y}.c", "r.*.*.c"),
    ],
)
def test_the_wildcard_fits_all_that_is_rendered(text: str, wildcard: str) -> None:
    template = Template(text)
    assert template.wildcard("t.1") == wildcard
    assert overlap(template.render(task="t.1", key="some.key", headers={"X.Y": ""}), wildcard)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it is empty"),
        ("a b", "a space"),
        ("a\r\nb", "control character"),
        ("a..b", "empty token"),
        (".a", "empty token"),
        ("results.*", "wildcards have no place"),
        ("results.>", "wildcards have no place"),
        ("a.b*", "a token of its own"),
        ("a.{kee}", "has the variable {kee}; there are {key}, {task}, {header:Name}, {subject:0}"),
        ("a.{header:}", "has the variable"),
        ("a.{subject:x}", "has the variable"),
        ("a.{key", "without its partner"),
        ("a.{{key}}", "without its partner"),
        ("a" * 2000, "longer than 1024"),
    ],
)
def test_what_cannot_be_published_to_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Template(text)
    assert problem in str(raised.value)


def test_only_the_variables_that_make_sense_are_taken() -> None:
    assert Template("dead.{task}", ("task",)).render(task="t") == "dead.t"
    with pytest.raises(ConfigError, match=r"has the variable {key}; there are {task}"):
        Template("dead.{key}", ("task",))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a.b", "a", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.>", "a", False),
        ("a.>", "a.b.c", True),
        (">", "a", True),
        ("*.b", "a.*", True),
        ("*.b", "a.c", False),
        ("a.*.c", "a.>", True),
        ("a.*.c", "a.b", False),
    ],
)
def test_patterns_overlap_where_one_subject_fits_both(one: str, other: str, expected: bool) -> None:
    assert overlap(one, other) is expected
    assert overlap(other, one) is expected


@pytest.mark.parametrize(
    ("pattern", "fine"),
    [("a.>", True), (">", True), ("*", True), ("a.*.b", True), ("a.>.b", False), ("a>", False), ("*a", False)],
)
def test_wildcards_stand_alone(pattern: str, fine: bool) -> None:
    assert (problem_of(pattern, wildcards=True) is None) is fine

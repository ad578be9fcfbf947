"""Two tasks of one name are told apart by what they are, and nothing secret is needed for that."""

from __future__ import annotations

from typing import Any

import pytest

from aipod.stream.tasks import StreamTask
from aipod.stream.tasks.digest import differences, digest

TABLE = {
    "name": "t",
    "nats": "nats://one:4222",
    "subjects": ["a", "b"],
    "window": "count:4",
    "model": "localhost:1/v1",
    "sink": "sql:postgresql://me:secret@host/db?password=secret#results",
}


def task(**changes: Any) -> StreamTask:
    return StreamTask.from_dict({**TABLE, **changes})


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({}, []),
        ({"subjects": ["b", "a"]}, []),
        ({"nats": "nats://two:4222"}, []),
        ({"sink": "sql:postgresql://me:other@host/db?password=other#results"}, []),
        ({"sink": "sql:postgresql://me:secret@host/db?password=secret#others"}, ["sinks"]),
        ({"subjects": ["a"]}, ["source"]),
        ({"stream": "S"}, ["source"]),
        ({"key": "k"}, ["reading"]),
        ({"window": "count:5"}, ["window"]),
        ({"max_wait": 3}, ["window"]),
        ({"model": "localhost:1/v2"}, ["model"]),
        ({"columns": {"x": "y"}}, ["model"]),
        ({"sink": {"to": "model:localhost:2", "sink": "stdout"}}, ["sinks"]),
    ],
)
def test_what_is_another_task_shows_and_what_is_the_same_does_not(changes: dict[str, Any], parts: list[str]) -> None:
    assert differences(digest(task()), digest(task(**changes))) == parts


@pytest.mark.parametrize("theirs", [None, "x", 3, {}, {"later": "x"}])
def test_of_a_holder_that_says_nothing_of_its_task_nothing_is_said(theirs: object) -> None:
    assert differences(digest(task()), theirs) == []

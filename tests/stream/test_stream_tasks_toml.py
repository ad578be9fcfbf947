"""Tasks from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from aipod.errors import ConfigError
from aipod.stream.tasks import load, loads

FILE = """
[defaults]
nats = "nats://broker:4222"
subject = "sensors.>"
window = "count:32"
model = { address = "localhost:50051", timeout = 5 }
key = "device"

[[task]]
name = "mean"
sink = "nats:means.{key}"

[[task]]
name = "last"
key = ""
subjects = ["other.a", "other.b"]
model = { version = "v2" }
window = "sliding:4:2"
sinks = ["stdout"]
"""
TASK = '[[task]]\nname = "a"\nsubject = "s"\nwindow = "count:2"\nmodel = "h:1"\nsink = "stdout"\n'


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        loads(text, "tasks.toml")
    return raised.value.problems


def test_tasks_share_defaults_and_may_have_their_own(tmp_path: Path) -> None:
    path = tmp_path / "tasks.toml"
    path.write_text(FILE)
    mean, last = load(path)
    assert (mean.name, mean.key, mean.source.subjects) == ("mean", "device", ("sensors.>",))
    assert (mean.model.address, mean.model.version, mean.model.timeout) == ("localhost:50051", "default", 5.0)
    assert (last.name, last.key, last.source.subjects) == ("last", "", ("other.a", "other.b"))
    assert (last.model.address, last.model.version, last.model.timeout) == ("localhost:50051", "v2", 5.0)
    assert last.source.connect == mean.source.connect


def test_a_mark_in_front_of_the_text_is_passed_over() -> None:
    assert [task.name for task in loads(b"\xef\xbb\xbf" + TASK.encode())] == ["a"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "tasks.toml: there is no task in it; a task begins with [[task]]"),
        ("# nothing\n", "tasks.toml: there is no task in it; a task begins with [[task]]"),
        (TASK.replace("[[task]]", "[task]"), "tasks.toml: a task begins with [[task]], in two brackets"),
        ("task = [1]", "tasks.toml: a task begins with [[task]], in two brackets"),
        (f"{TASK}[default]\n", "tasks.toml: there is no table 'default'; the nearest is defaults"),
        (f"defaults = 5\n{TASK}", "tasks.toml: defaults is no table"),
        (f'[defaults]\nname = "x"\n{TASK}', "tasks.toml: defaults: name is each task's own"),
        (
            f'[defaults]\nwindwo = "x"\n{TASK}',
            "tasks.toml: defaults: there is no field 'windwo'; the nearest is window",
        ),
        (f"{TASK}\n\nname = 'b'\n", "tasks.toml: it is no TOML: "),
        (b'a = 1\nb = "\xe9"\n', "tasks.toml: line 2 is not UTF-8; save it as UTF-8"),
        (TASK.encode("utf-16"), "tasks.toml: line 1 is not UTF-8; save it as UTF-8"),
        ("a = " + "[" * 50_000, "tasks.toml: it is n"),
        (TASK + TASK, "tasks.toml: task 'a': there are two of that name"),
        (TASK + 'windw = ""\n', "tasks.toml: task 'a': there is no field 'windw'; the nearest is window"),
        (TASK + 'subjects = "x"\n', "tasks.toml: task 'a': subjects and subject are the same field; keep one"),
        (TASK.replace('name = "a"', "name = 5"), "tasks.toml: task 1: name is 5"),
    ],
)
def test_a_mistake_is_said_with_its_place(text: str | bytes, problem: str) -> None:
    [found] = problems(text)
    assert found.startswith(problem)


def test_the_line_of_a_mistake_in_toml_is_named() -> None:
    [found] = problems("[[task]]\nname = = 5\n")
    assert "line 2" in found


def test_all_mistakes_of_all_tasks_are_said_at_once() -> None:
    second = TASK.replace('"a"', '"b"').replace("count:2", "").replace("h:1", "h")
    third = TASK.replace('name = "a"', 'nmae = "c"')
    fourth = TASK.replace('"a"', '"d"') + "ack_wait = 0\n"
    assert [found.split(";")[0] for found in problems(f"x = 1\n{TASK}{second}{third}{fourth}")] == [
        "tasks.toml: there is no table 'x'",
        "tasks.toml: task 'b': window: it is ''",
        "tasks.toml: task 'b': model: 'h' is no address of a model",
        "tasks.toml: task 3: there is no field 'nmae'",
        "tasks.toml: task 3: name is missing",
        "tasks.toml: task 'd': ack_wait is 0",
    ]


def test_what_cannot_be_read_is_said_in_one_sentence(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.toml", tmp_path):
        with pytest.raises(ConfigError, match="it cannot be read"):
            load(path)
    large = tmp_path / "large.toml"
    with large.open("wb") as file:
        file.truncate((16 << 20) + 1)
    with pytest.raises(ConfigError, match=r"large.toml: it is larger than 16 MiB"):
        load(large)


def test_what_is_wrong_with_a_default_is_said_once_and_only_where_a_task_has_it() -> None:
    defaults = '[defaults]\nack_wait = "soon"\ndecode = "yaml"\npartitions = 4\n'
    own = TASK + 'decode = "json"\nkey = "k"\n'
    found = problems(defaults + own + own.replace('"a"', '"b"') + own.replace('"a"', '"c"').replace("h:1", "h"))
    assert [problem.split(";")[0] for problem in found] == [
        "tasks.toml: defaults: ack_wait is 'soon'",
        "tasks.toml: task 'c': model: 'h' is no address of a model",
    ]


def test_a_task_that_would_feed_itself_is_told_so_whatever_else_is_wrong_with_it() -> None:
    task = TASK.replace('"s"', '"s.>"').replace('"stdout"', '["nowhere", "nats:s.out"]')
    for wrong in (task, task.replace("h:1", "h"), f"{task}ack_wait = 0\n"):
        assert any("results go to 's.out'" in problem and "feed itself" in problem for problem in problems(wrong))

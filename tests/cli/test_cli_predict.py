"""``aipod predict`` against a real server."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aipod.errors import InvalidArgument
from aipod.model import AIModelBase, current_call
from aipod.testing import served

Run = Callable[..., "subprocess.CompletedProcess[str]"]

ONE_LINE = re.compile(r"aipod: [^\n]+\n")


class Mirror(AIModelBase):
    """Gives back what it was sent, and says who it is."""

    def predict(self, binary_data: bytes | None = None, **kwargs: Any) -> Any:
        if kwargs.get("fail") == "mine":
            raise ZeroDivisionError("by\nnothing")
        if kwargs.get("fail") == "yours":
            raise InvalidArgument("x must be positive")
        if kwargs.get("wait"):
            while True:
                current_call().check()
        return {"version": self.version, "binary": binary_data, **kwargs}


@pytest.fixture
def address() -> Iterator[str]:
    with served(Mirror) as client:
        yield client.address


@pytest.fixture
def ask(address: str, aipod: Run) -> Callable[..., Any]:
    def ask(*arguments: str, stdin: str = "") -> Any:
        done = aipod("predict", "-a", address, *arguments, stdin=stdin)
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    return ask


def test_arguments_come_as_json(ask: Callable[..., Any]) -> None:
    assert ask("--json", '{"x": [1, null, 2.5], "名": "模型"}') == {
        "version": "default",
        "binary": None,
        "x": [1, None, 2.5],
        "名": "模型",
    }


def test_json_comes_from_stdin_too(ask: Callable[..., Any]) -> None:
    assert ask("--json", "-", stdin='{"名": 1}')["名"] == 1


def test_without_arguments_the_model_gets_none(ask: Callable[..., Any]) -> None:
    assert ask() == {"version": "default", "binary": None}


def test_the_version_is_that_of_the_flag(ask: Callable[..., Any]) -> None:
    assert ask("--version", "v1")["version"] == "v1"
    assert ask("-v", "v2")["version"] == "v2"


def test_arrays_come_from_files_and_go_as_lists(ask: Callable[..., Any], desk: Path) -> None:
    np.save(desk / "a.npy", np.arange(6, dtype=np.int16).reshape(2, 3))
    np.save(desk / "b.npy", np.array([0.5, np.nan], np.float32))
    answer = ask("--array", "a=a.npy", "--array", f"b={desk / 'b.npy'}")
    assert answer["a"] == [[0, 1, 2], [3, 4, 5]]
    assert answer["b"][0] == 0.5
    assert np.isnan(answer["b"][1])


def test_bytes_come_from_a_file_and_go_as_base64(ask: Callable[..., Any], desk: Path) -> None:
    (desk / "photo").write_bytes(b"\x00\xff")
    assert ask("--binary", "photo")["binary"] == {"base64": "AP8="}
    assert ask("--binary", "-", stdin="abc")["binary"] == {"base64": "YWJj"}


def test_the_address_comes_from_the_environment(address: str, aipod: Run) -> None:
    assert aipod("predict", AIPOD_ADDRESS=address).returncode == 0


def test_the_largest_answer_comes_from_the_environment(address: str, aipod: Run, desk: Path) -> None:
    np.save(desk / "large.npy", np.ones(200_000))
    done = aipod("predict", "-a", address, "--array", "x=large.npy", AIPOD_MAX_MESSAGE_BYTES="1MiB")
    assert done.returncode == 1
    assert ONE_LINE.fullmatch(done.stderr), done.stderr
    assert "larger than max" in done.stderr


def test_a_variable_that_nothing_reads_is_one_line_more(address: str, aipod: Run) -> None:
    done = aipod("predict", "-a", address, AIPOD_FOO="1")
    assert done.returncode == 0
    assert ONE_LINE.fullmatch(done.stderr), done.stderr
    assert "no setting reads the environment variable 'AIPOD_FOO'" in done.stderr


def test_the_output_is_utf_8_whatever_the_locale_says(address: str, aipod: Run) -> None:
    done = aipod("predict", "-a", address, "--json", "-", stdin='{"x": "模型"}', PYTHONIOENCODING="latin-1")
    assert json.loads(done.stdout)["x"] == "模型"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--json", '{"fail": "mine"}'), "aipod: ZeroDivisionError: by nothing\n"),
        (("--json", '{"fail": "yours"}'), "aipod: x must be positive\n"),
        (("--version", "../x"), "aipod: '../x' is no version name: "),
        (("--json", '{"wait": true}', "--timeout", "0.3"), "aipod: the deadline passed"),
    ],
)
def test_a_call_that_fails_is_one_line_and_exit_code_1(
    arguments: tuple[str, ...], sentence: str, address: str, aipod: Run
) -> None:
    done = aipod("predict", "-a", address, *arguments)
    assert ONE_LINE.fullmatch(done.stderr), done.stderr
    assert done.stderr.startswith(sentence)
    assert (done.returncode, done.stdout) == (1, "")


def test_debug_shows_the_traceback_of_the_server(address: str, aipod: Run) -> None:
    done = aipod("predict", "-a", address, "--debug", "--json", '{"fail": "mine"}')
    assert 'raise ZeroDivisionError("by\\nnothing")' in done.stderr
    assert done.stderr.endswith("\naipod: ZeroDivisionError: by nothing\n")


def test_no_server_is_one_line_and_exit_code_1(aipod: Run) -> None:
    done = aipod("predict", "-a", "127.0.0.1:1", "--timeout", "0.3")
    assert ONE_LINE.fullmatch(done.stderr), done.stderr
    assert "127.0.0.1:1" in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--json", "{"), "this is no JSON ("),
        (("--json", "[1]"), "it has to be an object with the model's arguments"),
        (("--json", "-"), "this is no JSON ("),
        (("--array", "x"), "'x' does not read NAME=FILE.npy"),
        (("--array", "x=no.npy"), "'no.npy' cannot be read: No such file or directory"),
        (("--array", "x=."), "'.' cannot be read: Is a directory"),
        (("--array", "x=text"), "'text' is no array that numpy.save wrote"),
        (("--array", "x=empty"), "'empty' is no array that numpy.save wrote"),
        (("--array", "x=pickled.npy"), "'pickled.npy' is no array that numpy.save wrote"),
        (("--array", "x=several.npz"), "'several.npz' holds several arrays; save each with numpy.save"),
        (("--array", "x=one.npy", "--array", "x=one.npy"), "'x' is given twice"),
        (("--array", "x=one.npy", "--json", '{"x": 1}'), "the argument 'x' is given twice; drop one"),
        (("--binary", "text", "--json", '{"binary_data": 1}'), "the argument 'binary_data' is given twice; drop one"),
        (("--binary", "no"), "No such file or directory"),
        (("--timeout", "0"), "--timeout"),
        (("-a", "nowhere"), "--address is 'nowhere'; it must be host:port"),
    ],
)
def test_arguments_that_make_no_sense_are_one_line_and_exit_code_2(
    arguments: tuple[str, ...], sentence: str, desk: Path, refused: Callable[..., str]
) -> None:
    (desk / "text").write_text("text")
    (desk / "empty").write_bytes(b"")
    np.save(desk / "one.npy", np.ones(1))
    np.savez(desk / "several.npz", a=np.ones(1), b=np.ones(1))
    np.save(desk / "pickled.npy", np.array([{}]), allow_pickle=True)
    assert sentence in refused("predict", *arguments)

"""``aipod revisions``, ``rollback`` and ``diff`` against a real server."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable

import pytest

from aipod.rpc.client import AIClient

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def flags(pupil: AIClient) -> list[str]:
    """Of a version with three revisions: initialized, trained, trained for longer."""
    pupil.initialize(layers=[64, 32])
    pupil.train(epochs=2, rate="low", note="a")
    pupil.train(epochs=4, rate="low", seed=None)
    return ["-a", pupil.address, "-v", pupil.version]


def test_revisions_are_a_table_that_says_which_is_live(flags: list[str], aipod: Run) -> None:
    done = aipod("revisions", *flags)
    assert (done.returncode, done.stderr) == (0, "")
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["REVISION", "LIVE", "CREATED", "ORIGIN", "PARENT", "SIZE", "METRICS"]
    when = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    for line, pattern in zip(
        lines,
        (
            rf"1 +{when}  initialize +[\d.]+ (B|KiB)",
            rf"2 +{when}  train +1 +[\d.]+ (B|KiB)  accuracy 0.5, epochs 2",
            rf"3 +\* +{when}  train +2 +[\d.]+ (B|KiB)  accuracy 0.75, epochs 4",
        ),
        strict=True,
    ):
        assert re.fullmatch(pattern, line), line


def test_revisions_are_json_for_machines(pupil: AIClient, flags: list[str], aipod: Run) -> None:
    first, second, third = json.loads(aipod("revisions", *flags, "--json").stdout)
    assert (first["number"], first["origin"], first["parameters"]) == (1, "initialize", {"layers": [64, 32]})
    assert (second["job"], third["job"]) == tuple(job.id for job in pupil.jobs(pupil.version))
    assert (third["live"], third["parent"], third["metrics"]) == (True, 2, {"accuracy": 0.75, "epochs": 4})


def test_a_rollback_serves_the_one_before_or_the_one_that_is_named(
    pupil: AIClient, flags: list[str], aipod: Run
) -> None:
    done = aipod("rollback", *flags)
    assert (done.returncode, done.stdout) == (0, f"revision 2 of version {pupil.version!r} is live\n")
    assert pupil.predict() == 2
    assert json.loads(aipod("rollback", "3", *flags, "--json").stdout) == {"version": pupil.version, "revision": 3}
    assert pupil.predict() == 4


def test_a_diff_shows_what_differs_and_nothing_else(flags: list[str], aipod: Run) -> None:
    done = aipod("diff", "2", "3", *flags)
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["2", "3", "CHANGE"],
        ["parameter", "epochs", "2", "4"],
        ["parameter", "note", '"a"', "-"],
        ["metric", "accuracy", "0.5", "0.75", "+0.25"],
        ["metric", "epochs", "2", "4", "+2"],
    ]
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(aipod("diff", "3", "2", *flags, "--json").stdout) == {
        "parameters": {"epochs": [4, 2], "note": [None, "a"]},
        "metrics": {"accuracy": [0.75, 0.5], "epochs": [4, 2]},
    }
    assert aipod("diff", "2", "2", *flags).stdout == "revisions 2 and 2 have the same parameters and metrics\n"


def test_a_revision_that_is_not_there_is_one_line_and_exit_code_1(
    pupil: AIClient, flags: list[str], aipod: Run
) -> None:
    done = aipod("diff", "2", "9", *flags)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"aipod: version {pupil.version!r} has no revision 9; it has 1, 2, 3\n"
    done = aipod("rollback", "9", *flags)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"aipod: [^\n]*revision 9[^\n]*\n", done.stderr), done.stderr
    assert pupil.predict() == 4


@pytest.mark.parametrize("command", [("revisions",), ("rollback",), ("diff", "1", "2")], ids=" ".join)
def test_a_version_without_revisions_is_said_to_be_one(command: tuple[str, ...], pupil: AIClient, aipod: Run) -> None:
    done = aipod(*command, "-a", pupil.address, "-v", pupil.version)
    assert pupil.version in done.stdout + done.stderr
    assert len((done.stdout + done.stderr).splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("diff", "1"), "Missing argument 'REVISION'"),
        (("diff", "one", "2"), "'one' is not a valid integer"),
        (("rollback", "0"), "0 is not in the range"),
        (("rollback", "1", "2"), "unexpected extra argument"),
        (("revisions", "-a", "nowhere"), "--address is 'nowhere'; it must be host:port"),
    ],
)
def test_arguments_that_make_no_sense_are_one_line_and_exit_code_2(
    arguments: tuple[str, ...], sentence: str, refused: Callable[..., str]
) -> None:
    assert sentence in refused(*arguments)

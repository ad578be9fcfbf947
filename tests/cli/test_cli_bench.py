"""``aipod bench`` against a real server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aipod.cli.bench.load import Run as Measured
from aipod.cli.bench.report import table, text
from aipod.errors import InvalidArgument
from aipod.model import AIModelBase
from aipod.testing import served

Run = Callable[..., "subprocess.CompletedProcess[str]"]


class Half(AIModelBase):
    """Refuses every second call, where it is asked to."""

    calls = 0

    def predict(self, always: bool = False, half: bool = False, **kwargs: Any) -> Any:
        type(self).calls += 1
        if always or (half and type(self).calls % 2 == 0):
            raise InvalidArgument("x must be positive")
        return kwargs


@pytest.fixture
def address() -> Iterator[str]:
    Half.calls = 0
    with served(Half) as client:
        yield client.address


@pytest.mark.parametrize("flags", [(), ("--threads",), ("--unary",), ("--threads", "--unary")])
def test_rate_percentiles_errors_and_a_histogram_are_printed(aipod: Run, address: str, flags: tuple[str, ...]) -> None:
    done = aipod("bench", address, "--json", '{"half": true}', "--callers", "4", "--seconds", "0.3", *flags)
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first.endswith("calls/s") and "by 4 callers" in first
    assert [line.split()[0] for line in rest if line.startswith("  p")] == ["p50", "p90", "p99", "p99.9"]
    assert any("#" in line for line in rest)
    assert rest[-1].split(maxsplit=1)[1] == "InvalidArgument: x must be positive"


def test_figures_are_to_be_had_as_json(aipod: Run, address: str) -> None:
    done = aipod("bench", address, "--json", '{"half": true}', "--callers", "2", "--seconds", "0.2", "--as-json")
    (figures,) = json.loads(done.stdout)
    assert figures["callers"] == 2 and figures["calls"] > 0
    assert figures["calls_per_second"] == pytest.approx(figures["calls"] / figures["seconds"])
    assert set(figures["percentiles"]) == {"p50", "p90", "p99", "p99.9"}
    assert set(figures["errors"]) == {"InvalidArgument"}


def test_a_sweep_measures_more_and_more_callers_and_draws_them(aipod: Run, address: str, tmp_path: Path) -> None:
    file = tmp_path / "load.png"
    done = aipod("bench", address, "--callers", "5", "--seconds", "0.1", "--sweep", str(file))
    assert done.returncode == 0, done.stderr
    assert [int(line.split()[0]) for line in done.stdout.splitlines()[1:]] == [1, 2, 4, 5]
    assert file.read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_written_is_an_error(aipod: Run, address: str, tmp_path: Path) -> None:
    file = tmp_path / ("a" * 300)
    done = aipod("bench", address, "--callers", "1", "--seconds", "0.1", "--sweep", str(file))
    assert done.returncode == 2
    assert "cannot be written" in done.stderr


def test_where_a_picture_has_no_directory_nothing_is_measured(aipod: Run, address: str, tmp_path: Path) -> None:
    done = aipod("bench", address, "--callers", "1", "--sweep", str(tmp_path / "no" / "load.png"))
    assert done.returncode == 2 and done.stdout == ""
    assert "cannot be written: there is no directory" in done.stderr
    assert Half.calls == 0


def test_what_the_first_call_fails_with_is_said_and_nothing_is_measured(aipod: Run, address: str) -> None:
    done = aipod("bench", address, "--json", '{"always": true}', "--seconds", "0.1")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == "aipod: x must be positive\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "nowhere"),
        (["localhost:1", "--callers", "0"], "--callers"),
        (["localhost:1", "--seconds", "0"], "--seconds"),
        (["localhost:1", "--seconds", "nan"], "nan is no number of seconds"),
        (["localhost:1", "--seconds", "inf"], "inf is no number of seconds"),
        (["localhost:1", "--json", "[]"], "it has to be an object"),
    ],
)
def test_bad_arguments_are_refused_at_once(refused: Callable[..., str], arguments: list[str], sentence: str) -> None:
    assert sentence in refused("bench", *arguments)


def test_the_histogram_holds_every_call_whatever_they_took() -> None:
    for latencies in ([0.0], [1e-9, 2.5], [0.003] * 5, [1e-5, 1e-4, 1e-3, 9.0]):
        measured = Measured(1, elapsed=1.0, latencies=latencies)
        counts, bounds = measured.histogram(12)
        assert counts.sum() == len(latencies)
        assert (bounds[1:] > bounds[:-1]).all()


def test_a_run_of_errors_alone_can_be_shown() -> None:
    measured = Measured(3, elapsed=1.0)
    measured.note(InvalidArgument("no"))
    assert "1 calls failed" in text(measured)
    assert table([measured]).splitlines()[1].split() == ["3", "0", "-", "-", "1"]

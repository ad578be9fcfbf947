"""The README is followed to the letter: its commands, its code and their output, against a server of its own."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aipod.config import Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
# What the README writes; in a test it is a free port of this machine.
WRITTEN_ADDRESS = "localhost:50051"
WRITTEN_LISTENING = "[::]:50051"
PATIENCE = 60.0


def test_the_first_ten_minutes_go_as_they_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    environ = _environ(tmp_path)
    (kind, model), (_, serve), *rest = _steps()
    assert "class Digits" in model, kind
    (tmp_path / "model.py").write_text(model, "utf-8")
    names: dict[str, Any] = {}
    with _serving(serve, environ) as address:
        environ["AIPOD_ADDRESS"] = address
        for kind, text in rest:
            if kind == "python":
                exec(text.replace(WRITTEN_ADDRESS, address), names)
                shown = re.findall(r"^ *print\(.*\)  # (.*)$", text, re.MULTILINE)
                assert capsys.readouterr().out.splitlines() == shown
            else:
                for command, expected in _commands(text):
                    assert [*map(_lasting, _run(command, environ))] == [*map(_lasting, expected)]
        names["model"].close()


def _steps() -> list[tuple[str, str]]:
    """Every block from the model on: its language and its text."""
    begin = README.index("write `model.py`")
    text = README[begin : README.index("\n## ", begin)]
    return [(match[1], match[2]) for match in re.finditer(r"^```(\w+)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)]


# What is another one each time: times, the ids of jobs, and what a training comes to, with its sign.
_PASSING = re.compile(r"@\d{8}T\d{12}Z-[0-9a-f]{4}|\d{4}-\d\d-\d\d|\d\d:\d\d:\d\d|[+-]?\d+\.\d+|[+-]\d+")


def _lasting(line: str) -> str:
    """A line without what is another one each time, nor how far it moves columns."""
    return " ".join(_PASSING.sub("~", line).split())


def _commands(block: str) -> list[tuple[str, list[str]]]:
    """Take a console's block apart into commands and the lines that each of them prints."""
    nothing, *parts = re.split(r"^\$ ", block, flags=re.MULTILINE)
    assert not nothing
    return [(command, lines) for command, *lines in map(str.splitlines, parts)]


def _environ(directory: Path) -> dict[str, str]:
    """An environment in which ``aipod`` and ``python`` are this checkout's, installed or not."""
    programs = directory / "bin"
    programs.mkdir()
    for name, arguments in (("python", ""), ("aipod", "-m aipod ")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments}"$@"\n')
        program.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "AIPOD_LISTEN_HOST": "127.0.0.1",
        "AIPOD_LISTEN_PORT": "0",
    }


@contextmanager
def _serving(block: str, environ: dict[str, str]) -> Iterator[str]:
    """Start the server as the README does, and end it as with Ctrl-C."""
    ((command, (expected,)),) = _commands(block)
    with subprocess.Popen(shlex.split(command), env=environ, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().strip()
            address = line.rpartition(" ")[2]
            assert line == expected.replace(WRITTEN_LISTENING, address)
            yield address
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


def _run(command: str, environ: dict[str, str]) -> list[str]:
    done = subprocess.run(
        command,
        shell=True,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.stdout.splitlines()


def test_the_table_of_settings_is_the_settings() -> None:
    rows = [f"| `{row.variable}` | {_code(row.default)} | {row.meaning} |" for row in Settings().describe()]
    assert _section("Settings").count("| `AIPOD_") == len(rows)
    assert "\n".join(rows) in _section("Settings"), "the table should be:\n" + "\n".join(rows)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def test_the_table_of_targets_is_the_makefile() -> None:
    targets = re.findall(r"^([a-z-]+):.*?## (.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert re.findall(r"^\| `make ([a-z-]+)` \| (.*) \|$", _section("make"), re.MULTILINE) == targets


def test_every_target_that_is_mentioned_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:`|\$ )make ([a-z-]+)", README)) <= targets


def test_the_tables_of_dependencies_are_the_packages() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", "utf-8")
    requirements = re.findall(r"^\w+", config["options"]["install_requires"], re.MULTILINE)
    packages, _, extras = _section("Dependencies").partition("| extra |")
    assert sorted(re.findall(r"^\| ([a-z]\w+) \| .+ \| .+ \|$", packages, re.MULTILINE)[1:]) == sorted(requirements)
    assert re.findall(r"^\| `(\w+)` \|", extras, re.MULTILINE) == list(config["options.extras_require"])


def test_every_figure_was_printed_by_a_benchmark() -> None:
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text("utf-8")
    figures = re.findall(r"\d\.\d+ \(\d\.\d+ to \d+\.\d+\)", " ".join(_section("Measured").split()))
    assert len(figures) > 10
    assert [figure for figure in figures if figure not in results] == []


def _section(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]

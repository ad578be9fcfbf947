"""``aipod stream``: that its commands are there, and what is said where their packages are not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aipod.cli.main import main

ROOT = Path(__file__).parents[2]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def python(program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{program}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_help_lists_the_commands_and_teaches_with_examples(aipod: Run) -> None:
    done = aipod("stream", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for command in ("run", "check", "status", "replay", "dev"):
        assert f"\n  {command} " in done.stdout
    assert "aipod stream run tasks.toml" in done.stdout


def test_alone_it_prints_its_help(aipod: Run) -> None:
    done = aipod("stream")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == aipod("stream", "--help").stdout


@pytest.mark.parametrize("command", ["run", "check", "status", "replay", "dev"])
def test_the_help_of_each_command_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["stream", command, "--help"])
    output, errors = capsys.readouterr()
    assert (end.value.code, errors) == (0, "")
    assert f"\n    aipod stream {command}" in output
    assert "--debug" in output


def test_the_other_commands_import_nothing_of_streams() -> None:
    done = python(
        "import aipod.cli.main\nprint([name for name in sys.modules if name.startswith(('nats', 'aipod.stream'))])"
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("package", ["nats", "grpc_health"])
def test_without_the_extra_the_error_says_how_to_install_it_and_the_rest_works(package: str) -> None:
    done = python(
        f"sys.modules[{package!r}] = None\n"
        "from aipod.cli.main import main\n"
        "for line in ('--help', 'stream --help', 'serve --help', 'stream run tasks.toml'):\n"
        "    try:\n"
        "        main(line.split())\n"
        "    except SystemExit as end:\n"
        "        print('code', end.code)\n"
    )
    assert [line for line in done.stdout.splitlines() if line.startswith("code")] == ["code 0"] * 3 + ["code 2"]
    assert done.stderr == f"aipod: streams need {package}, which is not here; pip install 'aipod[stream]'\n"


def test_a_command_that_there_is_not_is_one_line_and_exit_code_2(aipod: Run) -> None:
    done = aipod("stream", "rnu")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("aipod: No such command 'rnu'")

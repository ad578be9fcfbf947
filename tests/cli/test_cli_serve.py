"""``aipod serve``, and what all commands have in common."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from aipod import __version__
from aipod.rpc.client import AIClient

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[str]"]

# As of 1.0: what is served is said at the end, and what comes after that runs when the server has ended.
SCRIPT = """
import pickle
from aipod.rpc.server import serve
from desk_model import Shout

class Words:
    text = "LOUD!"

class Loud(Shout):
    def predict(self):
        return {"text": pickle.loads(pickle.dumps(Words())).text}

try:
    serve(Loud, port=70000, model_pool_size=9)
except Exception:
    print("an error")
print("the server has ended")
"""

ONE_LINE = re.compile(r"aipod: [^\n]+\n")


def client_of(server: subprocess.Popen[str]) -> AIClient:
    """A client of a server that was started with any port."""
    output: IO[Any] | None = server.stdout
    assert output is not None
    greeting = output.readline()
    assert greeting.startswith("aipod: serving "), greeting or server.communicate()[1]
    return AIClient(greeting.split()[-1].replace("[::]", "localhost"))


@pytest.mark.parametrize("target", ["desk_model:Shout", "./desk_model.py:Shout", "{desk}/desk_model.py:Shout"])
def test_a_class_is_served_from_a_module_or_a_file_until_sigterm(target: str, desk: Path, start: Start) -> None:
    server = start("serve", target.format(desk=desk), "--port", "0", "--host", "127.0.0.1")
    with client_of(server) as client:
        assert client.predict(text="hi")["text"] == "HI!"
    server.send_signal(signal.SIGTERM)
    assert server.wait(timeout=10) == 0


def test_a_flag_is_stronger_than_the_environment_and_set_gives_any_setting(desk: Path, start: Start) -> None:
    server = start(
        *("serve", "desk_model:Shout", "--port", "0", "--host", "127.0.0.1"),
        *("--pool-size", "7", "--data-path", "elsewhere", "--set", "keep_revisions=1"),
        AIPOD_LISTEN_PORT="1",
        AIPOD_MODEL_POOL_SIZE="2",
        AIPOD_KEEP_REVISIONS="5",
    )
    with client_of(server) as client:
        for _ in range(3):
            client.initialize()
        [version] = client.admin.versions()
        assert [one.live for one in version.revisions] == [True]
        assert client.admin.statistics().pool.capacity == 7
    assert (desk / "elsewhere" / "models" / "default").is_symlink()
    assert not (desk / "data").exists()


def test_the_modules_beside_a_file_are_found(desk: Path, tmp_path: Path, start: Start) -> None:
    apart = tmp_path / "apart"
    apart.mkdir()
    (apart / "its_words.py").write_text("WORD = 'neighbour'")
    (apart / "its-model.py").write_text(
        "from aipod.model import AIModelBase\nfrom its_words import WORD\n"
        "class Model(AIModelBase):\n    def predict(self):\n        return WORD\n"
    )
    with client_of(start("serve", f"{apart}/its-model.py:Model", "--port", "0", "--host", "127.0.0.1")) as client:
        assert client.predict() == "neighbour"


@pytest.mark.parametrize("target", ["script.py:Loud", "script:Loud", "nested.script:Loud", "importing:Loud"])
def test_a_script_is_stopped_at_its_own_serve_and_its_class_is_served_as_the_command_says(
    target: str, desk: Path, start: Start
) -> None:
    (desk / "script.py").write_text(SCRIPT)
    (desk / "importing.py").write_text("import script\nscript.serve(script.Loud)")
    (desk / "nested").mkdir()
    (desk / "nested" / "script.py").write_text(SCRIPT)
    server = start("serve", target, "--port", "0", "--host", "127.0.0.1", "--pool-size", "3")
    with client_of(server) as client:
        assert client.predict() == {"text": "LOUD!"}
        assert client.admin.statistics().pool.capacity == 3
    server.send_signal(signal.SIGTERM)
    assert server.communicate(timeout=10)[0] == ""
    assert server.returncode == 0


@pytest.mark.parametrize("target", ["script:Quiet", "script.py:Shout", "script.py:serve"])
def test_a_script_serves_nothing_but_what_it_serves_by_itself(
    target: str, desk: Path, refused: Callable[..., str]
) -> None:
    (desk / "script.py").write_text(SCRIPT)
    (desk / "wrong.py").write_text("from aipod.rpc.server import serve\nserve(3)")
    assert "wrong serves int by itself, not Model" in refused("serve", "wrong:Model")
    where, _, name = target.partition(":")
    assert f"{where} serves Loud by itself, not {name}; write {where}:Loud" in refused("serve", target)


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("desk_model:Nope", "desk_model has no 'Nope'; its models are: Shout, Whisper"),
        ("desk_model:NUMBER", "'NUMBER' in desk_model is no subclass of AIModelBase; its models are: Shout, Whisper"),
        ("json:loads", "'loads' in json is no subclass of AIModelBase; no class in it derives from AIModelBase"),
        ("desk_model", "'desk_model' names no class; write module:Class or path/to/file.py:Class"),
        ("nowhere:Model", "there is no module 'nowhere' in this directory or among those installed"),
        ("nowhere.py:Model", "there is no file 'nowhere.py'; write path/to/file.py:Class"),
        ("no-module:Model", "'no-module' is no module's name; write module:Class or path/to/file.py:Class"),
        ("broken:Model", "broken does not import (ZeroDivisionError: division by zero); --debug shows where"),
        ("broken.py:Model", "broken.py does not import (ZeroDivisionError: division by zero); --debug shows where"),
        ("lacking:Model", "lacking does not import (ModuleNotFoundError: No module named 'not_there'); --debug shows"),
        ("leaving:Model", "leaving does not import (SystemExit: 3); --debug shows where"),
        ("aside/json.py:Model", "json.py has the name of a module that is in use already; rename the file"),
    ],
)
def test_what_is_no_model_is_one_line_and_exit_code_2(
    target: str, sentence: str, desk: Path, refused: Callable[..., str]
) -> None:
    (desk / "broken.py").write_text("1 / 0")
    (desk / "lacking.py").write_text("import not_there")
    (desk / "leaving.py").write_text("raise SystemExit(3)")
    # In the directory of the command Python itself would take it for its own json.
    (desk / "aside").mkdir()
    (desk / "aside" / "json.py").write_text("from aipod.model import AIModelBase as Model")
    assert sentence in refused("serve", target, "--port", "0")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("serve", "desk_model:Shout", "--port", "99999"), "--port is '99999'; it must be a whole number from 0"),
        (("serve", "desk_model:Shout", "--workers", "0", "--pool-size", "x"), "--pool-size is 'x'; it must be a whole"),
        (("serve", "desk_model:Shout", "--workers", "0", "--pool-size", "x"), "; --workers is '0'; it must be a whole"),
        (("serve", "desk_model:Shout", "--set", "listen_port=x"), "listen_port is 'x'; it must be a whole number"),
        (("serve", "desk_model:Shout", "--set", "max_queu=3"), "no setting 'max_queu'; the nearest is max_queue"),
        (("serve", "desk_model:Shout", "--set", "settings=1"), "there is no setting 'settings'; "),
        (("serve", "desk_model:Shout", "--set", "self=1", "--set", "port=1"), "there is no setting 'self'; "),
        (("serve", "desk_model:Shout", "--set", "max_queue"), "'max_queue' has no '='; write NAME=VALUE"),
        (("serve", "desk_model:Shout", "--port", "1", "--set", "listen_port=2"), "listen_port is given twice"),
        (("serve",), "Missing argument 'MODULE:CLASS'. See aipod serve --help."),
        (("serve", "desk_model:Shout", "--prot", "1"), "No such option '--prot'"),
        (("srve",), "No such command 'srve'"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], sentence: str, aipod: Run
) -> None:
    done = aipod(*arguments)
    assert ONE_LINE.fullmatch(done.stderr), done.stderr
    # Older versions of click write "No such option: --prot".
    assert sentence.replace("'", "") in done.stderr.replace("'", "").replace("option: ", "option ")
    assert (done.returncode, done.stdout) == (2, "")


def test_a_port_that_is_taken_is_one_line_and_exit_code_1(aipod: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = aipod("serve", "desk_model:Shout", "--host", "127.0.0.1", "--port", str(port))
    # gRPC writes a line of its own, which no setting of ours can reach.
    lines = [line for line in done.stderr.splitlines() if "add_port.cc" not in line]
    assert len(lines) == 1
    assert re.match(rf"aipod: .*{port}", lines[0])
    assert done.returncode == 1


@pytest.mark.parametrize("place", ["before", "after"])
def test_debug_shows_the_traceback_above_the_line(place: str, desk: Path, aipod: Run) -> None:
    (desk / "broken.py").write_text("1 / 0")
    done = aipod("--debug", "serve", "broken:M") if place == "before" else aipod("serve", "broken:M", "--debug")
    assert 'broken.py", line 1' in done.stderr
    assert done.stderr.splitlines()[-1].startswith("aipod: broken does not import")
    assert done.returncode == 2


def test_debug_shows_why_a_server_does_not_start(aipod: Run) -> None:
    done = aipod("--debug", "serve", "desk_model:Shout", "--port", "no")
    assert "Traceback" in done.stderr
    assert done.returncode == 2


def test_help_teaches_with_examples_and_names_the_exit_codes(aipod: Run) -> None:
    for arguments in ((), ("--help",), ("-h",)):
        done = aipod(*arguments)
        assert done.returncode == 0
        assert not done.stderr
        assert "aipod serve model:Digits" in done.stdout
        assert re.search(r"0 .+\n +1 .+\n +2 ", done.stdout)


def test_the_help_of_serve_says_what_each_flag_means_and_which_variable_it_beats(aipod: Run) -> None:
    text = " ".join(aipod("serve", "--help").stdout.split())
    assert "--port VALUE The port to listen on; 0 picks a free one (AIPOD_LISTEN_PORT, 50051)." in text
    assert "aipod serve examples/digits/model.py:Digits --port 8080" in text


def test_version_is_that_of_the_package(aipod: Run) -> None:
    assert aipod("--version").stdout == f"aipod {__version__}\n"


def test_ctrl_c_ends_a_server_as_sigterm_does(start: Start) -> None:
    server = start("serve", "desk_model:Shout", "--port", "0", "--host", "127.0.0.1")
    client_of(server).close()
    os.kill(server.pid, signal.SIGINT)
    assert server.wait(timeout=10) == 0

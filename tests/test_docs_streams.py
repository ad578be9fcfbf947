"""What the pages about streams say is true: they are followed to the letter, and their tables are the code's.

What a page marks with ``<!-- file: NAME -->`` is written to that file. A console's block is a command and what it
prints, with ``…`` for what differs each time; commands that go on until they are told to stop run until the page ends.
All other Python is run. So what comes later on the page finds what came before.
"""

from __future__ import annotations

import ast
import asyncio
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, NamedTuple, get_args

import click
import nats
import pytest
from waiting import eventually

from aipod.cli.stream import stream
from aipod.cli.stream.status import _COLUMNS
from aipod.config.kinds import Kind
from aipod.stream.broker.connection import Connect
from aipod.stream.message import Message
from aipod.stream.statistics import COUNTERS, Statistics
from aipod.stream.status import Standing
from aipod.stream.tasks import DeadSpec, ModelSpec, Source, StreamTask, loads
from aipod.stream.tasks.decode import _DECODERS
from aipod.stream.tasks.sinkspec import OPTIONS
from aipod.stream.tasks.table import _WINDOW, ALIASES, KNOWN, _Nats
from aipod.stream.tasks.toml import _parser
from aipod.stream.windows import Closed, Windower, WindowSpec
from aipod.stream.windows.window import Reason

ROOT = Path(__file__).parent.parent
PAGES = {path.stem: path.read_text("utf-8") for path in sorted(ROOT.glob("docs/stream*.md"))}
STREAMS, OPERATIONS = PAGES["streams"], PAGES["stream-operations"]
TEXTS = {**PAGES, "README": (ROOT / "README.md").read_text("utf-8")}
# Commands that go on until they are told to stop.
LASTING = ("aipod stream dev", "aipod serve", "aipod stream run tasks.toml")
PATIENCE = 30.0

each_page = pytest.mark.parametrize("page", PAGES)
each_text = pytest.mark.parametrize("page", TEXTS)


class Block(NamedTuple):
    """A fenced block; ``file`` is where it is to be written, ``""`` for nowhere."""

    file: str
    language: str
    text: str


def blocks(page: str) -> list[Block]:
    found = re.finditer(r"^(?:<!-- file: (\S+) -->\n\n)?```(\w+)\n(.*?)^```", TEXTS[page], re.DOTALL | re.MULTILINE)
    return [Block(match[1] or "", match[2], match[3]) for match in found]


def test_the_page_goes_as_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with ExitStack() as stack:
        walk = Walk(tmp_path, stack)
        names: dict[str, Any] = {"__name__": "docs"}
        for block in blocks("streams"):
            if block.file:
                walk.write(block)
            elif block.language == "console":
                for command, expected in commands(block.text):
                    walk.do(command, expected)
            elif block.language == "python":
                exec(compile(walk.here(block.text), "streams.md", "exec"), names)
        change_consumer(walk.here("nats://localhost:4222"))


def change_consumer(url: str) -> None:
    """Do what the other page tells to do before a task has another ``ack_wait``."""
    names: dict[str, Any] = {}
    (code,) = [block.text for block in blocks("stream-operations") if block.language == "python"]
    exec(compile(code, "stream-operations.md", "exec"), names)

    async def scenario() -> tuple[float | None, int | None]:
        await names["change"](url, "SENSORS", "aipod-means")
        client = await nats.connect(url)
        config = (await client.jetstream().consumer_info("SENSORS", "aipod-means")).config
        await client.close()
        return config.ack_wait, config.max_ack_pending

    assert asyncio.run(scenario()) == (60, 100_000)


def commands(block: str) -> list[tuple[str, str]]:
    nothing, *parts = re.split(r"^\$ ", block, flags=re.MULTILINE)
    assert not nothing
    return [(command, "\n".join(lines)) for command, *lines in map(str.splitlines, parts)]


class Walk:
    """The page's terminals, in one directory, with a free port for each that the page writes."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._files: list[Block] = []
        self._instead: dict[str, str] = {}
        programs = directory / "bin"
        programs.mkdir()
        for name, arguments in (("python", ""), ("aipod", "-m aipod ")):
            (programs / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments}"$@"\n')
            (programs / name).chmod(0o755)
        self._environ = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "AIPOD_LISTEN_HOST": "127.0.0.1",
            "AIPOD_LISTEN_PORT": "0",
        }

    def here(self, text: str) -> str:
        for written, really in self._instead.items():
            text = text.replace(written, really)
        return text

    def write(self, block: Block) -> None:
        self._files.append(block)
        self._write(block)

    def _write(self, block: Block) -> None:
        (self._directory / block.file).write_text(self.here(block.text), "utf-8")

    def do(self, command: str, expected: str) -> None:
        command = self.here(command)
        if command in LASTING or command.startswith(LASTING[:2]):
            self._start(command, expected)
            return
        if " --name " in command:
            command += f" --nats {self._instead['nats://localhost:4222']}"
        pattern, said = like(self.here(expected)), ""

        def as_told() -> bool:
            nonlocal said
            done = subprocess.run(
                command, shell=True, env=self._environ, capture_output=True, text=True, timeout=PATIENCE, check=False
            )
            said = done.stdout + done.stderr
            return pattern.fullmatch(done.stdout) is not None

        try:
            eventually(as_told, PATIENCE)
        except AssertionError:
            pytest.fail(f"$ {command}\nshould print\n{expected}\nand prints\n{said}")

    def _start(self, command: str, expected: str) -> None:
        free = f"{command} --port 0" if "stream dev" in command else command
        process = self._stack.enter_context(
            subprocess.Popen(shlex.split(free), env=self._environ, stdout=subprocess.PIPE, text=True)
        )
        self._stack.callback(self._end, process)
        if not expected:
            return
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        match = re.search(r"(?:nats://)?127\.0\.0\.1:\d+", line)
        assert match is not None, line
        really = match[0]
        if really.startswith("nats://"):
            host = really.removeprefix("nats://")
            self._instead |= {
                "nats://localhost:4222": really,
                "localhost:4222": host,
                "127.0.0.1:4222": host,
            }
        else:
            self._instead |= {"localhost:50051": really, "[::]:50051": really}
        for block in self._files:
            self._write(block)
        assert line == self.here(expected)

    def _end(self, process: subprocess.Popen[str]) -> None:
        try:
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


def like(told: str) -> re.Pattern[str]:
    """Make a pattern of what is told to be printed."""
    return re.compile("".join(f"{re.escape(line)}\n" for line in told.splitlines()).replace("…", ".*"))


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the files that the page writes, for tasks that name functions or files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for block in blocks("streams"):
        if block.file:
            Path(block.file).write_text(block.text, "utf-8")
            monkeypatch.delitem(sys.modules, Path(block.file).stem, raising=False)
    Path("secret.txt").write_text("secret\n")
    return tmp_path


@each_text
def test_every_toml_is_a_task(page: str, modules: Path) -> None:
    for block in blocks(page):
        if block.language != "toml":
            continue
        if "[[task]]" in block.text:
            assert loads(block.text)
        else:
            given = _parser().loads(block.text)
            StreamTask.from_dict({**_without(ESSENTIALS, given), **given})


ESSENTIALS = {"name": "t", "subject": "in", "window": "count:2", "model": "localhost:50051", "sink": "stdout"}


def _without(table: dict[str, str], given: dict[str, Any]) -> dict[str, str]:
    own = {ALIASES.get(name, name) for name in given}
    return {name: value for name, value in table.items() if ALIASES.get(name, name) not in own}


def test_the_provider_of_the_page_gives_tasks(modules: Path) -> None:
    names: dict[str, Any] = {}
    exec(Path("plant.py").read_text("utf-8"), names)
    assert [StreamTask.from_dict(table).name for table in names["tasks"]()] == ["press", "lathe"]


@each_text
def test_every_command_line_is_one(page: str) -> None:
    shown = [line for block in blocks(page) if block.language in ("console", "sh") for line in block.text.splitlines()]
    for line in shown:
        words = shlex.split(line.removeprefix("$ "))
        if words[:2] == ["aipod", "stream"]:
            command = command_of(words[2])
            command.make_context(words[2], words[3:])


@each_text
def test_every_command_that_is_mentioned_exists(page: str) -> None:
    for text in re.findall(r"`(aipod stream [^`]+)`", " ".join(TEXTS[page].split())):
        words = shlex.split(text)
        options = {option for parameter in command_of(words[2]).params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, text


@each_page
def test_every_flag_that_is_mentioned_exists(page: str) -> None:
    commands = map(command_of, stream.list_commands(click.Context(stream)))
    options = {option for command in commands for parameter in command.params for option in parameter.opts}
    assert set(re.findall(r"`(--[a-z-]+)", TEXTS[page])) <= options


def command_of(name: str) -> click.Command:
    command = stream.get_command(click.Context(stream), name)
    assert command is not None, name
    return command


def rows(page: str, mark: str) -> Iterator[list[str]]:
    """The cells of the rows of the table behind a mark."""
    table = TEXTS[page].partition(f"<!-- {mark} -->")[2].lstrip().partition("\n\n")[0]
    lines = table.splitlines()[2:]
    assert lines, mark
    for line in lines:
        yield [cell.strip() for cell in line.strip("|").split(" | ")]


def named(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_table_of_fields_is_the_fields() -> None:
    told = [name for first, *_ in rows("streams", "fields") for name in named(first)]
    assert sorted(told) == sorted({*KNOWN, *ALIASES})


# Defaults that the page tells in words, since they hang on something else.
IN_WORDS = ("stream", "durable", "max_wait", "nats")


def test_the_defaults_of_the_fields_are_those_that_are_told() -> None:
    kinds, defaults = _fields(StreamTask, Source, ModelSpec)
    spec = {field.name: field.default for field in fields(WindowSpec)}
    for name, kind in _WINDOW.items():
        kinds[name], defaults[name] = kind, spec[name]
    defaults["columns"] = {}
    for first, default, _ in rows("streams", "fields"):
        name = ALIASES.get(named(first)[0], named(first)[0])
        if name in IN_WORDS:
            continue
        if name == "dead_letters":
            assert _value(default) == DeadSpec().subject
        elif name in ("name", "subjects", "window", "model", "sinks"):
            assert default == "required"
            assert defaults.get(name, MISSING) is MISSING
        else:
            assert kinds[name].read(_value(default)) == defaults[name], name
    assert Source(Connect(), subjects=("s",), durable="d").connect.servers == (_value(_told("fields", "nats")),)


@pytest.mark.parametrize(("mark", "cls"), [("nats", _Nats), ("dead", DeadSpec)])
def test_the_tables_in_a_task_have_the_fields_that_are_told(mark: str, cls: type) -> None:
    told = {name: default for first, default, _ in rows("streams", mark) for name in named(first)}
    assert sorted(told) == sorted(field.name for field in fields(cls))
    kinds, defaults = _fields(cls)
    if cls is _Nats:
        defaults |= {field.name: field.default for field in fields(Connect)}
    for name, default in told.items():
        if default.startswith("`"):
            assert kinds[name].read(_value(default)) == defaults[name], name
        else:
            assert not defaults[name], name


def test_the_table_of_sinks_options_is_the_options() -> None:
    told = {(kind, named(option)[0]): default for option, kind, default, _ in rows("streams", "options")}
    assert sorted(told) == sorted((kind, option) for kind, options in OPTIONS.items() for option in options)
    for (kind, option), default in told.items():
        reader, really = OPTIONS[kind][option]
        assert (reader.read(_value(default)) if default.startswith("`") else None) == really, option


def _fields(*classes: type) -> tuple[dict[str, Kind[Any]], dict[str, Any]]:
    found = [field for cls in classes for field in fields(cls)]
    return {field.name: field.metadata["kind"] for field in found}, {field.name: field.default for field in found}


def _value(cell: str) -> Any:
    """Read a default as a task's file would."""
    return _parser().loads(f"value = {cell.strip('`')}")["value"]


def _told(mark: str, name: str) -> str:
    return next(default for first, default, *_ in rows("streams", mark) if named(first) == [name])


def test_every_reason_of_a_close_is_told() -> None:
    assert sorted(name for first, *_ in rows("streams", "reasons") for name in named(first)) == sorted(get_args(Reason))


def test_every_format_is_told() -> None:
    section = STREAMS.partition("## Reading a message")[2].partition("### Keys")[0]
    told = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert told == ["decode", *_DECODERS]


def test_the_numbers_are_those_that_there_are() -> None:
    table = {mark: [name for first, *_ in rows("stream-operations", mark) for name in named(first)] for mark in MARKS}
    assert table["columns"] == list(_COLUMNS)
    assert table["counters"] == sorted(COUNTERS, key=table["counters"].index)
    assert sorted(table["histograms"]) == sorted(Statistics().as_dict()["histograms"])
    assert sorted(table["gauges"]) == sorted(gauges())


MARKS = ("columns", "counters", "gauges", "histograms")


def gauges() -> list[str]:
    """The names of the numbers that go up and down, from where they are put together."""
    texts = (path.read_text("utf-8") for path in (ROOT / "aipod/stream").glob("*.py"))
    (body,) = [found[1] for text in texts if (found := re.search(r"def _gauges\(.*?return \{(.*?)\}", text, re.DOTALL))]
    return re.findall(r'"(\w+)":', body)


def test_every_number_of_the_status_in_json_is_told() -> None:
    section = OPERATIONS.partition("## Numbers")[2].partition("<!-- counters -->")[0]
    told = set(named(re.sub(r"^```.*?^```", "", section, flags=re.DOTALL | re.MULTILINE)))
    assert set(Standing("t").document()) <= told


def test_every_line_of_the_log_is_one_that_is_written() -> None:
    texts = [*texts_of(ROOT / "aipod/stream"), *texts_of(ROOT / "aipod/cli/stream")]
    for first, _ in rows("stream-operations", "log"):
        for line in named(first):
            for piece in filter(None, (piece.strip() for piece in line.split("…"))):
                assert any(piece in text for text in texts), piece


def texts_of(directory: Path) -> Iterator[str]:
    """Every text that stands in the code, with a blank for what is filled in."""
    for path in directory.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.sub(r"%[-.\w]", " ", node.value)


# What the page draws: the times of the messages, and the windows that they fall into.
DRAWN = [
    ("count:4", range(10), [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]),
    ("sliding:4:2", range(8), [[1, 2, 3, 4], [3, 4, 5, 6], [5, 6, 7, 8]]),
    ("tumbling:10s", [2, 6, 13, 16, 18, 32], [[1, 2], [3, 4, 5], [6]]),
    ("hopping:20s:10s", [2, 6, 13, 16], [[1, 2], [1, 2, 3, 4], [3, 4]]),
    ("session:5s", [2, 4, 7, 15, 17], [[1, 2, 3], [4, 5]]),
    ("tumbling:10s, lateness 3s", [1, 4, 11, 8, 14, 6], [[1, 2, 4], [3, 5]]),
]


@pytest.mark.parametrize(("text", "times", "windows"), DRAWN, ids=[text for text, *_ in DRAWN])
def test_windows_are_cut_as_they_are_drawn(text: str, times: Sequence[float], windows: list[list[int]]) -> None:
    assert text in STREAMS
    late = "lateness" in text
    windower = Windower(WindowSpec.parse(text.partition(", ")[0], own_time=late, lateness=3.0 if late else 0.0))
    outcomes = []
    for position, time in enumerate(times, 1):
        outcomes += windower.feed(Message(position, time, "s", b"", time=time))
    outcomes += windower.advance(1000.0)
    cut = [[message.seq for message in one.window.messages] for one in outcomes if isinstance(one, Closed)]
    assert cut == windows

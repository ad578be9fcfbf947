"""``aipod stream dev``: the real command, and the real server that it starts."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nats
import pytest
from waiting import eventually

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[str]"]


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    greeting = process.stdout.readline()
    assert greeting.startswith("aipod: JetStream on nats://127.0.0.1:"), greeting or process.communicate()[1]
    return greeting.split()[3].rstrip(",")


def ask(url: str, question: Callable[[Any], Any]) -> Any:
    async def scenario() -> Any:
        client = await nats.connect(url)
        try:
            return await question(client.jetstream())
        finally:
            await client.close()

    return asyncio.run(scenario())


def answers(url: str) -> bool:
    try:
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=1).close()
    except OSError:
        return False
    return True


def test_streams_are_made_and_what_is_in_them_is_there_again_the_next_time(desk: Path, start: Start) -> None:
    arguments = ("stream", "dev", "--port", "0", "--directory", "here", "--stream", "S:a.>,b", "--stream", "R:r")
    first = start(*arguments)
    assert ask(url_of(first), lambda js: js.publish("a.b", b"1")).seq == 1
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=20) == 0
    second = start(*arguments)
    url = url_of(second)
    assert ask(url, lambda js: js.publish("b", b"2")).seq == 2
    assert ask(url, lambda js: js.find_stream_name_by_subject("r")) == "R"
    assert (desk / "here").is_dir()
    second.send_signal(signal.SIGINT)
    assert second.wait(timeout=20) == 0


def test_the_server_ends_with_a_command_that_is_killed(start: Start) -> None:
    process = start("stream", "dev", "--port", "0")
    url = url_of(process)
    process.kill()
    eventually(lambda: not answers(url))


def test_a_server_that_ends_by_itself_is_said_to_have(start: Start) -> None:
    process = start("stream", "dev", "--port", "0")
    url_of(process)
    children = [listing.read_text() for listing in Path(f"/proc/{process.pid}/task").glob("*/children")]
    [pid] = map(int, " ".join(children).split())
    os.kill(pid, signal.SIGKILL)
    assert process.wait(timeout=20) == 1
    assert process.stderr is not None
    assert "the server ended by itself" in process.stderr.read()


def test_a_second_server_in_the_same_directory_is_refused(start: Start, aipod: Run) -> None:
    process = start("stream", "dev", "--port", "0")
    url_of(process)
    done = aipod("stream", "dev", "--port", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("aipod: a server runs in this directory already")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--stream", "S"), "'S' does not read NAME:SUBJECT; write 'SENSORS:sensors.>'"),
        (("--stream", ":x"), "':x' does not read NAME:SUBJECT"),
        (("--port", "x"), "'x' is not a valid integer"),
        (("--port", "70000"), "70000 is not in the range"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], sentence: str, refused: Callable[..., str]
) -> None:
    assert sentence in refused("stream", "dev", *arguments)


def test_a_stream_that_cannot_be_made_is_said_to_be(aipod: Run) -> None:
    done = aipod("stream", "dev", "--port", "0", "--stream", "S:a b")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("aipod: the stream 'S' cannot be made: ")

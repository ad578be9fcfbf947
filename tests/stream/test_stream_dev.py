"""The embedded broker: it starts anywhere, keeps what it has, and goes with its process."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import eventually

from aipod.errors import ConfigError
from aipod.stream.broker.connection import Connect, connect
from aipod.stream.dev import DevServer, find_binary


def _count(url: str) -> int:
    async def main() -> int:
        conn = await connect(Connect(servers=(url,)), wait=5)
        try:
            return int((await conn.api("STREAM.INFO.kept"))["state"]["messages"])
        finally:
            await conn.close()

    return asyncio.run(main())


def _store(url: str) -> None:
    async def main() -> None:
        conn = await connect(Connect(servers=(url,)), wait=5)
        await conn.js.add_stream(name="kept", subjects=["kept"])
        for number in range(10):
            await conn.js.publish("kept", b"%d" % number)
        await conn.close()

    asyncio.run(main())


def test_the_binary_of_the_package_is_found() -> None:
    assert os.access(find_binary(), os.X_OK)


def test_what_it_acknowledged_survives_a_crash_on_the_same_port(tmp_path: Path) -> None:
    with DevServer(tmp_path) as server:
        url = server.url
        _store(url)
        server.kill()
        assert not server.running
        assert server.start() == url
        assert _count(url) == 10
        server.restart()
        assert _count(url) == 10
    assert not server.running


def test_a_program_that_has_seeded_its_dice_does_not_choose_the_port_by_them(tmp_path: Path) -> None:
    state = random.getstate()
    with DevServer(tmp_path):
        assert random.getstate() == state


def test_two_servers_in_one_directory_are_refused(tmp_path: Path) -> None:
    with DevServer(tmp_path), pytest.raises(ConfigError, match="runs in this directory"):
        DevServer(tmp_path).start()
    with DevServer(tmp_path):  # the lock goes with its server
        pass


def test_a_taken_port_is_named_and_a_foreign_listener_is_not_taken_for_the_server(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} is taken"):
            DevServer(tmp_path, port=port).start()


@pytest.mark.parametrize("port", [-1, 70_000])
def test_a_port_that_cannot_be_is_refused(tmp_path: Path, port: int) -> None:
    with pytest.raises(ConfigError, match="is no port"):
        DevServer(tmp_path, port=port).start()


def test_settings_that_the_server_refuses_do_not_hang(tmp_path: Path) -> None:
    server = DevServer(tmp_path, more={"authorization": {"no_such_thing": True}, "max_payload": "much"})
    with pytest.raises(ConfigError, match=r"server\.log") as caught:
        server.start()
    assert str(tmp_path) not in str(caught.value)
    assert not server.running


def test_start_and_stop_again_are_fine(tmp_path: Path) -> None:
    server = DevServer(tmp_path)
    server.stop()
    assert server.start() == server.start()
    server.stop()
    server.stop()
    assert server.wait(0)


def test_a_server_that_is_stopped_by_a_signal_still_ends(tmp_path: Path) -> None:
    server = DevServer(tmp_path)
    server.start()
    os.kill(server.pid, signal.SIGSTOP)
    server.stop()
    assert not server.running


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_it_goes_with_a_process_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, threading; from aipod.stream.dev import DevServer\n"
        "server = DevServer(sys.argv[1])\n"
        # the thread that starts it ends, and the server must not end with that
        "thread = threading.Thread(target=server.start); thread.start(); thread.join()\n"
        "print(server.pid, server.running, flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        pid, running = process.stdout.readline().split()
        assert running == "True"
        os.kill(int(pid), 0)
        process.kill()
    eventually(lambda: not _alive(int(pid)))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

"""The connection: it is bounded, it comes back by itself, and it says why when it cannot."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from brokers import Nats, until
from nats.errors import ConnectionClosedError

from aipod.errors import ConfigError, Unauthenticated, Unavailable
from aipod.stream.broker.connection import Connect, connect
from aipod.stream.broker.requests import Requests
from aipod.stream.dev import DevServer
from aipod.stream.errors import Refused


def test_nobody_there_is_said_in_time_and_without_a_try_left_behind() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"nats://127.0.0.1:{free.getsockname()[1]}"

    async def main() -> None:
        with pytest.raises(Unavailable, match=r"no broker answers at 127\.0\.0\.1"):
            await asyncio.wait_for(connect(Connect(servers=(url, url)), wait=0), 5)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_broker_that_goes_while_it_is_taken_into_use_is_away(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async def gone(self: Requests) -> None:
            raise ConnectionClosedError

        with monkeypatch.context() as patch:
            patch.setattr(Requests, "open", gone)
            with pytest.raises(Unavailable, match="connecting"):
                await connect(Connect(servers=(nats.url,)), wait=5)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_listener_that_says_nothing_is_given_up() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            url = f"nats://127.0.0.1:{mute.getsockname()[1]}"
            with pytest.raises(Unavailable):
                await asyncio.wait_for(connect(Connect(servers=(url,)), wait=0), 10)

    asyncio.run(main())


def test_connecting_can_be_cancelled_and_waits_for_a_broker_that_comes_later(tmp_path: Path) -> None:
    server = DevServer(tmp_path)
    url = server.start()
    server.stop()

    async def main() -> None:
        given_up = asyncio.ensure_future(connect(Connect(servers=(url,))))
        patient = asyncio.ensure_future(connect(Connect(servers=(url,))))
        await asyncio.sleep(0.3)
        given_up.cancel()
        await asyncio.wait({given_up})
        assert given_up.cancelled()
        await asyncio.to_thread(server.start)
        conn = await asyncio.wait_for(patient, 10)
        assert conn.connected and conn.generation == 1
        await conn.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    try:
        asyncio.run(main())
    finally:
        server.stop()


def test_it_tells_when_the_broker_goes_and_comes_back(own_nats: Nats) -> None:
    async def main() -> None:
        changes: list[bool] = []
        conn = await connect(Connect(servers=(own_nats.url,)), wait=5, on_change=changes.append)
        for generation in (2, 3):
            own_nats.server.kill()
            await until(lambda: not conn.connected)
            with pytest.raises(Unavailable):
                await conn.api("INFO", timeout=0.2)
            await asyncio.to_thread(own_nats.server.start)
            await until(lambda generation=generation: conn.generation == generation)
            assert (await conn.api("INFO"))["streams"] == 0
        assert changes == [True, False, True, False, True]
        await conn.close()
        assert not conn.connected

    asyncio.run(main())


def test_whoever_waits_for_an_answer_is_told_at_once_that_the_broker_is_gone(own_nats: Nats) -> None:
    async def main() -> None:
        conn = await connect(Connect(servers=(own_nats.url,)), wait=5)
        os.kill(own_nats.server.pid, signal.SIGSTOP)
        asking = asyncio.ensure_future(conn.api("INFO", timeout=600))
        own_nats.server.kill()
        with suppress(Unavailable):  # the answer may have been faster than the stop
            await asyncio.wait_for(asking, 10)
        await conn.close()

    asyncio.run(main())


def test_a_broker_without_jetstream_is_said(tmp_path: Path) -> None:
    with DevServer(tmp_path, more={"jetstream": False}) as server:

        async def main() -> None:
            conn = await connect(Connect(servers=(server.url,)), wait=5)
            with pytest.raises(Unavailable, match="switched on"):
                await conn.api("INFO")
            await conn.close()

        asyncio.run(main())


def test_closing_while_the_broker_is_away_is_quick_and_leaves_nothing(own_nats: Nats) -> None:
    async def main() -> None:
        conn = await connect(Connect(servers=(own_nats.url,)), wait=5)
        await conn.nc.subscribe("some.thing")
        own_nats.server.kill()
        await until(lambda: not conn.connected)
        await asyncio.wait_for(conn.close(), 10)
        await conn.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_tries_that_break_off_leave_no_socket_open(own_nats: Nats) -> None:
    taken, left = 0, 0

    async def mumble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken, left
        taken += 1
        writer.write(b"neither a broker, nor silent\r\n")
        with suppress(ConnectionError):
            await reader.read()
        left += 1
        writer.close()

    async def main() -> None:
        conn = await connect(Connect(servers=(own_nats.url,)), wait=5)
        own_nats.server.kill()
        async with await asyncio.start_server(mumble, "127.0.0.1", own_nats.server.port):
            await until(lambda: taken > 2)
            await until(lambda: left > 1)
            await conn.close()
            await until(lambda: left == taken)
        gc.collect()  # what is found open by it is an error

    asyncio.run(main())


def test_a_close_that_was_cut_short_can_be_made_up_for(nats: Nats) -> None:
    async def main() -> None:
        conn = await connect(Connect(servers=(nats.url,)), wait=5)
        short = asyncio.ensure_future(conn.nc.close())
        await asyncio.sleep(0)
        short.cancel()
        await asyncio.wait({short})
        await conn.close()
        del conn
        gc.collect()

    asyncio.run(main())
    gc.collect()  # what is found open by it is an error


def test_a_broker_that_froze_is_noticed_and_closing_does_not_wait_for_it(own_nats: Nats) -> None:
    async def main() -> None:
        conn = await connect(Connect(servers=(own_nats.url,)), wait=5)
        os.kill(own_nats.server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(Unavailable):
                while True:  # it takes a moment until all of it stands still
                    await conn.api("INFO", timeout=0.2)
            await asyncio.wait_for(conn.close(), 10)
        finally:
            os.kill(own_nats.server.pid, signal.SIGCONT)

    asyncio.run(main())


def test_whoever_the_broker_does_not_know_is_told_at_once(tmp_path: Path) -> None:
    more = {"authorization": {"users": [{"user": "me", "password": "right"}]}}
    with DevServer(tmp_path, more=more) as server:

        async def main() -> None:
            for wrong in (Connect(servers=(server.url,)), Connect(servers=(server.url,), user="me", password="wrong")):
                with pytest.raises(Unauthenticated, match="let us in"):
                    await asyncio.wait_for(connect(wrong), 5)
            conn = await connect(Connect(servers=(server.url,), user="me", password="right"), wait=5)
            await conn.close()

        asyncio.run(main())


def _reload(server: DevServer, more: dict[str, object]) -> None:
    file = server.directory / "server.conf"
    file.write_text(json.dumps({**json.loads(file.read_text()), **more}))
    os.kill(server.pid, signal.SIGHUP)


def test_a_client_that_was_shut_out_is_back_once_it_is_let_in_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def knows(*names: str) -> dict[str, object]:
        return {"authorization": {"users": [{"user": name, "password": "x"} for name in names]}}

    with DevServer(tmp_path, more=knows("me", "you")) as server:

        async def main() -> None:
            conn = await connect(Connect(servers=(server.url,), user="me", password="x"), wait=5)
            _reload(server, knows("you"))
            await until(lambda: "Authorization Violation" in caplog.text)
            assert not conn.connected
            _reload(server, knows("me"))
            await until(lambda: conn.connected)
            assert "memory" in await conn.api("INFO")
            await conn.close()

        asyncio.run(main())


def test_a_client_that_gave_up_for_good_is_replaced(own_nats: Nats) -> None:
    async def main() -> None:
        conn = await connect(Connect(servers=(own_nats.url,)), wait=5)
        first = conn.nc
        # The client is not told of the new limit, and takes what the broker says of its breach as the end of all.
        _reload(own_nats.server, {"max_payload": 1000})
        await until(lambda: "Reloaded: max_payload" in (own_nats.server.directory / "server.log").read_text(), 5)
        await conn.nc.publish("some.thing", bytes(2000))
        await until(lambda: first.is_closed)
        await until(lambda: conn.connected)
        assert conn.nc is not first and conn.generation == 2
        assert "memory" in await conn.api("INFO")
        await conn.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_files_that_make_no_sense_are_a_matter_of_the_settings(nats: Nats, tmp_path: Path) -> None:
    file = tmp_path / "seed"
    file.write_text("nonsense")

    async def main() -> None:
        for spec in (
            Connect(servers=(nats.url,), nkey_seed=str(file)),
            Connect(servers=(nats.url.replace("nats:", "tls:"),), tls_ca=str(file)),
        ):
            with pytest.raises(ConfigError) as caught:
                await asyncio.wait_for(connect(spec, wait=0), 5)
            assert str(tmp_path) not in str(caught.value)

    asyncio.run(main())


def test_an_answer_that_is_an_error_keeps_its_numbers(nats: Nats) -> None:
    async def main() -> None:
        conn = await connect(Connect(servers=(nats.url,)), wait=5)
        with pytest.raises(Refused) as caught:
            await conn.api(f"STREAM.INFO.{nats.unique()}")
        assert (caught.value.code, caught.value.err_code) == (404, 10059)
        await conn.close()

    asyncio.run(main())

"""All ways to say who one is to a broker that asks: the right one gets messages, a wrong one is told, none is shown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from brokers import Nats, until
from certificates import Authority
from intakes import Numbers, all_acknowledged, take, values_of
from stream_identities import Key, Operator

from aipod.errors import AipodError, ConfigError, Unauthenticated
from aipod.stream.broker.connection import Connect, connect
from aipod.stream.dev import DevServer
from aipod.stream.tasks import StreamTask

PASSWORD, TOKEN = "correct-horse", "battery-staple"
LET_IN = "does not let us in; give it the right user, token, creds or nkey_seed"


@dataclass(frozen=True)
class Way:
    """One way to ask who somebody is.

    Attributes:
        server: What the server is told.
        proof: What gets one in.
        secrets: What nobody may see of that.
        url: The address, with the server's in place of ``{}``.
    """

    server: dict[str, Any]
    proof: dict[str, Any]
    secrets: tuple[str, ...] = ()
    url: str = "nats://{}"

    def servers(self, server: DevServer) -> tuple[str, ...]:
        return (self.url.format(server.url.partition("//")[2]),)


@dataclass(frozen=True)
class Identities:
    """Files of everybody; ``ways`` has those that are right."""

    ways: dict[str, Way]
    wrong: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Identities:
    directory = tmp_path_factory.mktemp("identities")

    def file(name: str, text: str) -> str:
        (directory / name).write_text(text)
        return str(directory / name)

    ours, theirs = Authority(directory), Authority(directory, "strangers")
    server = dict(zip(("cert_file", "key_file"), ours.sign("server"), strict=True))
    elsewhere = dict(zip(("cert_file", "key_file"), ours.sign("elsewhere", "DNS:elsewhere.example"), strict=True))
    mutual = {**server, "ca_file": ours.certificate, "verify": True}
    trust = {"tls_ca": ours.certificate}
    client = dict(zip(("tls_cert", "tls_key"), ours.sign("client"), strict=True))
    stranger = dict(zip(("tls_cert", "tls_key"), theirs.sign("stranger"), strict=True))
    user, operator = Key(), Operator()
    seed = {"nkey_seed": file("seed", user.seed)}
    creds = operator.creds()
    named = {"authorization": {"users": [{"user": "me", "password": PASSWORD}]}}
    known = {"authorization": {"users": [{"nkey": user.public}]}}
    return Identities(
        ways={
            "password": Way(named, {"user": "me", "password": PASSWORD}, (PASSWORD,)),
            "url": Way(named, {}, (PASSWORD,), url=f"nats://me:{PASSWORD}@{{}}"),
            "token": Way({"authorization": {"token": TOKEN}}, {"token": TOKEN}, (TOKEN,)),
            "nkey": Way(known, seed, (user.seed,)),
            "creds": Way(operator.settings(), {"creds": file("creds", creds)}, (*creds.split("\n")[1::3],)),
            "tls": Way({"tls": server}, trust),
            "elsewhere": Way({"tls": elsewhere}, trust),
            "mutual": Way({"tls": mutual}, {**trust, **client}),
            "all": Way({"tls": mutual, **known}, {**trust, **client, **seed}, (user.seed,), "tls://{}"),
        },
        wrong={
            "nothing": {},
            "password": {"user": "me", "password": "wrong-horse"},
            "token": {"token": "wrong-staple"},
            "nkey": {"nkey_seed": file("other_seed", Key().seed)},
            "creds": {"creds": file("other_creds", Operator().creds())},
            "authority": {"tls_ca": theirs.certificate},
            "trust": trust,
            "certificate": {**trust, **stranger},
            "key": {**trust, "tls_cert": client["tls_cert"], "tls_key": stranger["tls_key"]},
            "all but nkey": {**trust, **client},
        },
    )


def see_none(secrets: tuple[str, ...], *texts: object) -> None:
    for text in map(str, texts):
        assert not [secret for secret in secrets if secret in text]


def run(server: DevServer, spec: Connect, body: Callable[[Numbers], Awaitable[None]]) -> None:
    async def main() -> None:
        conn = await connect(spec, wait=10)
        nats = Nats(server)
        numbers = Numbers(conn, nats, nats.unique("numbers"))
        try:
            await conn.js.add_stream(name=numbers.name, subjects=[f"{numbers.name}.>"])
            await body(numbers)
        finally:
            await numbers.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


@pytest.mark.parametrize("name", ["password", "url", "token", "nkey", "creds", "tls", "mutual", "all"])
def test_an_intake_takes_messages_from_a_broker_that_asks_and_again_once_that_was_away(
    name: str, identities: Identities, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    way = identities.ways[name]
    with DevServer(tmp_path / "broker", more=way.server) as server:
        spec = Connect(way.servers(server), **way.proof)

        async def body(numbers: Numbers) -> None:
            intake = await numbers.intake()
            await numbers.publish(100)
            assert values_of(await take(intake, 100)) == [*range(1, 101)]
            await asyncio.to_thread(server.restart)
            await until(lambda: numbers.conn.generation > 1)
            await numbers.publish(10)
            assert values_of(await take(intake, 10)) == [*range(101, 111)]
            intake.done(range(1, 111))
            await all_acknowledged(numbers, intake)
            see_none(way.secrets, repr(numbers.conn), repr(intake))

        run(server, spec, body)
    see_none(way.secrets, caplog.text, repr(spec))


@pytest.mark.parametrize(
    ("name", "wrong", "sentence"),
    [
        ("password", "nothing", LET_IN),
        ("password", "password", LET_IN),
        ("password", "token", LET_IN),
        ("password", "nkey", LET_IN),
        ("token", "nothing", LET_IN),
        ("token", "token", LET_IN),
        ("nkey", "nothing", LET_IN),
        ("nkey", "nkey", LET_IN),
        ("creds", "nothing", LET_IN),
        ("creds", "creds", LET_IN),
        ("creds", "nkey", LET_IN),
        ("all", "all but nkey", LET_IN),
        ("tls", "nothing", "certificate is not to be trusted: .*see tls_ca"),
        ("tls", "authority", "certificate is not to be trusted: .*see tls_ca"),
        ("elsewhere", "trust", "certificate is not to be trusted: .*not valid for '127.0.0.1'"),
        ("mutual", "key", "tls_cert and tls_key: they cannot be used"),
        ("mutual", "trust", "refuses the TLS handshake: .*see tls_cert and tls_key"),
        ("mutual", "certificate", "refuses the TLS handshake: .*see tls_cert and tls_key"),
        ("password", "trust", "has no TLS, so nothing was said to it"),
    ],
)
def test_whoever_shows_something_wrong_is_told_and_waits_for_nothing(
    name: str, wrong: str, sentence: str, identities: Identities, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    way, proof = identities.ways[name], identities.wrong[wrong]
    with DevServer(tmp_path / "broker", more=way.server) as server:

        async def main() -> AipodError:
            with pytest.raises((ConfigError, Unauthenticated), match=sentence) as caught:
                # Who waits for ever for a broker does not wait for another opinion of it.
                await asyncio.wait_for(connect(Connect(Way({}, {}).servers(server), **proof)), 10)
            assert asyncio.all_tasks() == {asyncio.current_task()}
            return caught.value

        error = asyncio.run(main())
    files = [Path(path).read_text() for path in proof.values() if path.startswith("/")]
    secrets = ["wrong-horse", "wrong-staple", *(line for text in files for line in text.split() if len(line) > 40)]
    see_none((*secrets, str(tmp_path.parent)), error, repr(error), caplog.text)


@pytest.mark.parametrize("name", ["password", "url", "token"])
def test_a_task_shows_no_secret_of_its_broker(name: str, identities: Identities) -> None:
    way = identities.ways[name]
    proof = {"servers": way.url.format("127.0.0.1:4222"), **way.proof}
    table = {"subjects": "a.>", "window": "count:2", "model": "localhost:1", "sinks": "stdout", "durable": "d"}
    task = StreamTask.from_dict({"name": "shown", "nats": proof, **table})
    see_none(way.secrets, repr(task), str(task), repr(task.source), repr(task.source.connect))
    with pytest.raises(ConfigError) as caught:
        StreamTask.from_dict({"name": "shown", "nats": {**proof, "creds": "nowhere"}, **table, "window": "wrong"})
    see_none(way.secrets, caught.value, repr(caught.value))


def test_nothing_is_said_in_the_clear_to_one_who_takes_the_broker_s_place(identities: Identities) -> None:
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Whoever was told no may have come once more, and be listened to when the test ends.
        with contextlib.closing(writer):
            writer.write(
                b'INFO {"server_id": "x", "version": "2.11.0", "auth_required": true, "max_payload": 1000}\r\n'
            )
            heard.append(await reader.read())

    async def main() -> None:
        async with await asyncio.start_server(listen, "127.0.0.1", 0) as impostor:
            port = impostor.sockets[0].getsockname()[1]
            for scheme, proof in (("nats", identities.wrong["trust"]), ("tls", {})):
                spec = Connect((f"{scheme}://127.0.0.1:{port}",), user="me", password=PASSWORD, **proof)
                with pytest.raises(ConfigError, match="has no TLS"):
                    await asyncio.wait_for(connect(spec), 10)
            await until(lambda: len(heard) > 1)

    asyncio.run(main())
    assert not any(heard)


@pytest.mark.parametrize(
    ("name", "text"),
    [("creds", "nonsense"), ("creds", "-----BEGIN NATS USER JWT-----\nx.y.z\n"), ("creds", ""), ("nkey_seed", "SUAM")],
)
def test_a_file_of_something_else_is_named_by_its_setting(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(text)
    proof: dict[str, Any] = {name: str(tmp_path / "file")}
    with pytest.raises(ConfigError, match=f"{name}: the file does not have") as caught:
        Connect(**proof).options()
    see_none((str(tmp_path),), caught.value)


@pytest.mark.parametrize(("way", "package"), [("nkey", "nkeys"), ("creds", "nkeys"), ("web", "aiohttp")])
def test_a_package_that_is_not_there_is_named(
    way: str, package: str, identities: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = Connect(("ws://localhost:80",)) if way == "web" else Connect(**identities.wrong[way])
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"pip install nats-py\[{package}\]"):
        spec.options()


def test_a_proof_that_is_replaced_while_the_broker_is_away_is_read_anew_and_may_be_half_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old, new, file = Key(), Key(), tmp_path / "seed"
    file.write_text(old.seed)
    first = DevServer(tmp_path / "broker", more={"authorization": {"users": [{"nkey": old.public}]}})
    first.start()
    second = DevServer(first.directory, first.port, {"authorization": {"users": [{"nkey": new.public}]}})

    async def main() -> None:
        conn = await connect(Connect((first.url,), nkey_seed=str(file)), wait=10)
        await asyncio.to_thread(first.stop)
        file.write_text(new.seed[:20])
        await asyncio.to_thread(second.start)
        await until(lambda: "nkey_seed: the file does not have" in caplog.text)
        file.write_text(new.seed)
        await until(lambda: conn.connected)
        assert "memory" in await conn.api("INFO")
        await conn.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    try:
        asyncio.run(main())
    finally:
        first.stop()
        second.stop()
    see_none((old.seed, new.seed, new.seed[:20]), caplog.text)

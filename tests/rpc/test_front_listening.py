"""Where a front listens, whom it lets in, and how it stops, whichever front it is."""

from __future__ import annotations

import socket
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from certificates import Authority
from front_world import CALL, MIB, NOTHING, STREAM, Ear, Guest, echo, failure, fronted, status_of
from waiting import BOUND, eventually

from aipod.errors import Unavailable
from aipod.rpc.front import FrontOptions, RawCall, ServerCredentialsSpec, open_front

OPTIONS = FrontOptions({CALL: None}, MIB, {STREAM: Ear})


def front_of(kind: Any, handler: Any = echo) -> Any:
    return open_front(kind, handler, OPTIONS)


class TestAddresses:
    def test_one_front_listens_on_several(self, front: str, tmp_path: Path) -> None:
        path = tmp_path / "socket"
        server = front_of(front)
        listening = server.start("127.0.0.1:0", "[::1]:0", f"unix:{path}", f"unix-abstract:{path}")
        try:
            assert [address.rpartition(":")[0] for address in listening] == [
                "127.0.0.1",
                "[::1]",
                "unix",
                "unix-abstract",
            ]
            assert len({address.rpartition(":")[2] for address in listening[:2]} - {"0"}) == 2
            for address in listening:
                with Guest(address) as guest:
                    assert guest.call(address.encode()) == address.encode()
        finally:
            server.stop(0.0)
        assert server.counters() == NOTHING

    def test_on_a_unix_socket_the_peer_is_one(self, front: str, tmp_path: Path) -> None:
        def who(raw: RawCall) -> None:
            raw.reply(raw.peer.encode())

        with fronted(front, who, address=f"unix:{tmp_path / 'socket'}") as (_, address), Guest(address) as guest:
            assert guest.call().startswith(b"unix:")

    def test_a_port_that_is_taken_is_named_and_the_others_are_free_again(self, front: str, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as rival, socket.create_server(("127.0.0.1", 0)) as passing:
            taken, free = rival.getsockname()[1], passing.getsockname()[1]
            passing.close()
            with pytest.raises(Unavailable, match=rf"127\.0\.0\.1:{taken}.*the port is taken"):
                front_of(front).start(f"127.0.0.1:{free}", f"127.0.0.1:{taken}")

            def can_be_had() -> bool:
                try:
                    with socket.create_server(("127.0.0.1", free)):
                        return True
                except OSError:
                    return False

            eventually(can_be_had)

    @pytest.mark.parametrize("address", ["127.0.0.1:99999", "no.such.host.invalid:0", "", "127.0.0.1", "203.0.113.1:0"])
    def test_an_address_that_is_none_is_refused(self, front: str, address: str) -> None:
        server = front_of(front)
        with pytest.raises(Unavailable, match="nothing can listen"):
            server.start(address)
        server.stop(0.0)

    def test_a_front_that_did_not_start_stops_all_the_same(self, front: str) -> None:
        server = front_of(front)
        server.stop(0.0)
        assert server.counters() == NOTHING

    @pytest.mark.parametrize("scheme", ["unix", "unix-abstract"])
    def test_a_unix_socket_is_not_taken_from_another_server(self, front: str, scheme: str, tmp_path: Path) -> None:
        with fronted(front, address=f"{scheme}:{tmp_path / 'socket'}") as (_, address), Guest(address) as guest:
            with pytest.raises(Unavailable, match="another server has it"):
                front_of(front).start(address)
            assert guest.call(b"still here") == b"still here"

    def test_a_unix_socket_that_a_killed_server_left_is_used_again(self, front: str, tmp_path: Path) -> None:
        path = tmp_path / "socket"
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(str(path))
        assert stat.S_ISSOCK(path.stat().st_mode)
        with fronted(front, address=f"unix:{path}") as (_, address), Guest(address) as guest:
            assert guest.call(b"x") == b"x"
        assert not path.exists()

    def test_a_path_that_is_too_long_is_refused_with_the_reason(self, front: str, tmp_path: Path) -> None:
        with pytest.raises(Unavailable, match="too long"):
            front_of(front).start(f"unix:{tmp_path}/{'x' * 200}")


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Key and certificate of a server, of a client, of a stranger, and who vouches for the first two."""
    directory = tmp_path_factory.mktemp("papers")
    ours, theirs = Authority(directory), Authority(directory, "strangers")

    def read(authority: Authority, name: str, *alternative: str) -> tuple[bytes, bytes]:
        certificate, key = (Path(file).read_bytes() for file in authority.sign(name, *alternative))
        return key, certificate

    return {
        "ours": Path(ours.certificate).read_bytes(),
        "server": read(ours, "server"),
        "client": read(ours, "client", "DNS:client.example"),
        "stranger": read(theirs, "stranger"),
    }


class TestEncryption:
    def guest(self, address: str, papers: dict[str, Any], who: str | None = None) -> Guest:
        key, certificate = papers[who] if who else (None, None)
        return Guest(address, grpc.ssl_channel_credentials(papers["ours"], key, certificate))

    def test_calls_and_streams_go_through_it(self, front: str, papers: dict[str, Any]) -> None:
        spec = ServerCredentialsSpec(*papers["server"])
        with fronted(front, credentials=spec) as (_, address), self.guest(address, papers) as guest:
            assert guest.call(b"x") == b"x"
            assert guest.open(timeout=BOUND).initial_metadata() is not None

    def test_who_does_not_speak_it_is_not_let_in(self, front: str, papers: dict[str, Any]) -> None:
        spec = ServerCredentialsSpec(*papers["server"])
        with fronted(front, credentials=spec) as (_, address), Guest(address) as plain:
            assert status_of(plain.call) == "UNAVAILABLE"
            with self.guest(address, papers) as guest:
                assert guest.call(b"x") == b"x"

    def test_a_client_shows_its_certificate_and_is_known_by_it(self, front: str, papers: dict[str, Any]) -> None:
        def who(raw: RawCall) -> None:
            raw.reply(",".join(raw.identities).encode())

        spec = ServerCredentialsSpec(*papers["server"], papers["ours"], require_client_certificate=True)
        with fronted(front, who, credentials=spec) as (_, address):
            with self.guest(address, papers, "client") as guest:
                assert guest.call() == b"client.example"
            for other in (None, "stranger"):
                with self.guest(address, papers, other) as guest:
                    assert status_of(guest.call, timeout=2.0) in ("UNAVAILABLE", "DEADLINE_EXCEEDED")

    @pytest.mark.parametrize("wrong", ["the key of another", "no key", "no certificate"])
    def test_papers_that_do_not_belong_together_are_refused(
        self, front: str, papers: dict[str, Any], wrong: str
    ) -> None:
        key, certificate = papers["server"]
        spec = {
            "the key of another": ServerCredentialsSpec(papers["client"][0], certificate),
            "no key": ServerCredentialsSpec(b"nonsense", certificate),
            "no certificate": ServerCredentialsSpec(key, b"nonsense"),
        }[wrong]
        with pytest.raises(Unavailable, match="certificate"):
            open_front(front, echo, FrontOptions({CALL: None}, MIB, credentials=spec)).start("127.0.0.1:0")  # type: ignore[arg-type]

    def test_a_key_does_not_show_where_papers_are_printed(self, front: str, papers: dict[str, Any]) -> None:
        assert "PRIVATE" not in repr(ServerCredentialsSpec(*papers["server"]))


@contextmanager
def metered(address: str) -> Iterator[tuple[str, list[int]]]:
    """A way to an address that counts the bytes which come back."""
    host, _, port = address.rpartition(":")
    count = [0]
    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as entrance:

        def carry(source: socket.socket, target: socket.socket, counts: bool) -> None:
            with suppress(OSError):
                while data := source.recv(65536):
                    count[0] += len(data) * counts
                    target.sendall(data)
                target.shutdown(socket.SHUT_WR)

        def open_way() -> None:
            inner, outer = entrance.accept()[0], socket.create_connection((host, int(port)))
            ways = [threading.Thread(target=carry, args=way) for way in ((inner, outer, False), (outer, inner, True))]
            for end in (inner, outer):
                stack.callback(end.close)
            for way in ways:
                stack.callback(way.join)
                way.start()

        opening = threading.Thread(target=open_way)
        opening.start()
        yield f"127.0.0.1:{entrance.getsockname()[1]}", count
        opening.join()


def test_what_is_sent_is_compressed_where_that_is_asked_for(front: str) -> None:
    sizes = {}
    for compression in (None, "gzip"):
        with fronted(front, compression=compression) as (_, address), metered(address) as (way, count):
            with Guest(way) as guest:
                assert guest.call(bytes(500_000)) == bytes(500_000)
            sizes[compression] = count[0]
    assert sizes[None] > 500_000
    assert sizes["gzip"] < 50_000


class TestStopping:
    def test_a_call_that_runs_is_answered_and_a_new_one_refused(self, front: str) -> None:
        kept: list[Any] = []
        server = front_of(front, kept.append)
        [address] = server.start("127.0.0.1:0")
        with Guest(address) as guest, ThreadPoolExecutor(1) as threads:
            running = guest.begin()
            eventually(lambda: kept)
            stopping = threads.submit(server.stop, BOUND)
            with Guest(address) as newcomer:
                eventually(lambda: failure_of(newcomer) == "UNAVAILABLE")
            assert not stopping.done()
            kept[0].reply(b"in time")
            assert running.result(BOUND) == b"in time"
            stopping.result(BOUND)
        assert server.counters() == NOTHING

    def test_what_does_not_end_in_time_is_cut_off(self, front: str) -> None:
        kept: list[Any] = []
        server = front_of(front, kept.append)
        [address] = server.start("127.0.0.1:0")
        with Guest(address) as guest:
            stuck, stream = guest.begin(), guest.open(b"x")
            eventually(lambda: kept and server.counters()["streams"])
            gone = threading.Event()
            kept[0].on_gone(gone.set)
            server.stop(0.1)
            assert gone.is_set()
            assert failure(stuck.result, BOUND).code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
            assert failure(list, stream).code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
            kept[0].reply(b"too late")
        assert server.counters() == NOTHING

    def test_it_waits_for_nobody_when_nothing_runs(self, front: str) -> None:
        server = front_of(front)
        [address] = server.start("127.0.0.1:0")
        with Guest(address) as guest:
            guest.call()
            before = time.monotonic()
            server.stop(BOUND * 10)
            assert time.monotonic() - before < BOUND

    def test_it_stops_once(self, front: str) -> None:
        server = front_of(front)
        server.start("127.0.0.1:0")
        for _ in range(3):
            server.stop(0.0)

    def test_answers_that_come_while_it_stops_and_afterwards_harm_nothing(self, front: str) -> None:
        for _ in range(10):
            with ThreadPoolExecutor(4) as threads:
                answered: list[Any] = []

                def handle(raw: RawCall, answered: Any = answered, threads: Any = threads) -> None:
                    answered.append(raw)
                    if len(answered) % 3:
                        threads.submit(raw.reply, b"x")

                server = front_of(front, handle)
                [address] = server.start("127.0.0.1:0")
                with Guest(address) as guest:
                    for _ in range(200):
                        guest.begin()
                    eventually(lambda answered=answered: len(answered) > 20)
                    server.stop(0.0)
                    for raw in answered:
                        threads.submit(raw.fail, "INTERNAL", "too late", ())
            assert server.counters() == NOTHING


def failure_of(guest: Guest) -> str:
    try:
        guest.call(timeout=0.5)
    except grpc.RpcError as error:
        return str(error.code().name)
    return ""

"""What strangers may do at the door: nothing that costs anybody else anything."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from shm_world import MIB, SIZE, door, is_over, knock, lends, send_memory, serves, talks
from waiting import eventually

from aipod.errors import Unavailable
from aipod.shm import Invitation, connect
from aipod.shm.link import Greeting
from aipod.shm.region import GRAIN, PAGE, Region

ROOT = Path(__file__).parent.parent.parent
NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.mark.parametrize("size", [0, 1, GRAIN - 1, -1, 2**64])
def test_an_invitation_to_nothing_is_no_shared_memory(listener, size):
    with listener.ticket() as ticket, pytest.raises(Unavailable):
        connect(ticket.invitation._replace(max_bytes=size, token=b""), SIZE)
    assert serves(listener)


def test_a_wrong_token_gets_nothing(listener):
    with listener.ticket() as ticket:
        for token in (bytes(32), ticket.invitation.token[:-1] + b"\0", b""):
            with pytest.raises(Unavailable):
                connect(ticket.invitation._replace(token=token), SIZE)
        assert ticket.link is None
    assert serves(listener)


def test_a_ticket_is_good_for_one(listener):
    with listener.ticket() as ticket, connect(ticket.invitation, SIZE) as link:
        with pytest.raises(Unavailable):
            connect(ticket.invitation, SIZE)
        assert talks(link, ticket.link)


def test_a_ticket_that_was_closed_is_good_for_nobody(listener):
    ticket = listener.ticket()
    ticket.close()
    with pytest.raises(Unavailable):
        connect(ticket.invitation, SIZE)
    assert ticket.link is None


GREETING = b"aipodsh1" + bytes(32) + GRAIN.to_bytes(8, "little") + SIZE.to_bytes(8, "little")


@pytest.mark.parametrize(
    ("message", "count"),
    [
        (GREETING, 0),
        (GREETING, 2),
        (GREETING, 253),
        (GREETING[:-1], 1),
        (GREETING + b"\0", 1),
        (GREETING * 1000, 1),
        (b"\0", 1),
        (b"", 1),
        (b"", 253),
        (b"aipodsh2" + GREETING[8:], 1),
        (b"GET / HTTP/1.1\r\n\r\n", 0),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else f"{value} descriptors",
)
def test_what_is_no_greeting_ends_the_conversation_and_leaves_nothing_open(listener, message, count):
    fds = [os.dup(0) for _ in range(count)]
    before = len(os.listdir("/proc/self/fd"))
    with knock(listener) as stranger:
        if message or fds:
            socket.send_fds(stranger, [message], fds)
        assert is_over(stranger)
    for fd in fds:
        os.close(fd)
    assert serves(listener)
    eventually(lambda: len(os.listdir("/proc/self/fd")) == before - count)


@pytest.mark.parametrize(
    ("magic", "more", "count"),
    [
        (b"aipodsh1", b"\0", 1),
        (b"aipodsh1", b"", 2),
        (b"aipodsh1", b"", 100),
        (b"aipodsh1", b"", 0),
        (b"aipodsh2", b"", 1),
    ],
)
def test_a_token_does_not_make_up_for_what_is_wrong_otherwise(listener, magic, more, count):
    region = Region(GRAIN)
    with listener.ticket() as ticket, knock(listener) as stranger:
        greeting = magic + ticket.invitation.token + GREETING[-16:]
        socket.send_fds(stranger, [greeting + more], [region.fd] * count)
        assert is_over(stranger)
        assert ticket.link is None
    region.close()


@pytest.mark.parametrize("size", [0, 1, GRAIN + PAGE, 2 * GRAIN, 2**40 // GRAIN * GRAIN, 2**64 - GRAIN])
def test_a_size_that_is_not_the_memory_s_gets_nothing(listener, size):
    with listener.ticket() as ticket, knock(listener) as stranger:
        send_memory(stranger, ticket.invitation.token, size)
        assert is_over(stranger)
        assert ticket.link is None
    assert serves(listener)


def test_a_descriptor_that_is_no_memory_gets_nothing(listener):
    with listener.ticket() as ticket, knock(listener) as stranger:
        Greeting(ticket.invitation.token, GRAIN, SIZE).send(stranger, 0)
        assert is_over(stranger)
        assert ticket.link is None
    assert serves(listener)


def test_a_hundred_thousand_descriptors_are_closed_as_they_come(listener):
    before = len(os.listdir("/proc/self/fd"))
    most = 0
    for _ in range(400):
        with knock(listener) as stranger:
            # All of one message, and a second one behind it that nobody is going to read.
            for _ in range(2):
                with contextlib.suppress(BrokenPipeError):
                    socket.send_fds(stranger, [b"x"], [0] * 125)
            most = max(most, len(os.listdir("/proc/self/fd")))
            assert is_over(stranger)
    assert most < before + 10
    assert serves(listener)
    eventually(lambda: len(os.listdir("/proc/self/fd")) == before)


def test_a_second_message_ends_the_link(listener):
    with listener.ticket() as ticket, knock(listener) as client:
        send_memory(client, ticket.invitation.token)
        greeting, fd = Greeting.receive(client)
        os.close(fd)
        assert greeting.token == ticket.invitation.token
        assert lends(ticket.link)
        socket.send_fds(client, [b"more"], [0, 0, 0])
        assert is_over(client)
        assert not lends(ticket.link)
    assert serves(listener)


def test_who_never_reads_keeps_nobody(listener):
    with listener.ticket() as ticket, knock(listener) as client:
        send_memory(client, ticket.invitation.token)
        eventually(lambda: ticket.link)
        assert serves(listener)
        loans = [ticket.link.arena.lend(SIZE // 4) for _ in range(8)]
        assert loans.count(None) >= 4


def test_the_silent_keep_nobody_out_and_are_never_many(listener):
    with contextlib.ExitStack() as open_ones:
        silent = [open_ones.enter_context(knock(listener)) for _ in range(200)]
        assert serves(listener)
        assert len(listener._silent) <= 64
        # The first to come are the first to go.
        assert is_over(silent[0])
        silent[-1].setblocking(False)
        with pytest.raises(BlockingIOError):
            silent[-1].recv(1)


def test_a_server_without_a_descriptor_left_lets_somebody_in_when_it_has_one(listener, caplog):
    ticket = listener.ticket()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        lowest = os.dup(0)
        os.close(lowest)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            client.connect("\0" + listener.name)
            eventually(lambda: caplog.records)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert "nobody can be let in for shared memory" in caplog.text
        send_memory(client, ticket.invitation.token)
        eventually(lambda: ticket.link)
    assert len(caplog.records) == 1
    ticket.close()


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("answer", [b"", b"hello", GREETING], ids=["nothing", "a word", "another token"])
def test_a_server_of_another_kind_gets_nothing_from_a_client(answer, count):
    def serve(sock: socket.socket) -> None:
        guest, _ = sock.accept()
        with guest:
            os.close(Greeting.receive(guest)[1])
            region = Region(GRAIN)
            socket.send_fds(guest, [answer], [region.fd] * count)
            region.close()

    with door() as (sock, name):
        server = threading.Thread(target=serve, args=(sock,))
        server.start()
        with pytest.raises(Unavailable):
            connect(Invitation(name, b"t" * 32, SIZE), SIZE)
        server.join()


def test_a_server_that_says_nothing_keeps_a_client_for_the_timeout_only():
    with door() as (_, name), pytest.raises(Unavailable, match="timed out"):
        connect(Invitation(name, bytes(32), SIZE), SIZE, timeout=0.05)


def test_a_server_sends_nobody_to_a_socket_of_somebody_else():
    with door("dbus-") as (sock, name):
        with pytest.raises(Unavailable, match="is no name of ours"):
            connect(Invitation(name, bytes(32), SIZE), SIZE)
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.accept()


STRANGER = """
import os, sys
sys.path.insert(0, {root!r})
from aipod.errors import Unavailable
from aipod.shm import Invitation, connect
os.setgroups([]); os.setgid({user}); os.setuid({user})
try:
    connect(Invitation({name!r}, bytes.fromhex({token!r}), 2**20), 2**20)
except Unavailable as error:
    print(error)
"""
OTHER_SERVER = """
import os, sys
sys.path.insert(0, {root!r})
from aipod.shm import Listener
os.setgroups([]); os.setgid({user}); os.setuid({user})
with Listener(2**20, 2**20) as listener:
    ticket = listener.ticket()
    print(ticket.invitation.name, ticket.invitation.token.hex(), flush=True)
    sys.stdin.read()
    print(ticket.link)
"""


@as_root
def test_a_process_of_another_user_gets_nothing(listener):
    with listener.ticket() as ticket:
        program = STRANGER.format(
            root=str(ROOT), user=NOBODY, name=ticket.invitation.name, token=ticket.invitation.token.hex()
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("no shared memory with this server: ")
        assert ticket.link is None
    assert serves(listener)


@as_root
def test_a_server_of_another_user_is_given_nothing():
    program = OTHER_SERVER.format(root=str(ROOT), user=NOBODY)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        name, token = server.stdout.readline().split()
        with pytest.raises(Unavailable, match=f"a process of user {NOBODY} shares no memory with one of user 0"):
            connect(Invitation(name, bytes.fromhex(token), MIB), MIB)
        out, _ = server.communicate("")
    assert out == "None\n"

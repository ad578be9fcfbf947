"""The hand-over between those who mean well, and how the end of one is noticed by the other."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from shm_world import MIB, SIZE, is_over, lends, mappings, send_memory, serves, talks
from waiting import eventually

import aipod.shm
from aipod.errors import InvalidArgument, Unavailable
from aipod.shm import Invitation, Link, Listener, available, connect, exchange
from aipod.shm.link import Greeting
from aipod.shm.region import GRAIN

ROOT = Path(__file__).parent.parent.parent


def test_a_client_that_was_invited_shares_memory(listener):
    with listener.ticket() as ticket:
        assert ticket.link is None
        with connect(ticket.invitation, SIZE) as link:
            assert talks(link, ticket.link)


def test_every_connection_has_memory_of_its_own(listener):
    one, other = listener.ticket(), listener.ticket()
    with connect(one.invitation, SIZE) as first, connect(other.invitation, SIZE) as second:
        assert first.arena.lend(SIZE) is not None
        assert one.link.arena.lend(SIZE) is not None
        assert talks(second, other.link)


@pytest.mark.parametrize(("servers", "clients"), [(SIZE, 2 * GRAIN), (2 * GRAIN, SIZE)])
def test_neither_side_lends_more_than_the_other_takes(servers, clients):
    with Listener(servers, SIZE) as listener, listener.ticket() as ticket, connect(ticket.invitation, clients) as link:
        for side in (link, ticket.link):
            assert side.arena.lend(2 * GRAIN + 1) is None
            assert side.arena.lend(2 * GRAIN) is not None


def test_all_clients_together_get_what_the_server_has():
    with Listener(max_bytes=SIZE, total_bytes=SIZE) as listener:
        one, other = listener.ticket(), listener.ticket()
        with connect(one.invitation, SIZE), connect(other.invitation, SIZE):
            assert one.link.arena.lend(SIZE) is not None
            assert other.link.arena.lend(1) is None
        eventually(lambda: listener.budget.taken_bytes == 0)


def test_the_server_hears_that_a_client_is_gone(listener):
    with listener.ticket() as ticket:
        link = connect(ticket.invitation, SIZE)
        assert lends(ticket.link)
        link.close()
        link.close()
        eventually(lambda: not lends(ticket.link))


def test_a_ticket_that_is_closed_ends_the_link(listener):
    with listener.ticket() as ticket, connect(ticket.invitation, SIZE):
        server = ticket.link
        ticket.close()
        ticket.close()
        assert not lends(server)
        eventually(lambda: not listener._linked)


def test_what_a_user_holds_outlives_the_link(listener):
    with listener.ticket() as ticket:
        with connect(ticket.invitation, SIZE) as link:
            loan = ticket.link.arena.lend(5)
            loan.view[:] = b"reply"
            reply = link.borrowed.borrow(loan.place)
            mine = link.arena.reserve(4)
            mine[:] = b"mine"
        eventually(lambda: not listener._linked)
    listener.close()
    assert (bytes(reply), bytes(mine)) == (b"reply", b"mine")


def test_a_view_that_is_kept_keeps_the_lender_s_memory_and_none_of_ours(listener):
    before = mappings()
    with listener.ticket() as ticket:
        with connect(ticket.invitation, SIZE) as link:
            view = link.borrowed.borrow(ticket.link.arena.lend(5).place)
        del link
        eventually(lambda: not listener._linked)
    del ticket
    assert mappings() == before + 1
    assert bytes(view) == bytes(5)


def test_idle_memory_of_all_clients_is_trimmed(listener):
    one, other, _ = (listener.ticket() for _ in range(3))
    with connect(one.invitation, SIZE), connect(other.invitation, SIZE):
        for ticket in (one, other):
            ticket.link.arena.lend(MIB).take_back()
        assert listener.trim() == 0
        assert listener.trim() == 2 * MIB


def test_a_listener_that_is_closed_takes_nobody():
    listener = Listener(SIZE, SIZE)
    listener.close()
    listener.start()
    ticket = listener.ticket()
    link = connect(ticket.invitation, SIZE)
    listener.close()
    listener.close()
    assert not lends(ticket.link)
    with pytest.raises(Unavailable, match=r"no shared memory with this server: .* the socket carries everything"):
        connect(listener.ticket().invitation, SIZE)
    link.close()


def test_a_name_that_is_taken_is_an_error(listener):
    other = Listener(SIZE, SIZE)
    other.name = listener.name
    with pytest.raises(Unavailable, match="Address already in use"):
        other.start()
    other.close()


@pytest.mark.parametrize(
    "invitation",
    [
        Invitation("aipod-nobody", bytes(32), SIZE),
        Invitation("aipod-" + "x" * 500, bytes(32), SIZE),
        Invitation("aipod-\0", bytes(32), SIZE),
        Invitation("aipod-\ud800", bytes(32), SIZE),
        Invitation("", bytes(32), SIZE),
    ],
    ids=["nobody there", "too long", "with a zero", "no text", "empty"],
)
def test_where_nobody_listens_there_is_no_shared_memory(invitation):
    with pytest.raises(Unavailable, match="no shared memory with this server"):
        connect(invitation, SIZE)


def test_many_come_and_go_at_once(listener):
    failures = []

    def come_and_go() -> None:
        for _ in range(20):
            try:
                assert serves(listener)
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=come_and_go) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    eventually(lambda: not listener._linked)
    assert listener.budget.taken_bytes == 0


def test_a_parent_and_its_child_exchange_over_the_socket_that_they_have():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    links: list[Link] = []
    other = threading.Thread(target=lambda: links.append(exchange(theirs, b"c" * 32, SIZE)))
    other.start()
    with exchange(ours, b"c" * 32, 2 * SIZE, their_max_bytes=SIZE) as link:
        other.join()
        assert talks(link, links[0])
    assert is_over(theirs)
    links[0].close()


def test_an_exchange_that_fails_leaves_the_socket_to_its_owner():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            send_memory(theirs, b"d" * 32)
            with pytest.raises(InvalidArgument, match="another token"):
                exchange(ours, b"c" * 32, SIZE)
            greeting, fd = Greeting.receive(theirs)
            os.close(fd)
            assert greeting.token == b"c" * 32
        with pytest.raises(OSError):
            exchange(ours, b"c" * 32, SIZE)


FORK = """
import os, sys
sys.path.insert(0, {root!r})
from aipod.shm import Invitation, connect
link = connect(Invitation({name!r}, bytes.fromhex({token!r}), 2**20), 2**20)
child = os.fork()
if not child:
    link.close()
    os._exit(0)
os.waitpid(child, 0)
print("closed", flush=True)
sys.stdin.readline()
os.fork() or sys.stdin.read()
link.close()
"""


def test_a_forked_process_does_not_end_our_link_and_cannot_keep_it(listener):
    with listener.ticket() as ticket:
        invitation = ticket.invitation
        program = FORK.format(root=str(ROOT), name=invitation.name, token=invitation.token.hex())
        with subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as client:
            assert client.stdin is not None and client.stdout is not None
            assert client.stdout.readline() == "closed\n"
            assert lends(ticket.link)
            client.stdin.write("\n")
            client.stdin.flush()
            eventually(lambda: not lends(ticket.link))
            client.stdin.close()


def test_a_system_that_has_everything_lacks_nothing():
    assert available() == ""


def test_a_system_that_lacks_something_says_what(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "darwin")
        assert available() == "shared memory needs Linux, and this is darwin"
    with monkeypatch.context() as patch:
        patch.delattr(os, "memfd_create")
        assert "memfd_create" in available()

    def refuse(*args: object) -> None:
        raise PermissionError(1, "not here")

    with monkeypatch.context() as patch:
        patch.setattr(os, "memfd_create", refuse)
        assert "this system refuses ([Errno 1] not here)" in available()


def test_the_public_names_are_there():
    assert all(hasattr(aipod.shm, name) for name in aipod.shm.__all__)

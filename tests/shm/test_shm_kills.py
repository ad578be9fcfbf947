"""SIGKILL of either side in the middle of lending; a hundred times each in tests/chaos."""

from __future__ import annotations

import random

from shm_kills import SIZE, client_is_killed, nothing_left, server_is_killed

from aipod.shm import Listener, connect

TIMES = 20


def test_a_client_that_is_killed_leaves_nothing_and_its_server_serves_on():
    with Listener(SIZE, SIZE) as listener:
        with nothing_left():
            for seed in range(TIMES):
                client_is_killed(listener, random.Random(seed))
        assert listener.budget.taken_bytes == 0
        with listener.ticket() as ticket, connect(ticket.invitation, SIZE) as link:
            assert link.arena.lend(SIZE) is not None
            assert ticket.link.arena.lend(SIZE // 2) is not None


def test_a_server_that_is_killed_leaves_nothing_and_its_client_goes_on():
    with nothing_left():
        for seed in range(TIMES):
            server_is_killed(random.Random(seed))

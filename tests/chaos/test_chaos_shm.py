"""Processes that share memory, killed in the middle of it: nothing is left of them, and the others go on."""

from __future__ import annotations

import pytest
from shm_kills import SIZE, client_is_killed, nothing_left, server_is_killed

from aipod.shm import Listener

pytestmark = pytest.mark.chaos

TIMES = 100


def test_a_hundred_clients_are_killed(dice):
    with Listener(SIZE, SIZE) as listener:
        with nothing_left():
            for _ in range(TIMES):
                client_is_killed(listener, dice)
        assert listener.budget.taken_bytes == 0


def test_a_hundred_servers_are_killed(dice):
    with nothing_left():
        for _ in range(TIMES):
            server_is_killed(dice)

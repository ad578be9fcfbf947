"""Threads that are woken one by one: each of them, in order, and whatever becomes of one."""

from __future__ import annotations

import threading

from waiting import BOUND, eventually

from aipod.rpc.trunk.relay import Gate, Relay


def test_a_gate_opens_at_once_where_no_others_do():
    gate = Gate()
    gate.open()
    assert gate.wait(BOUND)


def test_one_that_stays_shut_is_not_waited_for_any_longer():
    gate = Gate()
    assert not gate.wait(0.01)
    gate.open()
    assert gate.wait(BOUND)


def test_within_a_relay_each_wakes_the_next():
    gates = [Gate() for _ in range(3)]
    with Relay():
        for gate in gates:
            gate.open()
        assert not gates[0].wait(0.01)
    # The second one is opened by whoever waits at the first, and by nobody else.
    assert not gates[1].wait(0.01)
    assert gates[0].wait(BOUND)
    assert not gates[2].wait(0.01)
    assert gates[1].wait(BOUND)
    assert gates[2].wait(BOUND)


def test_hundred_threads_are_all_woken():
    gates = [Gate() for _ in range(100)]
    awake: list[int] = []
    threads = [
        threading.Thread(target=lambda at=at, gate=gate: (gate.wait(BOUND), awake.append(at)))
        for at, gate in enumerate(gates)
    ]
    for thread in threads:
        thread.start()
    with Relay():
        for gate in gates:
            gate.open()
    for thread in threads:
        thread.join(BOUND)
    assert sorted(awake) == list(range(100))


def test_one_who_leaves_may_pass_on_and_does_it_once():
    first, second, third = Gate(), Gate(), Gate()
    with Relay():
        for gate in (first, second, third):
            gate.open()
    first.pass_on()
    assert second.wait(BOUND)
    assert third.wait(BOUND)
    assert first.wait(BOUND)
    assert not second.wait(0.01)


def test_relays_of_several_threads_do_not_meet():
    here, there = Gate(), Gate()
    with Relay():
        here.open()
        thread = threading.Thread(target=there.open)
        thread.start()
        thread.join()
        assert there.wait(BOUND)
        assert not here.wait(0.01)
    eventually(lambda: here.wait(0.01))

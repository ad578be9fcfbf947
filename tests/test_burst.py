"""Wake-ups that are put off: when they are done, by whom, and of which kind."""

from __future__ import annotations

import threading

import pytest

from aipod.burst import Burst, Bursts


@pytest.fixture
def kind() -> Bursts:
    return Bursts()


def test_outside_of_a_burst_nothing_is_put_off(kind):
    done = []
    kind.after(lambda: done.append(1))
    assert done == [1]


def test_within_one_it_waits_for_the_end_and_keeps_its_order(kind):
    done = []
    with Burst(kind):
        for number in range(3):
            kind.after(lambda number=number: done.append(number))
        assert not done
    assert done == [0, 1, 2]
    kind.after(lambda: done.append(3))
    assert done == [0, 1, 2, 3]


def test_a_burst_that_fails_leaves_nothing_undone(kind):
    done = []
    with pytest.raises(ZeroDivisionError), Burst(kind):
        kind.after(lambda: done.append(1))
        _ = 1 / 0
    assert done == [1]


def test_it_is_a_matter_of_one_thread_and_one_kind(kind):
    done, other = [], Bursts()
    with Burst(kind):
        thread = threading.Thread(target=lambda: kind.after(lambda: done.append("thread")))
        thread.start()
        thread.join()
        other.after(lambda: done.append("kind"))
        assert done == ["thread", "kind"]


def test_another_thread_may_settle_it_before_the_end(kind):
    done = []
    with Burst(kind) as burst:
        kind.after(lambda: done.append(1))
        said = []
        thread = threading.Thread(target=lambda: said.extend([burst.settle(), burst.settle()]))
        thread.start()
        thread.join()
        assert said == [True, False]
        assert done == [1]
        kind.after(lambda: done.append(2))
    assert done == [1, 2]


def test_what_many_settle_at_once_is_done_once(kind):
    done = []
    with Burst(kind) as burst:
        over = threading.Event()

        def settle() -> None:
            while not over.is_set():
                burst.settle()

        threads = [threading.Thread(target=settle) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(5000):
            kind.after(lambda number=number: done.append(number))
        over.set()
        for thread in threads:
            thread.join()
    assert sorted(done) == list(range(5000))

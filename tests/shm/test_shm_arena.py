"""The lender's side: slices, what they cost, and when they are free again."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from shm_world import MIB, SIZE, array_in, find, make_pair, shown, used

from aipod.errors import InvalidArgument
from aipod.shm import Arena, Budget
from aipod.shm.region import GRAIN, PAGE, SLOTS, Region

ROOT = Path(__file__).parent.parent.parent


def backed(arena):
    return arena.statistics()["backed_bytes"]


def memory_of(region):
    """The bytes that the system has put behind a region, its page of marks aside."""
    return os.fstat(region.fd).st_blocks * 512 - PAGE


def test_what_is_written_to_a_loan_is_what_the_borrower_reads(pair):
    loan = pair.lender.arena.lend(5)
    loan.view[:] = b"hello"
    assert loan.place.nbytes == 5
    assert bytes(pair.borrower.borrowed.borrow(loan.place)) == b"hello"


def test_both_sides_may_lend_at_once(pair):
    one, other = pair.lender.arena.lend(3), pair.borrower.arena.lend(3)
    one.view[:], other.view[:] = b"abc", b"xyz"
    assert bytes(pair.borrower.borrowed.borrow(one.place)) == b"abc"
    assert bytes(pair.lender.borrowed.borrow(other.place)) == b"xyz"


def test_a_slice_begins_where_every_dtype_may_lie(pair):
    loans = [pair.lender.arena.lend(nbytes) for nbytes in (1, 63, PAGE, PAGE + 1)]
    assert all(np.frombuffer(loan.view, np.uint8).ctypes.data % 64 == 0 for loan in loans)


def test_a_slice_is_free_again_when_the_borrower_is_done_with_it(pair):
    arena = pair.lender.arena
    places = set()
    for _ in range(3 * SLOTS):
        loan = arena.lend(MIB)
        places.add(loan.place.offset)
        pair.borrower.borrowed.borrow(loan.place)
    assert places == {0}
    assert arena.statistics() == {"used_bytes": 0, "backed_bytes": MIB, "held": 0, "lent": 0}


def test_what_is_recycled_costs_no_fresh_page(pair):
    def exchange():
        loan = pair.lender.arena.lend(2 * MIB)
        np.frombuffer(loan.view, np.uint8)[:] = 7
        assert np.frombuffer(pair.borrower.borrowed.borrow(loan.place), np.uint8).max() == 7

    exchange()
    before, memory = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, memory_of(pair.lender.region)
    for _ in range(20):
        exchange()
    # Fresh ones would be 512 for each of the twenty, on either side.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 512
    assert memory_of(pair.lender.region) == memory == 2 * MIB


def test_nothing_has_memory_before_it_is_lent(pair):
    assert memory_of(pair.lender.region) == 0
    pair.lender.arena.lend(1)
    assert memory_of(pair.lender.region) == backed(pair.lender.arena) == PAGE


@pytest.mark.parametrize("nbytes", [SIZE + 1, 2**62, 2**70])
def test_what_does_not_fit_is_not_lent(pair, nbytes):
    assert pair.lender.arena.lend(nbytes) is None
    assert pair.lender.arena.reserve(nbytes) is None


def test_what_does_not_fit_any_more_is_not_lent_until_something_is_back(pair):
    arena = pair.lender.arena
    loan = arena.lend(SIZE)
    view = pair.borrower.borrowed.borrow(loan.place)
    assert arena.lend(1) is None
    assert arena.reserve(1) is None
    del view
    assert arena.lend(SIZE) is not None


def test_a_borrower_who_never_gives_back_makes_nobody_wait(pair):
    arena = pair.lender.arena
    loans = [arena.lend(SIZE // 8) for _ in range(20)]
    assert [loan is None for loan in loans] == [False] * 8 + [True] * 12


def test_there_are_as_many_loans_as_slots():
    pair = make_pair(size=(SLOTS + 1) * PAGE // GRAIN * GRAIN + GRAIN)
    arena = pair.lender.arena
    array = array_in(arena, 1)
    loans = [arena.lend(1) for _ in range(SLOTS)]
    assert None not in loans
    assert len({loan.place.slot for loan in loans}) == SLOTS
    assert arena.lend(1) is None
    assert find(arena, array) is None
    loans.pop().take_back()
    assert find(arena, array) is not None
    pair.close()


def test_nothing_is_as_good_as_a_byte(pair):
    loan = pair.lender.arena.lend(0)
    assert bytes(pair.borrower.borrowed.borrow(loan.place)) == b""
    assert bytes(pair.lender.arena.reserve(0)) == b""


def test_less_than_nothing_is_an_error(pair):
    with pytest.raises(InvalidArgument, match="-1 bytes; ask for 0 or more"):
        pair.lender.arena.lend(-1)
    with pytest.raises(InvalidArgument, match="-1 bytes; ask for 0 or more"):
        pair.lender.arena.reserve(-1)


def test_what_was_not_sent_can_be_taken_back(pair):
    arena = pair.lender.arena
    loan = arena.lend(SIZE)
    loan.take_back()
    assert arena.statistics()["lent"] == 0
    again = arena.lend(SIZE)
    assert again is not None
    # The borrower never heard of the first.
    assert len(pair.borrower.borrowed.borrow(again.place)) == SIZE


def test_what_has_ended_cannot_be_taken_back(pair):
    arena = pair.lender.arena
    loans = [arena.lend(1)]
    loans[0].take_back()
    loans.append(arena.lend(1))
    pair.borrower.borrowed.borrow(loans[1].place)
    current = arena.lend(1)
    assert {loan.place for loan in loans} == {current.place}
    for loan in loans:
        loan.take_back()
    assert arena.statistics()["lent"] == 1


def test_memory_that_is_idle_from_one_trim_to_the_next_goes_back_to_the_system(pair):
    arena, region = pair.lender.arena, pair.lender.region

    def exchange(nbytes):
        loan = arena.lend(nbytes)
        pair.borrower.borrowed.borrow(loan.place)

    exchange(4 * MIB)
    assert arena.trim() == 0
    exchange(MIB)
    assert arena.trim() == 3 * MIB
    assert memory_of(region) == backed(arena) == MIB
    exchange(MIB)
    assert arena.trim() == 0
    assert arena.trim() == MIB
    assert memory_of(region) == backed(arena) == 0
    exchange(2 * MIB)
    assert memory_of(region) == backed(arena) == 2 * MIB


def test_memory_that_was_lent_at_the_last_trim_is_not_idle_since_then(pair):
    arena = pair.lender.arena
    loan = arena.lend(MIB)
    arena.trim()
    loan.take_back()
    assert arena.trim() == 0
    assert arena.trim() == MIB


def test_a_slice_that_stays_keeps_none_of_its_neighbours(pair):
    arena = pair.lender.arena
    first, kept, last = (arena.lend(MIB) for _ in range(3))
    np.frombuffer(kept.view, np.uint8)[:] = 7
    first.take_back()
    last.take_back()
    arena.trim()
    arena.trim()
    assert backed(arena) == memory_of(pair.lender.region) == MIB
    assert (np.frombuffer(pair.borrower.borrowed.borrow(kept.place), np.uint8) == 7).all()


def test_warm_memory_is_taken_before_cold(pair):
    arena = pair.lender.arena
    low, high = arena.lend(MIB), arena.lend(MIB)
    low.take_back()
    arena.trim()
    arena.trim()
    high.take_back()
    assert arena.lend(MIB).place.offset == high.place.offset


def test_several_arenas_have_no_more_than_their_budget_between_them():
    budget = Budget(3 * MIB)
    one, other = make_pair(budget=budget), make_pair(budget=budget)
    assert one.lender.arena.lend(2 * MIB) is not None
    assert other.lender.arena.lend(2 * MIB) is None
    loan = other.lender.arena.lend(MIB)
    assert budget.taken_bytes == 3 * MIB
    loan.take_back()
    # Warm, it counts as before.
    assert one.lender.arena.lend(MIB) is None
    other.close()
    assert one.lender.arena.lend(MIB) is not None
    one.close()
    assert budget.taken_bytes == 0


class Full(Region):
    """A region on a system that has no memory left."""

    room = 2 * MIB

    def back(self, start, end):
        if end > self.room:
            raise OSError(errno.ENOSPC, "no room")
        super().back(start, end)


def test_a_system_without_memory_is_no_error():
    region, budget = Full(SIZE), Budget(SIZE)
    arena = Arena(region, shown(region).marks, budget)
    assert arena.lend(2 * MIB + 1) is None
    assert budget.taken_bytes == 0
    loan = arena.lend(2 * MIB)
    assert arena.lend(1) is None
    loan.take_back()
    assert arena.statistics() == {"used_bytes": 0, "backed_bytes": 2 * MIB, "held": 0, "lent": 0}
    arena.close()


def test_memory_that_came_before_it_ran_out_is_not_lost():
    region, budget = Full(SIZE), Budget(SIZE)
    arena = Arena(region, shown(region).marks, budget)
    low, high = arena.lend(MIB), arena.lend(MIB)
    low.take_back()
    arena.trim()
    arena.trim()
    high.take_back()
    # Cold, warm, and then cold where there is no more.
    assert arena.lend(SIZE) is None
    assert backed(arena) == budget.taken_bytes == memory_of(region) == 2 * MIB
    arena.close()
    assert budget.taken_bytes == 0


def test_a_closed_arena_lends_nothing(pair):
    arena = pair.lender.arena
    loan = arena.lend(1)
    array = array_in(arena, 1)
    arena.close()
    arena.close()
    assert (arena.lend(1), arena.reserve(1), find(arena, array), arena.trim()) == (None, None, None, 0)
    loan.take_back()
    assert arena.statistics() == {"used_bytes": 0, "backed_bytes": 0, "held": 0, "lent": 0}


def test_what_is_held_or_lent_outlives_the_arena(pair):
    arena = pair.lender.arena
    array = array_in(arena, 3)
    array[:] = (1.0, 2.0, 3.0)
    loan = arena.lend(4)
    loan.view[:] = b"lent"
    seen = pair.borrower.borrowed.borrow(loan.place)
    pair.close()
    assert array.tolist() == [1.0, 2.0, 3.0]
    assert bytes(seen) == b"lent"


def test_an_arena_that_is_closed_keeps_no_memory_but_what_is_in_use(pair):
    arena = pair.lender.arena
    array = array_in(arena, 3)
    arena.lend(2 * MIB).take_back()
    witness = os.dup(pair.lender.region.fd)
    pair.close()
    assert os.fstat(witness).st_blocks * 512 == 2 * PAGE
    os.close(witness)
    assert array.tolist() == [0.0, 0.0, 0.0]


def test_a_borrower_that_lies_about_slots_hurts_nobody_but_itself(pair):
    arena, marks = pair.lender.arena, pair.borrower.region.marks
    loan = arena.lend(MIB)
    # That it gave back what it never had, all at once, and again.
    for change in range(1, 4):
        marks[:] = bytes([change]) * SLOTS
        assert arena.statistics()["lent"] == 0
        again = arena.lend(MIB)
        assert again.place.offset == 0
    assert arena.statistics()["used_bytes"] == MIB
    loan.take_back()


def test_many_threads_may_lend_and_borrow_at_once(pair):
    arena, borrowed = pair.lender.arena, pair.borrower.borrowed
    wrong = []

    def work(number):
        for turn in range(150):
            loan = arena.lend(PAGE * (1 + turn % 7))
            if loan is None:
                continue
            written = np.frombuffer(loan.view, np.uint8)
            written[:] = number
            seen = np.frombuffer(borrowed.borrow(loan.place), np.uint8)
            if seen.min() != number or seen.max() != number:
                wrong.append((number, turn))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert used(arena) == 0


FORK = """
import os, sys
sys.path[:0] = {places!r}
from shm_world import MIB, SIZE, array_in, find, make_pair, shown, used
pair = make_pair()
arena, borrowed = pair.lender.arena, pair.borrower.borrowed
loan = arena.lend(100)
loan.view[:4] = b"ours"
view, held = borrowed.borrow(loan.place), arena.reserve(100)
again = arena.lend(100)
again.take_back()
child = os.fork()
if not child:
    del view, held
    nothing = [arena.lend(1), arena.reserve(1), arena.trim(), arena.trim()]
    pair.close()
    os._exit(nothing != [None, None, 0, 0])
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert arena.statistics()["lent"] == 1 and arena.statistics()["held"] == 1, arena
assert bytes(view[:4]) == b"ours"
del view, held
assert arena.statistics()["used_bytes"] == 0, arena
"""


def test_a_forked_process_gives_back_nothing_of_ours_and_lends_nothing_of_it():
    program = FORK.format(places=[str(ROOT), str(ROOT / "tests"), str(ROOT / "tests/shm")])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

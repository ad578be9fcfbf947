"""Slices that somebody holds here: to be filled at leisure, and lent as they lie."""

from __future__ import annotations

import gc

import numpy as np
from shm_world import SIZE, array_in, find, used

from aipod.shm.region import PAGE


def test_a_reserved_slice_lasts_as_long_as_anything_refers_to_it(pair):
    arena = pair.lender.arena
    array = array_in(arena, 1000)
    part = array.reshape(10, 100)[3:5].T
    del array
    gc.collect()
    assert used(arena) == 2 * PAGE
    part[:] = 1.5
    del part
    assert used(arena) == 0


def test_an_array_in_a_reserved_slice_is_lent_without_a_copy(pair):
    arena = pair.lender.arena
    array = array_in(arena, 100)
    loan = find(arena, array)
    array[:] = np.arange(100)
    seen = np.frombuffer(pair.borrower.borrowed.borrow(loan.place), np.float64)
    assert (seen == array).all()
    part = find(arena, array[10:20])
    assert part.place.offset == loan.place.offset + 80
    assert (np.frombuffer(pair.borrower.borrowed.borrow(part.place), np.float64) == array[10:20]).all()


def test_a_reserved_slice_is_lent_to_several_at_once_and_lasts_for_the_last(pair):
    arena, borrowed = pair.lender.arena, pair.borrower.borrowed
    array = array_in(arena, 4)
    array[:] = 2.5
    views = [borrowed.borrow(find(arena, array).place) for _ in range(3)]
    views += [borrowed.borrow(find(arena, array[1:3]).place)]
    assert arena.statistics()["lent"] == 4
    del array
    for left in (3, 2, 1):
        views.pop(0)
        assert (arena.statistics()["lent"], used(arena)) == (left, PAGE)
    assert np.frombuffer(views[0], np.float64).tolist() == [2.5, 2.5]
    views.clear()
    assert used(arena) == 0


def test_a_reserved_slice_that_is_lent_and_back_is_still_its_holder_s(pair):
    arena = pair.lender.arena
    array = array_in(arena, 4)
    for _ in range(3):
        pair.borrower.borrowed.borrow(find(arena, array).place)
    assert used(arena) == PAGE
    assert arena.lend(SIZE) is None


def test_what_lies_elsewhere_is_not_found(pair):
    arena = pair.lender.arena
    assert find(arena, np.zeros(3)) is None
    array = array_in(arena, PAGE // 8)
    loan = arena.lend(PAGE)
    lent = np.frombuffer(loan.view, np.uint8)
    assert lent.ctypes.data > array.ctypes.data
    assert find(arena, lent) is None
    # Over the end, or from before the beginning.
    assert arena.find(array.ctypes.data + 8, PAGE) is None
    assert arena.find(array.ctypes.data - 8, 16) is None
    assert find(pair.borrower.arena, array) is None


def test_a_slice_that_was_let_go_is_not_found_any_more(pair):
    array = array_in(pair.lender.arena, 10)
    address = array.ctypes.data
    del array
    assert pair.lender.arena.find(address, 8) is None

"""The borrower's side: how long a loan lasts, and places that are none."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from shm_world import MIB, SIZE, Pair, make_pair

from aipod.errors import InvalidArgument
from aipod.shm import Place
from aipod.shm.region import SLOTS


def lent(pair: Pair) -> int:
    return pair.lender.arena.statistics()["lent"]


def borrow_floats(pair: Pair) -> memoryview:
    """Borrow 24 of them, from 0.0 on."""
    loan = pair.lender.arena.lend(192)
    np.frombuffer(loan.view, np.float64)[:] = np.arange(24)
    return pair.borrower.borrowed.borrow(loan.place)


def floats(view: memoryview) -> np.ndarray[Any, Any]:
    """As the codec sees an array in bytes."""
    return np.ndarray((24,), np.float64, view)


DERIVED: dict[str, Callable[[memoryview], object]] = {
    "a slice of the view": lambda view: view[8:16],
    "a cast of the view": lambda view: view.cast("d"),
    "frombuffer": lambda view: np.frombuffer(view, np.float64),
    "asarray": np.asarray,
    "an array": floats,
    "a slice of an array": lambda view: floats(view)[2:3],
    "a slice of a slice of an array": lambda view: floats(view)[2:9][1:][:1],
    "another shape": lambda view: floats(view).reshape(2, 3, 4).transpose(2, 0, 1)[0],
    "another dtype": lambda view: floats(view).view(np.uint8)[3:7],
    "a field": lambda view: np.ndarray((12,), [("a", "f8"), ("b", "f8")], view)["b"],
    "a subclass": lambda view: floats(view).view(np.recarray)[3:],
    "an array without dimensions": lambda view: floats(view)[5, ...],
    "broadcast": lambda view: np.broadcast_to(floats(view), (3, 24))[1],
    "the rows to come": lambda view: iter(floats(view).reshape(4, 6)),
    "a view of an array": lambda view: memoryview(floats(view)[3:]),
    "what a view is of": lambda view: view.obj[3:5],
    "what an array is of": lambda view: floats(view)[2:].base[3:5],
}


@pytest.mark.parametrize("derive", DERIVED.values(), ids=DERIVED)
def test_a_loan_lasts_as_long_as_anything_that_was_made_of_it(pair, derive):
    derived = derive(borrow_floats(pair))
    assert lent(pair) == 1
    del derived
    assert lent(pair) == 0


def test_the_last_of_many_ends_it(pair):
    view = borrow_floats(pair)
    array = floats(view)
    parts = [array[n:] for n in range(20)]
    del view, array
    while parts:
        assert lent(pair) == 1
        parts.pop(len(parts) // 2)
    assert lent(pair) == 0


def test_a_copy_is_no_loan(pair):
    copy = floats(borrow_floats(pair)).copy()
    assert lent(pair) == 0
    assert copy.tolist() == list(range(24))


def test_a_loan_in_a_cycle_ends_with_it(pair):
    cycle: list[object] = [floats(borrow_floats(pair))]
    cycle.append(cycle)
    assert lent(pair) == 1
    del cycle
    gc.collect()
    assert lent(pair) == 0


def test_nobody_writes_to_what_is_borrowed(pair):
    view = borrow_floats(pair)
    assert view.readonly
    assert not floats(view).flags.writeable
    with pytest.raises(ValueError, match="WRITEABLE"):
        floats(view).flags.writeable = True


def test_a_loan_may_end_on_any_thread(pair):
    parts = [floats(borrow_floats(pair)) for _ in range(200)]

    def let_go() -> None:
        while parts:
            try:
                parts.pop()
            except IndexError:
                return

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=let_go) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert lent(pair) == 0


def test_a_loan_may_end_in_the_middle_of_lending(pair):
    """The collector runs wherever it likes, and finalizers with it: under the lock of the arena, too."""
    arena = pair.lender.arena
    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(300):
            for memory in (borrow_floats(pair), arena.reserve(100)):
                cycle: list[object] = [memory]
                cycle.append(cycle)
    finally:
        gc.set_threshold(*thresholds)
    del cycle, memory
    gc.collect()
    assert lent(pair) == 0
    assert arena.statistics()["used_bytes"] == 0


@pytest.mark.parametrize(
    "place",
    [
        (SIZE, 1, 0),
        (SIZE - 1, 2, 0),
        (0, SIZE + 1, 0),
        (2**64 - 1, 2, 0),
        (2**63, 2**63, 0),
        (1, 2**64 - 1, 0),
        (-1, 2, 0),
        (-4096, 4096, 0),
        (4096, -1, 0),
        (0, 1, -1),
        (0, 1, SLOTS),
        (0, 1, 2**64),
        (0.0, 1, 0),
        (0, True, 0),
        (0, 1, "0"),
        (None, None, None),
    ],
    ids=str,
)
def test_a_place_that_is_none_is_refused(pair, place):
    with pytest.raises(InvalidArgument, match=r"\) (is no place in|lies outside the \d+ bytes of) shared memory"):
        pair.borrower.borrowed.borrow(Place(*place))
    assert "0 loans" in repr(pair.borrower.borrowed)


def test_the_last_byte_is_a_place(pair):
    assert bytes(pair.borrower.borrowed.borrow(Place(SIZE - 1, 1, SLOTS - 1))) == b"\0"
    assert bytes(pair.borrower.borrowed.borrow(Place(SIZE, 0, 0))) == b""


def test_a_place_is_good_for_one_message(pair):
    borrowed = pair.borrower.borrowed
    loan = pair.lender.arena.lend(8)
    view = borrowed.borrow(loan.place)
    with pytest.raises(InvalidArgument, match=rf"loan {loan.place.slot} of shared memory is in use"):
        borrowed.borrow(loan.place)
    assert len(view) == 8
    assert lent(pair) == 1


def test_a_slot_is_as_good_as_new_however_often_it_was_used(pair):
    """A mark is a byte and comes round again."""
    for _ in range(600):
        loan = pair.lender.arena.lend(8)
        view = pair.borrower.borrowed.borrow(loan.place)
        assert lent(pair) == 1
        del view
        assert lent(pair) == 0


def test_what_is_borrowed_outlives_everything():
    pair = make_pair()
    array = floats(borrow_floats(pair))[3:]
    pair.close()
    del pair
    gc.collect()
    assert array.tolist() == list(range(3, 24))


def test_what_is_on_its_way_can_be_borrowed_after_the_end(pair):
    loan = pair.lender.arena.lend(MIB)
    loan.view[:5] = b"still"
    pair.close()
    assert bytes(pair.borrower.borrowed.borrow(loan.place)[:5]) == b"still"

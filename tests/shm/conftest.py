"""Nothing that is shared is left over when a test ends."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from shm_world import SIZE, Pair, descriptors, make_pair, mappings
from waiting import eventually

from aipod.shm import Listener


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = make_pair()
    yield pair
    pair.close()
    # pytest itself refers to the pair for a while, and what can be borrowed of stays mapped.
    vars(pair).clear()


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener(max_bytes=SIZE, total_bytes=4 * SIZE) as listener:
        yield listener


@pytest.fixture(autouse=True)
def _no_memory_left_behind() -> Iterator[None]:
    """Fail a test after which a descriptor is open, or memory mapped, that was not before."""
    gc.collect()
    before, mapped = descriptors(), mappings()
    yield
    gc.collect()
    eventually(lambda: not (set(descriptors()) - set(before)), bound=5.0)
    eventually(lambda: mappings() <= mapped, bound=5.0)

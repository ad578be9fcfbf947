"""The short edition of the storm in tests/chaos: a front among bad clients."""

from __future__ import annotations

import random
from pathlib import Path

from front_storm import storm

SECONDS = 10.0


def test_connections_and_streams_that_are_cut_and_reset_leave_nothing_and_hurt_nobody(
    front: str, tmp_path: Path
) -> None:
    done = storm(front, SECONDS, random.Random(4), tmp_path / "log")
    assert len(done) == 6, "some deed was never done"

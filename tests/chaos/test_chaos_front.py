"""A front among bad clients for minutes: a wrong step of its would end the process."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from front_storm import storm

pytestmark = pytest.mark.chaos

SECONDS = 180.0


@pytest.mark.parametrize("kind", ["cq", "aio"])
def test_connections_and_streams_that_are_cut_and_reset_for_minutes_leave_nothing(
    kind: str, dice: random.Random, say: Callable[[object], None], tmp_path: Path
) -> None:
    say(dict(storm(kind, SECONDS, dice, tmp_path / "log")))

"""SIGKILL for consumer, model server and broker, at random, under load: nothing lost, nothing twice, nothing wrong."""

from __future__ import annotations

from pathlib import Path

from stream_storm import TASKS, contradictions, storm
from stream_world import World, throw_dice


def test_twelve_kills_lose_nothing_double_nothing_and_change_no_content(tmp_path: Path) -> None:
    dice = throw_dice()
    with World(tmp_path) as world:
        storm(world, dice, messages=5_000, kills=12, rate=190.0)
        assert not contradictions(world, *TASKS)

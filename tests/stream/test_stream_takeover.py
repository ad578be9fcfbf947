"""Others take over what somebody no longer does: the long tests' freezes, outages and divisions, in a few seconds."""

from __future__ import annotations

import contextlib
import signal
from collections import defaultdict
from pathlib import Path

from nats.js.errors import BucketNotFoundError, NoKeysError
from stream_storm import COUNTED, DATABASE, FOR_EVER, Task, contradictions, finish, start, task, values
from stream_world import RESULTS, World, throw_dice
from waiting import eventually

WINDOW = f"count:16,{FOR_EVER}"
SOON = {"lease_ttl": 1.0, "ack_wait": 1.0}
FENCED_AND_SQL = (
    task(COUNTED, "fenced", WINDOW, sinks=["nats-fenced:results.fenced.{key}"], **SOON),
    task(COUNTED, "sql", WINDOW, sinks=[f"sql:sqlite:///{DATABASE}#results"], **SOON),
)


def holders(world: World, *tasks: Task) -> list[str]:
    """Who holds the leases of the tasks, or of their partitions; nobody before the first lease of all."""
    with contextlib.suppress(BucketNotFoundError, NoKeysError):
        return [holder for task in tasks for holder in world.holders(task.name).values()]
    return []


def see_results(world: World, more_than: int) -> None:
    """Wait until work is being done."""
    eventually(lambda: world.messages(RESULTS) > more_than)


def test_who_is_frozen_for_longer_than_ack_wait_is_followed_and_changes_nothing_when_it_wakes(tmp_path: Path) -> None:
    dice = throw_dice()
    tasks = (task(COUNTED, "deduped", WINDOW, **SOON), *FENCED_AND_SQL)
    with World(tmp_path) as world:
        frozen = start(world, *tasks)
        eventually(lambda: len(holders(world, *tasks)) == len(tasks))
        (holder,) = set(holders(world, *tasks))
        successor = world.consumer(name="successor")
        successor.start()
        publisher = world.publisher(values(1_200, 400.0, dice), 400.0)
        see_results(world, 5)
        frozen.send(signal.SIGSTOP)
        eventually(lambda: len(holders(world, *tasks)) == len(tasks) and holder not in holders(world, *tasks))
        # The lease is given up first; what the frozen one has not acknowledged is delivered again only now.
        world.after(SOON["ack_wait"])
        frozen.send(signal.SIGCONT)
        publisher.wait()
        eventually(lambda: all(world.caught_up(task.name) for task in tasks))
        assert frozen.alive and successor.alive, frozen.said() + successor.said()
        assert [frozen.stop(), successor.stop()] == [0, 0], frozen.said() + successor.said()
        finish(world, *tasks)
        assert not contradictions(world, *tasks)


def test_a_broker_that_was_away_for_longer_than_it_knows_ids_has_nothing_twice(tmp_path: Path) -> None:
    dice = throw_dice()
    window = 0.5
    with World(tmp_path, dedup_window=window) as world:
        consumer = start(world, *FENCED_AND_SQL)
        publisher = world.publisher(values(1_200, 400.0, dice), 400.0)
        for dies in (False, True):
            see_results(world, world.messages(RESULTS) + 5)
            world.broker.kill()
            if dies:
                consumer.stop(signal.SIGKILL)
                consumer.start()
            world.after(2 * window)
            world.broker.start()
        publisher.wait()
        eventually(lambda: all(world.caught_up(task.name) for task in FENCED_AND_SQL))
        assert consumer.stop() == 0, consumer.said()
        finish(world, *FENCED_AND_SQL)
        assert not contradictions(world, *FENCED_AND_SQL)


def test_partitions_go_to_a_second_process_and_come_back_and_each_key_stays_in_order(tmp_path: Path) -> None:
    dice = throw_dice()
    shared = task(COUNTED, "shared", WINDOW, partitions=4, **SOON)
    with World(tmp_path) as world:
        processes = [start(world, shared), world.consumer(name="second")]
        publisher = world.publisher(values(1_600, 400.0, dice), 400.0)
        eventually(lambda: len(holders(world, shared)) == 4)
        processes[1].start()
        eventually(lambda: len(set(holders(world, shared))) == 2)
        done = publisher.done
        eventually(lambda: publisher.done > done + 200 or not publisher.running)
        victim, other = dice.sample(processes, 2)
        victim.stop(signal.SIGKILL)
        eventually(lambda: len(held := holders(world, shared)) == 4 and len(set(held)) == 1)
        publisher.wait()
        eventually(lambda: world.caught_up("shared"))
        assert other.stop() == 0, other.said()
        finish(world, shared)
        assert not contradictions(world, shared)
        order = defaultdict(list)
        for result in world.results("shared"):
            order[result["key"]].append(result["window"]["members"][0][0])
        assert all(firsts == sorted(firsts) for firsts in order.values())

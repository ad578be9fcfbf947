"""Streams for longer than anybody waits for: kills by the dozen, freezes, and neighbours that are away for a minute."""

from __future__ import annotations

import json
import os
import signal
from collections import defaultdict
from functools import partial

import pytest
from stream_reference import judge_any_cut
from stream_storm import (
    COUNTED,
    FOR_EVER,
    SQL,
    TASKS,
    Task,
    contradictions,
    drain,
    finish,
    start,
    storm,
    task,
    values,
)
from stream_world import World
from waiting import eventually

pytestmark = pytest.mark.chaos

# Who names a seed wants that one.
SEEDS = 1 if os.environ.get("CHAOS_SEED") else 5
MOST_GROWTH_BYTES = 48 * 2**20

BY_SINK = [
    task(COUNTED, "deduped", f"count:16,{FOR_EVER}"),
    task(COUNTED, "fenced", f"count:16,{FOR_EVER}", sinks=["nats-fenced:results.fenced.{key}"]),
    task(COUNTED, "sql", f"count:16,{FOR_EVER}", sinks=[SQL]),
]


@pytest.mark.parametrize("number", range(SEEDS))
def test_fifty_kills_lose_nothing_double_nothing_and_change_no_content(tmp_path, dice, say, number):
    with World(tmp_path) as world:
        storm(world, dice, messages=100_000, kills=50, rate=600.0, say=say)
        assert not contradictions(world, *TASKS)
        say("0 lost, 0 doubled, all content right, each key in order")


def test_a_consumer_that_was_frozen_changes_nothing_when_it_wakes(tmp_path, dice, say):
    with World(tmp_path) as world:
        one = start(world, *BY_SINK)
        other = world.consumer(name="standby")
        other.start()
        publisher = world.publisher(values(20_000, 400.0, dice), 400.0)
        freezes = 0
        while publisher.running:
            victim = dice.choice((one, other))
            victim.send(signal.SIGSTOP)
            # Longer than the lease, now and then longer than ack_wait.
            world.after(dice.uniform(2.0, 8.0))
            victim.send(signal.SIGCONT)
            world.after(dice.uniform(0.0, 3.0))
            freezes += 1
        publisher.wait()
        assert one.alive and other.alive, one.said() + other.said()
        say(f"{freezes} freezes")
        assert other.stop() == 0, other.said()
        drain(world, one, *BY_SINK)
        assert not contradictions(world, *BY_SINK)


def test_a_broker_that_is_away_for_longer_than_it_knows_ids_doubles_nothing(tmp_path, dice, say):
    fenced_and_sql = [*BY_SINK[1:], *(one for one in TASKS if one.name in ("early", "revised"))]
    with World(tmp_path, dedup_window=2.0) as world:
        consumer = start(world, *fenced_and_sql)
        publisher = world.publisher(values(10_000, 400.0, dice), 400.0)
        outages = 0
        while publisher.running:
            world.after(dice.uniform(0.5, 2.0))
            world.broker.kill()
            if dice.random() < 0.5:
                consumer.stop(signal.SIGKILL)
                consumer.start()
            world.after(dice.uniform(2.5, 4.0))
            world.broker.start()
            outages += 1
        publisher.wait()
        say(f"{outages} outages")
        drain(world, consumer, *fenced_and_sql)
        assert not contradictions(world, *fenced_and_sql)


def test_a_model_server_that_is_away_for_a_minute_costs_neither_messages_nor_memory(tmp_path, dice, say):
    one = task(COUNTED, "patient", f"count:16,{FOR_EVER}", max_ack_pending=2_000)
    with World(tmp_path) as world:
        consumer = start(world, one)
        world.publisher(values(2_000, 1000.0, dice), 1000.0).wait()
        eventually(lambda: world.messages("RESULTS") > 50)
        before = consumer.rss_bytes()
        world.model.stop(signal.SIGKILL)
        publisher = world.publisher(values(60_000, 1000.0, dice), 1000.0)
        publisher.wait(120)
        growth = consumer.peak_bytes() - before
        assert world.ack_pending("patient") <= 2_000
        world.model.start()
        drain(world, consumer, one)
        say(f"grew by {growth / 2**20:.1f} MiB")
        assert growth < MOST_GROWTH_BYTES
        assert not contradictions(world, one)


SLOW_SINK = """
import time

def write(result):
    time.sleep(0.05)
    with open("written.jsonl", "a", encoding="utf-8") as file:
        file.write(f"{result.count}\\n")
"""


def test_a_slow_sink_holds_the_stream_back_and_not_in_memory(tmp_path, dice, say):
    (tmp_path / "slow_sink.py").write_text(SLOW_SINK)
    slow = task(COUNTED, "slow", f"count:100,{FOR_EVER}", key="", max_ack_pending=2_000, sinks=["slow_sink:write"])
    written = tmp_path / "written.jsonl"

    def messages() -> int:
        return sum(map(int, written.read_text().split())) if written.exists() else 0

    with World(tmp_path) as world:
        world.publisher(values(100_000, 10_000.0, dice)).wait(180)
        consumer = start(world, slow)
        eventually(lambda: messages() > 3_000)
        before = consumer.rss_bytes()
        eventually(lambda: messages() == 100_000, 180)
        growth = consumer.peak_bytes() - before
        say(f"grew by {growth / 2**20:.1f} MiB")
        assert growth < MOST_GROWTH_BYTES
        assert consumer.stop() == 0


def test_a_predict_that_is_slower_than_ack_wait_runs_once(tmp_path, dice):
    # Twice ack_wait and more, and windows queue for it.
    slow = task(COUNTED, "slow", f"count:16,{FOR_EVER}", version="slow-4", ack_wait=1.5)
    with World(tmp_path) as world:
        consumer = start(world, slow)
        world.publisher(values(500, 500.0, dice), 500.0).wait()
        drain(world, consumer, slow, bound=180)
        ran = (tmp_path / "data" / "ran").read_text().splitlines()
        assert len(set(ran)) == len(ran)
        assert not contradictions(world, slow)


PROVIDER = """
import json

def tasks():
    with open("plant.json", encoding="utf-8") as file:
        return json.load(file)
"""


def test_tasks_come_change_and_go_under_load_without_a_word_to_the_others(tmp_path, dice, say):
    (tmp_path / "plant.py").write_text(PROVIDER)
    steady = task(COUNTED, "steady", f"count:16,{FOR_EVER}")
    with World(tmp_path) as world:
        assert world.model

        def provide(*tasks: Task) -> None:
            (tmp_path / "plant.new").write_text(json.dumps([world.task(**one.table) for one in tasks]))
            (tmp_path / "plant.new").rename(tmp_path / "plant.json")

        provide(steady)
        consumer = world.consumer("--provider", "plant:tasks", "--interval", "0.3", file="")
        consumer.start()
        publisher = world.publisher(values(12_000, 400.0, dice), 400.0)
        changes = 0
        while publisher.running:
            sizes = {f"guest{number}": dice.choice((8, 16, 24)) for number in range(3) if dice.random() < 0.7}
            provide(steady, *(guest(name, size) for name, size in sizes.items()))
            changes += 1
            at = publisher.done
            eventually(lambda at=at: publisher.done > at + 400 or not publisher.running)
        guests = [guest(f"guest{number}", 24) for number in range(3)]
        provide(steady, *guests)
        for one in (steady, *guests):
            eventually(lambda one=one: world.caught_up(one.name), 60)
        assert consumer.stop() == 0, consumer.said()
        finish(world, steady, *guests)
        say(f"{changes} changes")
        begun = [line for line in consumer.said().splitlines() if "steady" in line and "running from" in line]
        assert len(begun) == 1, begun
        assert not contradictions(world, steady, *guests)


def guest(name: str, size: int) -> Task:
    return task(partial(judge_any_cut, sizes=(8, 16, 24)), name, f"count:{size},{FOR_EVER}")


def test_partitions_move_to_those_who_are_there_and_lose_nothing(tmp_path, dice, say):
    shared = task(COUNTED, "shared", f"count:16,{FOR_EVER}", partitions=6)
    with World(tmp_path) as world:
        first = start(world, shared)
        publisher = world.publisher(values(20_000, 400.0, dice), 400.0)
        eventually(lambda: publisher.done > 3_000, 60)
        others = [world.consumer(name=f"other{number}") for number in range(2)]
        for other in others:
            other.start()
        eventually(lambda: len(set(world.holders("shared").values())) == 3)
        eventually(lambda: publisher.done > 12_000, 60)
        victim = dice.choice((first, *others))
        victim.stop(signal.SIGKILL)
        publisher.wait(90)
        eventually(lambda: world.caught_up("shared"), 60)
        assert len(set(world.holders("shared").values())) == 2
        for process in (first, *others):
            if process is not victim:
                assert process.stop() == 0, process.said()
        finish(world, shared)
        assert not contradictions(world, shared)
        order = defaultdict(list)
        for result in world.results("shared"):
            order[result["key"]].append(result["window"]["members"][0][0])
        assert all(firsts == sorted(firsts) for firsts in order.values())

"""Tasks of every kind on one stream, and kills of everything that they stand on while messages keep coming."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stream_child import Child
from stream_reference import Hopping, Outcome, Sent, count, judge, judge_any_cut, session, sliding
from stream_world import PUBLISHED_AT_A_TIME, RESULTS, SUBJECT, Publisher, World
from waiting import eventually

__all__ = ["TASKS", "Task", "storm", "values"]

KEYS = 12
# By how much a message's own time may be off; some are off by more, and late: by so much that all windows which they
# could open are over, even by what a record tells of a key's time, and so differently that a window is corrected again
# when the message of its first correction is long acknowledged.
JITTER = 0.5
LATENESS = 2.0
LATE_PER_SECOND = 2.0
LATE_BY = (12.0, 17.0)
# Another clock ticks so seldom that its windows are closed for having waited long enough, and who comes then is late.
# Of some keys there is silence again and again, in which only the broker's clock can say so.
TICK = 1.5
SELDOM = ("k0", "k3")
# Who is killed, how often. A consumer that dies while another is away has work in flight, whatever the moment.
VICTIMS = {("consumer",): 3, ("broker",): 2, ("model",): 1, ("broker", "consumer"): 2, ("model", "consumer"): 2}

# How many kills between two words about them.
TOLD_EVERY = 10

Judge = Callable[[list[Sent], Outcome], list[str]]


@dataclass(frozen=True)
class Task:
    """A task's table, and what says whether all went well."""

    judge: Judge
    table: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.table["name"])

    def outcome(self, world: World) -> Outcome:
        sink = self.table.get("sinks", [""])[0]
        if not sink.startswith("sql:"):
            return world.outcome(self.name)
        return Outcome(rows(world.directory / DATABASE, self.name), world.dead(self.name))


def task(judge: Judge, name: str, window: str, **table: Any) -> Task:
    return Task(judge, {"name": name, "window": window, "key": "field:k", **table})


DATABASE = "results.db"
SQL = f"sql:sqlite:///{DATABASE}#results"
# A window that only the data closes waits longer than any test takes.
FOR_EVER = "max_wait=1h"

COUNTED = partial(judge, reference=count(16))

_IN_TIME = f"lateness={LATENESS:g}s,{FOR_EVER}"

TASKS = [
    task(
        partial(judge, reference=count(32, keyed=False)),
        *("one", f"count:32,{FOR_EVER}"),
        key="",
        sinks=["nats:results.one.all"],
    ),
    task(partial(COUNTED, bad=True), "keyed", f"count:16,{FOR_EVER}", version="strict"),
    task(COUNTED, "fenced", f"count:16,{FOR_EVER}", sinks=["nats-fenced:results.fenced.{key}"]),
    task(COUNTED, "sql", f"count:16,{FOR_EVER}", sinks=[SQL]),
    task(
        partial(judge, reference=count(48, early=20), reasons=("early", "full")),
        *("early", f"count:48,early=20,{FOR_EVER}"),
        sinks=["nats-fenced:results.early.{key}"],
    ),
    task(partial(judge, reference=sliding(12, 5)), "sliding", f"sliding:12:5,{FOR_EVER}"),
    task(partial(judge, reference=Hopping(1.0, 1.0)), "stored", "tumbling:1s,lateness=1s"),
    task(
        partial(judge, reference=Hopping(2.0, 2.0, LATENESS, own="t")),
        *("own", f"tumbling:2s,{_IN_TIME}"),
        time="field:t",
    ),
    task(
        partial(judge, reference=Hopping(3.0, 1.0, LATENESS, own="t")),
        *("hopping", f"hopping:3s:1s,{_IN_TIME}"),
        time="field:t",
    ),
    task(
        partial(judge, reference=Hopping(2.0, 2.0, LATENESS, own="t", amend=True), reasons=("time", "amended")),
        *("amended", f"tumbling:2s,late=amend,{_IN_TIME}"),
        time="field:t",
    ),
    task(
        partial(
            judge,
            reference=Hopping(3.0, 1.0, LATENESS, own="t", amend=True, early=40),
            reasons=("early", "time", "amended"),
        ),
        *("revised", f"hopping:3s:1s,late=amend,early=40,{_IN_TIME}"),
        time="field:t",
        sinks=[SQL],
    ),
    task(
        partial(judge, reference=Hopping(0.125, 0.125, 0.125, 0.25, own="tick", keys=SELDOM), reasons=("idle",)),
        *("silent", "tumbling:125ms,lateness=125ms,max_wait=250ms"),
        time="field:tick",
        subjects=[f"{SUBJECT}.{key}" for key in SELDOM],
        dead_letters={"max_ratio": 1.0},
    ),
    task(partial(judge, reference=session(0.4)), "session", f"session:400ms,lateness=1s,{FOR_EVER}"),
    task(partial(judge_any_cut, sizes=(64,)), "idle", "count:64,max_wait=300ms"),
]


def values(number: int, rate: float, dice: random.Random) -> Iterator[dict[str, Any]]:
    """Make messages of keys that come and go, most in time, some late, a few bad."""
    begin = time.time()
    assert PUBLISHED_AT_A_TIME / rate + 2 * JITTER <= LATENESS, "they would be late by themselves"
    for at in range(number):
        # A few keys speak at a time, for a third of a second or so, and then are silent.
        shift = int(at / rate * 3)
        now = begin + at / rate
        late = dice.choice(LATE_BY) if dice.random() < LATE_PER_SECOND / rate else 0.0
        yield {
            "n": at,
            "k": f"k{(shift * 5 + dice.choice((0, 1, 4))) % KEYS}",
            "t": now + dice.uniform(-JITTER, JITTER) - late,
            "tick": now // TICK * TICK,
            "v": dice.randrange(1_000_000),
            **({"bad": True} if dice.random() < 0.003 else {}),
        }


def storm(
    world: World,
    dice: random.Random,
    messages: int,
    kills: int,
    rate: float,
    say: Callable[[str], object] = print,
) -> None:
    """Kill and restart while messages are published; returns when all that was published is done with.

    Args:
        world: With an empty source stream.
        dice: Throws messages, moments and victims.
        messages: How many.
        kills: How many.
        rate: Messages per second.
        say: Told now and then how far it is.
    """
    processes = {"model": world.model, "consumer": start(world, *TASKS)}
    whens = sorted(dice.uniform(0.04, 0.96) * messages for _ in range(kills))
    victims = dice.choices(list(VICTIMS), list(VICTIMS.values()), k=kills)
    begin = time.monotonic()

    def tell(what: str) -> None:
        say(f"{time.monotonic() - begin:.0f} s: {what}")

    publisher = world.publisher(values(messages, rate, dice), rate)
    for number, (when, who) in enumerate(zip(whens, victims, strict=True), 1):
        eventually(lambda when=when: publisher.done >= when or not publisher.running, messages / rate + 60)
        if "consumer" in who and dice.random() < 0.75:
            # Most are to die at work, and not while they start.
            wait_for_work(world, processes["consumer"], publisher)
            world.after(dice.uniform(0.0, 1.5))
        for name in who:
            kill(world, processes, name)
            world.after(dice.uniform(0.0, 0.5))
        for name in who:
            (world.broker if name == "broker" else processes[name]).start()
        if number % TOLD_EVERY == 0:
            tell(f"{number} of {kills} kills, {publisher.done} of {messages} messages")
    publisher.wait()
    killed = ", ".join(f"{count} × {' and '.join(who)}" for who, count in Counter(victims).items())
    tell(f"all {messages} messages published, killed {killed}")
    # What could not be done between the kills is done now.
    drain(world, processes["consumer"], *TASKS, bound=60 + messages / 300)
    tell(f"all done, {world.messages(RESULTS)} results of {len(TASKS)} tasks and those in the database")


def kill(world: World, processes: dict[str, Child], name: str) -> None:
    if name == "broker":
        world.broker.kill()
    else:
        assert processes[name].alive, f"the {name} ended by itself:\n{processes[name].said()[-4000:]}"
        processes[name].stop(signal.SIGKILL)


def start(world: World, *tasks: Task) -> Child:
    """Begin to consume."""
    world.write_tasks(*(task.table for task in tasks))
    consumer = world.consumer()
    consumer.start()
    return consumer


def wait_for_work(world: World, consumer: Child, publisher: Publisher) -> None:
    """Wait until there is another result; at the end there may be none."""
    before = world.messages(RESULTS)
    eventually(lambda: world.messages(RESULTS) > before or not (consumer.alive and publisher.running), 60)


def drain(world: World, consumer: Child, *tasks: Task, bound: float = 60.0) -> None:
    """Wait until the consumer has done what it can do, end it, and let another close what is open."""

    def quiet() -> bool:
        before = world.messages(RESULTS)
        world.after(2.0)
        return world.messages(RESULTS) == before and all(world.caught_up(task.name) for task in tasks)

    eventually(lambda: not consumer.alive or "running from" in consumer.said(), bound)
    eventually(lambda: not consumer.alive or quiet(), bound)
    assert consumer.alive, f"it ended by itself:\n{consumer.said()[-4000:]}"
    assert consumer.stop() == 0, consumer.said()[-4000:]
    finish(world, *tasks, bound=bound)


def finish(world: World, *tasks: Task, bound: float = 60.0) -> None:
    """Consume what is there, close what is open, and see that nothing is left unacknowledged."""
    world.write_tasks(*(task.table for task in tasks))
    last = world.consumer("--once", name="last")
    last.start()
    assert last.wait(bound) == 0, last.said()[-4000:]
    for task in tasks:
        assert world.caught_up(task.name) and not world.ack_pending(task.name), task.name


def contradictions(world: World, *tasks: Task) -> list[str]:
    """Say what is wrong with the outcome of each task; printed, too, since an assertion shows only some of it."""
    sent = world.sent()
    found = [f"{task.name}: {complaint}" for task in tasks for complaint in task.judge(sent, task.outcome(world))]
    print(*found, sep="\n")
    return found


def rows(database: Path, task: str) -> list[dict[str, Any]]:
    """The table of the SQL sink, as documents."""
    if not database.exists():
        return []
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        query = (
            'SELECT "key", "window", revision, "start", "end", "count", reason, members, dropped, result FROM results'
        )
        found = connection.execute(f"{query} WHERE task = ? ORDER BY rowid", [task]).fetchall()
    finally:
        connection.close()
    return [
        {
            "key": key,
            "window": {
                "id": name,
                "revision": revision,
                "start": begin,
                "end": end,
                "count": number,
                "reason": reason,
                "members": json.loads(members),
            },
            "dropped": json.loads(dropped),
            "result": json.loads(result),
        }
        for key, name, revision, begin, end, number, reason, members, dropped, result in found
    ]

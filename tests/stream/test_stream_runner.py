"""Many tasks in one process, and tasks that come and go."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from brokers import Nats, until
from ports import free_port
from stream_lab import Lab, members_of, run

from aipod.errors import ConfigError, Unavailable
from aipod.stream import keeper as keepers
from aipod.stream.broker.connection import Connect
from aipod.stream.broker.consumer import ensure
from aipod.stream.dev import DevServer
from aipod.stream.errors import LostEnd, TaskStopped
from aipod.stream.pauses import Pauses
from aipod.stream.pipeline import consumer_of
from aipod.stream.plan import plan
from aipod.stream.runner import Runner
from aipod.stream.status import Standing, look
from aipod.stream.supervisor import Share
from aipod.stream.tasks import Provider, StreamTask


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepers, "Pauses", lambda *_: Pauses(0.05, 0.2, 60.0))


def values(count: int, keys: int = 1, first: int = 1) -> list[dict[str, Any]]:
    return [{"k": f"k{number % keys}", "v": number} for number in range(first, first + count)]


def named(lab: Lab, name: str, **own: Any) -> StreamTask:
    """A task of the lab's source, with results, a durable and a lease of its own."""
    name = f"{lab.name}_{name}"
    own = {"sinks": [f"nats:{lab.name}.out.{name}.{{key}}"], **own}
    return lab.task(name=name, durable=name, **own)


TASK = {"name": "x", "subject": "a.>", "window": "count:4", "model": "127.0.0.1:9", "sink": "stdout"}


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [f"{record.name.removeprefix('aipod.stream.')}: {record.getMessage()}" for record in caplog.records]


@asynccontextmanager
async def at_work(runner: Runner) -> AsyncIterator[Runner]:
    running = asyncio.ensure_future(runner.run())
    try:
        yield runner
    finally:
        runner.stop()
        await asyncio.wait_for(running, 15)


def state(runner: Runner, task: StreamTask) -> str:
    parts = runner.statistics().get(task.name, {}).get("partitions", [{"state": "absent"}])
    return str(parts[0]["state"])


class Given:
    """A provider that gives what it is told to."""

    def __init__(self, *tasks: StreamTask) -> None:
        self.now: list[StreamTask] | Exception = list(tasks)
        self.asked = 0

    def tasks(self) -> list[StreamTask]:
        self.asked += 1
        if isinstance(self.now, Exception):
            raise self.now
        return self.now


def test_tasks_run_side_by_side_and_one_that_fails_takes_none_down(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            good = named(lab, "good")
            bad = named(lab, "bad", stream="NOWHERE")
            await lab.publish(values(8))
            async with at_work(Runner([bad, good])) as runner:
                await lab.results_are(2)
                await lab.until(lambda: state(runner, bad) == "failed")
                assert state(runner, good) == "running"
                assert not runner.serving
                problem = runner.statistics()[bad.name]["partitions"][0]["problem"]
                assert "NOWHERE" in problem

    run(main())


def test_a_task_whose_stream_has_lost_its_end_stays_stopped_when_the_stream_has_grown_again(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            good, bad = named(lab, "good"), named(lab, "bad")
            await lab.publish(values(2))
            with pytest.raises(LostEnd):  # what was acknowledged, up to 6, is not there
                await ensure(lab.connection, consumer_of(bad, 0), after=6)
            async with at_work(Runner([bad, good])) as runner:
                await lab.until(lambda: state(runner, bad) == "stopped")
                await lab.publish(values(10))
                await lab.results_are(3)
                await lab.floor_is(12, good.source.durable)
                part = runner.statistics()[bad.name]["partitions"][0]
                assert part["state"] == "stopped" and "delete consumer" in part["problem"]
                assert len(await lab.results()) == 3

    run(main())


def test_what_failed_is_begun_anew_and_runs_once_it_is_mended(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            stream = f"L_{lab.name}"
            task = named(lab, "later", stream=stream, subjects=[f"{lab.name}.later"])
            said: list[bool] = []
            async with at_work(Runner([task], on_serving=said.append)) as runner:
                await lab.until(lambda: state(runner, task) == "failed")
                await lab.make("L", f"{lab.name}.later")
                await lab.until(lambda: state(runner, task) == "running")
                for number in range(4):
                    await lab.connection.js.publish(f"{lab.name}.later", b'{"k": "a", "v": %d}' % number)
                await lab.results_are(1)
                assert runner.serving and said[-1]
                assert runner.statistics()[task.name]["counters"]["restarts"] >= 1
            assert said[0] is False

    run(main())


def test_why_a_task_does_not_run_is_told_to_those_who_ask_the_broker_until_it_runs(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What has failed has not begun again by the time that somebody asks.
    monkeypatch.setattr(keepers, "Pauses", lambda *_: Pauses(3600.0, 3600.0))

    async def main() -> None:
        async with lab:
            task = named(lab, "told", sinks=[f"{__name__}:shelf"])

            async def standing() -> Standing:
                (found,) = await look(lab.connection, task)
                return found

            async def says(state: str) -> None:
                async def is_true() -> bool:
                    return (await standing()).state == state

                await lab.until(is_true)

            full.set()
            await says("new")
            await lab.publish(values(4))
            async with at_work(Runner([task])) as runner:
                await says("failed")
                found = await standing()
                assert "the shelf is full" in found.problem
                assert found.holder == runner.holder and 0 < found.told < 20
            # It outlives who had put it up.
            assert (await standing()).problem == found.problem
            full.clear()
            async with at_work(Runner([task])):
                await says("running")
                assert (await standing()).problem == ""
                await lab.floor_is(4, task.source.durable)
            assert ((await standing()).state, (await standing()).problem) == ("nobody", "")

    run(main())


full = threading.Event()


def shelf(result: Any) -> None:
    if full.is_set():
        raise ConfigError(["the shelf is full"])


def test_with_once_the_reason_stays_behind(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            await lab.publish([b"junk"] * 50)
            task = named(lab, "junk", dead_letters={"min_count": 10, "over": 20}, lease=False)
            with pytest.raises(TaskStopped):
                await Runner([task], once=True).run()
            (found,) = await look(lab.connection, task)
            assert found.state == "stopped" and "would be dead letters" in found.problem

    run(main())


def test_a_task_that_has_stopped_for_good_is_not_begun_anew(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            await lab.publish([b"junk"] * 50)
            task = named(lab, "junk", dead_letters={"min_count": 10, "over": 20})
            async with at_work(Runner([task, named(lab, "good", subjects=[f"{lab.name}.in.none"])])) as runner:
                await lab.until(lambda: state(runner, task) == "stopped")
                for _ in range(50):  # many times the pause
                    await asyncio.sleep(0.01)
                assert state(runner, task) == "stopped"
                assert runner.statistics()[task.name]["counters"]["restarts"] == 0
                assert "would be dead letters" in runner.statistics()[task.name]["partitions"][0]["problem"]

    run(main())


def test_when_the_last_task_has_stopped_for_good_there_is_nothing_left_to_run(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            await lab.publish([b"junk"] * 50)
            tasks = [named(lab, name, dead_letters={"min_count": 10, "over": 20}) for name in ("one", "two")]
            runner = Runner(tasks)
            with pytest.raises(Unavailable, match="every task has stopped for good"):
                await asyncio.wait_for(runner.run(), 20)
            assert [state(runner, task) for task in tasks] == ["stopped", "stopped"]
            # Those who ask the broker are told, though nobody is there any more.
            told = [standing for task in tasks for standing in await look(lab.connection, task)]
            assert [standing.state for standing in told] == ["stopped", "stopped"]
            # A worker would be started again, and a provider may change the task.
            for held in (Runner(tasks, share=Share(1, 1)), Runner(provider=Provider(Given(*tasks), "given"))):
                async with at_work(held):
                    await lab.until(lambda held=held: all(state(held, task) == "stopped" for task in tasks))

    run(main())


def test_a_providers_tasks_come_change_and_go_and_the_others_notice_nothing(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            steady, passing = named(lab, "steady"), named(lab, "passing")
            given = Given(steady)
            provider = Provider(given, "given")
            await lab.publish(values(4))
            async with at_work(Runner(provider=provider, interval=0.05)) as runner:
                await lab.results_are(1)
                given.now = [steady, passing]
                await lab.results_are(2)
                # Changed: the old one's window of two is given back, and is part of the new one's first.
                await lab.publish(values(2))
                given.now = [steady, named(lab, "passing", window="count:3")]
                await lab.until(lambda: runner.statistics()[passing.name]["counters"]["takeovers"] == 1)
                await lab.publish(values(1))
                await lab.results_are(3)
                given.now = [steady]
                await lab.until(lambda: passing.name not in runner.statistics())
                assert runner.statistics()[steady.name]["counters"]["restarts"] == 0
                assert runner.statistics()[steady.name]["counters"]["takeovers"] == 1
            results = await lab.results()
            assert [members_of(one) for one in results if one["task"] == steady.name] == [[1, 2, 3, 4]]
            assert [members_of(one) for one in results if one["task"] == passing.name] == [[1, 2, 3, 4], [5, 6, 7]]

    run(main())


def test_a_broker_that_no_task_names_any_more_is_let_go(lab: Lab, own_nats: Nats) -> None:
    async def main() -> None:
        other = Lab(own_nats.url, lab.name, lab.model)
        async with lab, other:
            given = Given(named(other, "steady"))
            runner = Runner(provider=Provider(given, "given"), interval=0.05)
            async with at_work(runner):
                await lab.until(lambda: runner.serving)
                left = await runner.connected(Connect((own_nats.url,)))
                given.now = [named(lab, "steady")]
                await lab.until(lambda: left.nc.is_closed and runner.serving)
                await asyncio.to_thread(own_nats.server.kill)
                await lab.publish(values(4))
                await lab.results_are(1)
                assert runner.serving

    run(main())


def test_a_broker_without_jetstream_is_said_to_be_and_nothing_serves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(url: str) -> None:
        task = TASK | {"nats": url, "name": "x"}
        both = [StreamTask.from_dict(task), StreamTask.from_dict({**task, "name": "y", "key": "k", "partitions": 2})]
        runner = Runner(both)
        async with at_work(runner):
            for what in ("x: the lease: ", "the processes of the task (member.y"):
                await until(lambda what=what: any(what in line for line in lines(caplog)))
            assert not runner.serving
            assert {state(runner, task) for task in both} == {"starting"}

    with DevServer(tmp_path, more={"jetstream": False}) as server:
        run(main(server.url))
    assert "JetStream is not available now; is it switched on?; trying again until it works" in caplog.text


def test_a_broker_that_does_not_permit_the_lease_fails_the_task(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(url: str) -> None:
        nats = {"servers": url, "user": "a", "password": "b"}
        task = StreamTask.from_dict({**TASK, "nats": nats})
        runner = Runner([task])
        async with at_work(runner):
            planning = asyncio.ensure_future(plan(await runner.connected(task.source.connect), task))
            await until(lambda: state(runner, task) == "failed")
            [finding] = [one for one in await planning if one.what == "lease"]
            assert not finding.good and "does not permit" in finding.how
            assert not runner.serving
            problem = runner.statistics()[task.name]["partitions"][0]["problem"]
            assert "the broker does not permit what is needed for bucket 'aipod'" in problem

    denied = {"publish": {"deny": ["$JS.API.STREAM.CREATE.KV_aipod", "$JS.API.STREAM.INFO.KV_aipod"]}}
    user = {"user": "a", "password": "b", "permissions": denied}
    with DevServer(tmp_path, more={"authorization": {"users": [user]}}) as server:
        run(main(server.url))
    assert "does not permit" in caplog.text and "; trying again in " in caplog.text


def test_a_provider_that_cannot_be_asked_leaves_the_tasks_as_they_are(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with lab:
            task = named(lab, "steady")
            given = Given(task)
            async with at_work(Runner(provider=Provider(given, "given"), interval=0.05)) as runner:
                await lab.until(lambda: state(runner, task) == "running")
                given.now = Unavailable("the table is locked")
                asked = given.asked
                await lab.until(lambda: given.asked >= asked + 3)
                await lab.publish(values(4))
                await lab.results_are(1)
                assert state(runner, task) == "running"

    run(main())
    assert "the tasks stay as they are: the table is locked" in caplog.text


def test_a_providers_first_answer_has_to_make_sense(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            task = named(lab, "one")
            with pytest.raises(ConfigError):
                await Runner(provider=Provider(Given(task, task), "given")).run()

    run(main())


def test_with_once_it_ends_when_all_is_done(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            await lab.publish(values(10))
            one, other = named(lab, "one"), named(lab, "other", window="count:5")
            runner = Runner([one, other], once=True)
            await runner.run()
            assert runner.statistics()[one.name]["counters"]["messages"] == 10
            members = [members_of(result) for result in await lab.results()]
            assert sorted(seq for window in members for seq in window) == sorted([*range(1, 11)] * 2)

    run(main())


def test_with_once_what_a_task_fails_with_is_raised_and_the_others_are_done(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            await lab.publish([*values(4), *[b"junk"] * 30])
            stopped = named(lab, "stopped", dead_letters={"min_count": 10, "over": 20})
            other = named(lab, "other", dead_letters={"max_ratio": 1.0})
            with pytest.raises(TaskStopped):
                await Runner([stopped, other], once=True).run()
            members = [members_of(one) for one in await lab.results() if one["task"] == other.name]
            assert members == [[1, 2, 3, 4]]

    run(main())


def test_it_can_be_stopped_while_its_broker_was_never_there(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        task = lab.task(nats=f"nats://127.0.0.1:{free_port()}")
        async with at_work(Runner([task])) as runner:
            await lab.until(lambda: "is away; trying again" in caplog.text)
            assert not runner.serving and state(runner, task) == "starting"

    run(main())


def test_all_tasks_of_one_broker_share_a_connection(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            runner = Runner([named(lab, str(number)) for number in range(3)])
            async with at_work(runner):
                await lab.until(lambda: runner.serving)
                spec = Connect((lab.url,))
                assert await runner.connected(spec) is await runner.connected(spec)

    run(main())


def test_workers_share_tasks_out_and_each_runs_in_one_of_them(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            tasks = [named(lab, str(number)) for number in range(4)]
            runners = [Runner(tasks, share=Share(number, 2)) for number in (1, 2)]
            async with at_work(runners[0]), at_work(runners[1]):
                await lab.until(lambda: all(runner.serving for runner in runners))
                names = [set(runner.statistics()) for runner in runners]
            assert not names[0] & names[1] and len(names[0] | names[1]) == 4

    run(main())


def holding(runner: Runner, task: StreamTask) -> int:
    parts = runner.statistics().get(task.name, {}).get("partitions", [])
    return sum(part["state"] == "running" for part in parts)


def test_processes_share_partitions_and_rebalance_when_one_comes_or_goes(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            task = named(lab, "parts", partitions=4, lease_ttl=1.0)
            first, second = Runner([task]), Runner([task])
            sent = 0

            async def more() -> None:
                nonlocal sent
                await lab.publish(values(80, keys=8, first=sent))
                sent += 80

            async with at_work(first):
                await lab.until(lambda: holding(first, task) == 4)
                await more()
                async with at_work(second):
                    await more()
                    await lab.until(lambda: (holding(first, task), holding(second, task)) == (2, 2))
                    await more()
                await lab.until(lambda: holding(first, task) == 4)
                await more()
                results = await lab.results_are(80)
            members = [seq for result in results for seq in members_of(result)]
            assert sorted(members) == list(range(1, 321))
            for key in {result["key"] for result in results}:
                order = [members_of(result) for result in results if result["key"] == key]
                assert order == sorted(order), "the windows of a key are recorded in order, whoever does it"

    run(main(), 60.0)

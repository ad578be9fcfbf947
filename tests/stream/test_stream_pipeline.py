"""A task from its subject to its results, with a real broker and a real model server."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
from brokers import Nats
from ports import free_port
from stream_lab import Lab, members_of, run, start_model
from stream_lab_model import sums

from aipod.errors import ConfigError, InvalidArgument, Unavailable
from aipod.stream import pipeline as pipelines
from aipod.stream import tenure as tenures
from aipod.stream.broker.bucket import Bucket
from aipod.stream.broker.consumer import ensure
from aipod.stream.broker.lease import lease_key
from aipod.stream.errors import Diverged, TaskStopped
from aipod.stream.origin import mark_of
from aipod.stream.pipeline import BUCKET, consumer_of
from aipod.stream.result import Recorded, Result
from aipod.stream.windows import Windower


@pytest.mark.parametrize("moment", [0.0, 0.002, 0.004, 0.006, 0.008, 0.01, 0.02, 0.03])
def test_whoever_is_told_to_leave_leaves_at_any_moment_of_the_beginning(lab: Lab, moment: float) -> None:
    async def main() -> None:
        async with lab:
            await lab.publish(values(8))
            running = asyncio.ensure_future(lab.pipeline(lab.task()).run())
            await asyncio.sleep(moment)
            running.cancel()
            done, _ = await asyncio.wait({running}, timeout=5)
            assert done
            # Nothing of it is left that another would have to wait for.
            await asyncio.wait_for(lab.once(lab.task()), 5)
            await lab.floor_is(8)

    run(main())


def values(count: int, keys: int = 1) -> list[dict[str, Any]]:
    return [{"k": f"k{number % keys}", "v": number} for number in range(1, count + 1)]


def test_what_is_published_becomes_results_of_the_right_content_and_is_acknowledged(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            sent = values(24, keys=2)
            await lab.publish(sent)
            async with lab.running(lab.task()) as pipeline:
                results = await lab.results_are(6)
                await lab.floor_is(24)
            for result in results:
                assert result["result"] == sums([sent[seq - 1] for seq in members_of(result)])
                assert result["window"]["reason"] == "full"
            assert sorted(seq for result in results for seq in members_of(result)) == list(range(1, 25))
            for key in ("k0", "k1"):
                first = [members_of(result)[0] for result in results if result["key"] == key]
                assert first == sorted(first)
            counters = pipeline.statistics.as_dict()["counters"]
            assert (counters["messages"], counters["windows"], counters["results"]) == (24, 6, 6)

    run(main())


def test_what_was_open_when_one_left_is_in_the_windows_of_the_next(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            await lab.publish(values(10))
            async with lab.running(lab.task()) as pipeline:
                await lab.results_are(2)
                await lab.until(lambda: pipeline.statistics.as_dict()["gauges"]["open_messages"] == 2)
            assert await lab.floor() == -1, "what is open must not be acknowledged"
            await lab.publish(values(2))
            async with lab.running(lab.task()):
                await lab.results_are(3)
                await lab.floor_is(12)
            assert await lab.windows() == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]

    run(main())


def test_windows_of_a_quiet_stream_are_closed(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            await lab.publish(values(3))
            async with lab.running(lab.task(max_wait=0.3)):
                (result,) = await lab.results_are(1)
                await lab.floor_is(3)
            assert (result["window"]["reason"], members_of(result)) == ("idle", [1, 2, 3])

    run(main())


@pytest.mark.parametrize("window", ["tumbling:500ms", "session:300ms", "hopping:600ms:300ms"])
def test_windows_in_time_of_a_quiet_stream_are_closed_and_all_is_acknowledged(lab: Lab, window: str) -> None:
    async def main() -> None:
        async with lab:
            await lab.publish(values(6, keys=3))
            async with lab.running(lab.task(window=window)):
                await lab.floor_is(6)
            members = {seq for window in await lab.windows() for seq in window}
            assert members == set(range(1, 7))
            assert not await lab.dead()

    run(main())


def test_once_closes_what_is_open_and_ends(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            await lab.publish(values(10))
            await lab.once(lab.task())
            results = await lab.results()
            assert [result["window"]["reason"] for result in results] == ["full", "full", "end"]
            await lab.floor_is(10)
            await lab.once(lab.task())
            assert len(await lab.results()) == 3

    run(main())


def test_a_bad_message_of_32_gives_a_result_of_31_and_one_dead_letter(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            sent = values(32)
            sent[16]["bad"] = True
            await lab.publish(sent, Origin="here")
            async with lab.running(lab.task(window="count:32", version="strict")):
                (result,) = await lab.results_are(1)
                await lab.floor_is(32)
            assert result["result"] == sums(sent[:16] + sent[17:])
            assert result["dropped"] == [[17, 17]]
            ((headers, data),) = await lab.dead()
            assert b'"v": 17' in data
            assert (headers["Aipod-Sequence"], headers["Aipod-Error"], headers["Origin"]) == (
                "17",
                "InvalidArgument",
                "here",
            )
            assert headers["Aipod-Error-Id"] and "is bad" in headers["Aipod-Reason"]

    run(main())


def test_what_cannot_be_read_goes_to_the_dead_letters_and_stops_nothing(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            sent: list[Any] = values(8)
            await lab.publish([*sent[:3], b"\xff{", b"", b"[]", {"v": 1}, *sent[3:]])
            async with lab.running(lab.task()) as pipeline:
                await lab.results_are(2)
                await lab.floor_is(12)
                assert pipeline.statistics.unreadable == 4
            assert await lab.windows() == [[1, 2, 3, 8], [9, 10, 11, 12]]
            assert sorted(int(headers["Aipod-Sequence"]) for headers, _ in await lab.dead()) == [4, 5, 6, 7]

    run(main())


def test_a_window_that_is_too_much_for_one_request_fails_the_task_and_buries_nobody(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            await lab.publish([{"k": "k0", "v": number, "pad": "x" * 700_000} for number in range(2)])
            with pytest.raises(ConfigError, match="a window of 2 messages is too much for one request"):
                await lab.pipeline(lab.task(window="count:2")).run()
            assert not await lab.dead()
            await lab.once(lab.task(window="count:1"))
            assert await lab.windows() == [[1], [2]]

    run(main())


def test_a_message_that_alone_is_too_much_for_a_request_goes_to_the_dead_letters(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            sent: list[Any] = values(4)
            sent[1]["pad"] = [0.5] * 180_000  # which takes less than a MiB as text, and more packed
            await lab.publish(sent)
            await lab.once(lab.task())
            (result,) = await lab.results()
            assert result["dropped"] == [[2, 2]]
            assert len(await lab.dead()) == 1

    run(main())


def test_once_waits_until_what_another_left_unacknowledged_is_acknowledged(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            await lab.publish(values(8))
            task = lab.task(ack_wait=1.0)
            # Somebody takes all and vanishes without a word.
            async with lab.running(task) as pipeline:
                await lab.results_are(2)
                await lab.floor_is(8)
            await lab.publish(values(8))
            await ensure(lab.connection, consumer_of(task, 0))
            inbox = lab.connection.nc.new_inbox()
            taken = await lab.connection.nc.subscribe(inbox)
            subject = f"$JS.API.CONSUMER.MSG.NEXT.E_{lab.name}.{lab.name}"
            await lab.connection.nc.publish(subject, b'{"batch": 8, "no_wait": true}', reply=inbox)
            for _ in range(8):
                await taken.next_msg()
            await lab.once(task)
            assert await lab.floor() == 16
            assert pipeline.statistics.results == 2

    run(main())


def test_a_task_that_buries_most_of_its_messages_stops_and_says_so(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            await lab.publish([b"junk"] * 400)
            task = lab.task(dead_letters={"min_count": 20, "over": 100})
            with pytest.raises(TaskStopped, match="would be dead letters"):
                await lab.pipeline(task).run()
            assert len(await lab.dead()) < 100

    run(main())


LATE = [{"k": "a", "v": number, "t": time} for number, time in enumerate((1.0, 2.0, 3.0, 11.0, 4.0, 12.0, 21.0))]


def late_task(lab: Lab, policy: str) -> Any:
    return lab.task(window="tumbling:10s", time="t", late=policy, max_ahead=0.0)


def test_a_late_message_goes_to_the_dead_letters(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            await lab.publish(LATE)
            await lab.once(late_task(lab, "dead_letter"))
            assert await lab.windows() == [[1, 2, 3], [4, 6], [7]]
            ((headers, _),) = await lab.dead()
            assert headers["Aipod-Sequence"] == "5"
            await lab.floor_is(7)

    run(main())


def test_a_late_message_can_be_dropped_and_is_counted(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            await lab.publish(LATE)
            pipeline = await lab.once(late_task(lab, "drop"))
            assert await lab.windows() == [[1, 2, 3], [4, 6], [7]]
            assert not await lab.dead() and pipeline.statistics.late == 1
            await lab.floor_is(7)

    run(main())


def test_a_late_message_can_amend_its_window(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            sent = [*LATE[:5], {"k": "a", "v": 9, "t": 5.0}, *LATE[5:]]
            await lab.publish(sent)
            await lab.once(late_task(lab, "amend"))
            results = await lab.results()
            first = [result for result in results if result["window"]["start"] == 0]
            assert [members_of(result) for result in first] == [[1, 2, 3], [1, 2, 3, 5], [1, 2, 3, 5, 6]]
            assert [result["window"]["revision"] for result in first] == [0, 1, 2]
            assert first[-1]["result"] == sums([*sent[:3], *sent[4:6]])
            await lab.floor_is(8)
            # What has been amended is obeyed by the next one.
            await lab.publish([{"k": "a", "v": 10, "t": 6.0}])
            await lab.once(late_task(lab, "amend"))
            assert (await lab.results())[-1]["window"]["revision"] == 3

    run(main())


@pytest.mark.parametrize("restart", [False, True])
def test_a_late_message_amends_its_window_as_long_as_it_is_retained_in_another_life_too(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, restart: bool
) -> None:
    monkeypatch.setattr(tenures, "_CLOCKS_APART", 0.0)
    first = [{"k": key, "v": 0, "t": time} for time in (0.0, 1.0, 2.0) for key in "ab"]
    late = [{"k": key, "v": 0, "t": 0.05} for key in "ab"]

    async def main() -> None:
        async with lab:
            task = lab.task(window="tumbling:100ms,max_wait=100ms,late=amend", time="t")
            async with lab.running(task):
                await lab.publish(first)
                await lab.floor_is(6)
                # From here on all of it has been recorded for longer than a window is open.
                await asyncio.sleep(0.5)
                if not restart:
                    await lab.publish(late)
                    await lab.floor_is(8)
            async with lab.running(task):
                if restart:
                    await lab.publish(late)
                await lab.floor_is(8)
            assert not await lab.dead()
            amended = [one for one in await lab.results() if one["window"]["reason"] == "amended"]
            assert sorted((one["key"], members_of(one)) for one in amended) == [("a", [1, 7]), ("b", [2, 8])]

    run(main())


def test_a_message_from_the_future_goes_to_the_dead_letters(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            await lab.publish(
                [{"k": "a", "v": 0, "t": 1.0}, {"k": "a", "v": 1, "t": 4e9}, {"k": "a", "v": 2, "t": 2.0}]
            )
            pipeline = await lab.once(lab.task(window="tumbling:10s", time="t"))
            assert await lab.windows() == [[1, 3]]
            ((headers, _),) = await lab.dead()
            assert headers["Aipod-Sequence"] == "2" and "max_ahead" in headers["Aipod-Reason"]
            assert pipeline.statistics.ahead == 1
            await lab.floor_is(3)

    run(main())


def test_early_results_come_under_revisions_of_their_own(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            await lab.publish(values(6))
            await lab.once(lab.task(window="count:6,early=2"))
            found = [
                (result["window"]["revision"], result["window"]["reason"], len(members_of(result)))
                for result in await lab.results()
            ]
            assert found == [(0, "early", 2), (1, "early", 4), (2, "full", 6)]
            await lab.floor_is(6)

    run(main())


def test_a_fenced_subject_has_an_early_result_once_after_a_restart_however_much_its_key_has_behind_it(
    nats: Nats, model: str
) -> None:
    async def main() -> None:
        async with Lab(nats.url, nats.unique("lab"), model, dedup=0.1) as lab:
            # More windows than wait to be looked at until the key's next message comes, and one that is begun.
            closed = 150
            await lab.publish(values(2 * closed + 1))
            task = lab.task(window="count:2,early=1", sinks=[f"nats-fenced:{lab.name}.out.{{key}}"])
            async with lab.running(task):
                await lab.results_are(2 * closed + 1)
                await lab.floor_passes(2 * closed)
            await asyncio.sleep(0.3)  # the broker has forgotten the id; the subject has not
            await lab.once(task)
            last = f"s{2 * closed + 1}"
            found = [one["window"] for one in await lab.results() if one["window"]["id"] == last]
            assert [(one["revision"], one["reason"]) for one in found] == [(0, "early"), (1, "end")]

    run(main())


def test_a_result_too_large_for_the_broker_goes_to_the_dead_letters_and_the_next_one_comes(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            stream = f"R_{lab.name}"
            config = (await lab.connection.api(f"STREAM.INFO.{stream}"))["config"]
            await lab.connection.api(f"STREAM.UPDATE.{stream}", {**config, "max_msg_size": 2000})
            large = [{"k": "k0", "v": number, "pad": "x" * 600} for number in range(4)]
            await lab.publish([*large, *values(4)])
            async with lab.running(lab.task(version="echo")) as pipeline:
                await lab.results_are(1)
                await lab.floor_is(8)
                assert pipeline.statistics.too_large == 1
            assert await lab.windows() == [[5, 6, 7, 8]]
            letters = await lab.dead()
            assert sorted(int(headers["Aipod-Sequence"]) for headers, _ in letters) == [1, 2, 3, 4]
            assert all("bytes" in headers["Aipod-Reason"] for headers, _ in letters)

    run(main())


def test_open_windows_that_hold_all_there_may_be_are_closed_early(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            await lab.publish(values(600, keys=100))
            task = lab.task(window="count:50", max_ack_pending=100)
            async with lab.running(task):
                await lab.floor_passes(200)
            results = await lab.results()
            assert {result["window"]["reason"] for result in results} == {"pressure"}
            members = [seq for result in results for seq in members_of(result)]
            assert len(members) == len(set(members))

    run(main())


def test_a_paused_task_closes_nothing_before_its_time(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            await lab.publish(values(600, keys=100))
            task = lab.task(window="count:50", max_ack_pending=100, pressure="pause", max_wait=1.0)
            async with lab.running(task):
                await lab.floor_passes(200)
            assert {result["window"]["reason"] for result in await lab.results()} == {"idle"}

    run(main())


def test_a_slow_sink_stops_the_intake_and_not_the_keepalive(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            await lab.publish(values(3000, keys=3))
            open_gate = asyncio.Event()
            sinks.gate = open_gate
            task = lab.task(
                window="count:10", max_ack_pending=400, ack_wait=1.0, sinks=[f"{__name__}:sink_behind_a_gate"]
            )
            async with lab.running(task) as pipeline:
                await lab.until(lambda: pipeline.statistics.as_dict()["gauges"].get("held_messages", 0) >= 50)
                # For longer than ack_wait: what is held must not come again.
                for _ in range(25):
                    gauges = pipeline.statistics.as_dict()["gauges"]
                    assert gauges["held_messages"] <= 400 and gauges["redelivered"] == 0
                    await asyncio.sleep(0.1)
                open_gate.set()
                await lab.until(lambda: pipeline.statistics.results == 300)
                await lab.floor_is(3000)
            assert sorted(seq for members in sinks.seen for seq in members) == list(range(1, 3001))

    sinks.seen.clear()
    run(main())


class sinks:
    gate: asyncio.Event
    seen: ClassVar[list[list[int]]] = []


async def sink_behind_a_gate(result: Any) -> None:
    await sinks.gate.wait()
    document = result if isinstance(result, dict) else result.document()
    sinks.seen.append(members_of(document))


def test_a_window_that_takes_longer_than_ack_wait_runs_once(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            await lab.publish(values(4))
            async with lab.running(lab.task(version="slow-3.5", ack_wait=1.0)) as pipeline:
                await lab.results_are(1)
                await lab.floor_is(4)
                assert pipeline.statistics.as_dict()["histograms"]["predict_seconds"]["count"] == 1

    run(main())


def test_who_is_asked_to_leave_finishes_what_is_in_flight_and_gives_back_the_rest(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            await lab.publish(values(6))
            task = lab.task(version="slow-1")
            async with lab.running(task) as pipeline:
                await lab.until(lambda: pipeline.statistics.windows == 1)
            assert await lab.windows() == [[1, 2, 3, 4]]
            await lab.publish(values(2))
            async with lab.running(task):
                await lab.results_are(2)
                await lab.floor_is(8)
            assert await lab.windows() == [[1, 2, 3, 4], [5, 6, 7, 8]]

    run(main())


def test_of_two_with_one_task_one_runs_and_the_other_takes_over(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            states: list[str] = []
            task = lab.task()
            await lab.publish(values(6))
            async with lab.running(task):
                await lab.results_are(1)
                async with lab.running(task, on_state=states.append) as second:
                    await lab.until(lambda: "standby" in states)
                    await lab.publish(values(2))
                    await lab.results_are(2)
                    assert second.statistics.messages == 0
            async with lab.running(task):
                await lab.publish(values(4))
                await lab.results_are(3)
                await lab.floor_is(12)
            assert await lab.windows() == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]

    run(main())


def test_a_standby_says_once_who_runs_the_task(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "aipod.stream")

    def said() -> list[str]:
        return [record.getMessage() for record in caplog.records if "runs" in record.getMessage()]

    async def main() -> None:
        async with lab, lab.running(lab.task(), holder="first"):
            await lab.until(lambda: "running from" in caplog.text)
            async with lab.running(lab.task(), holder="second"):
                await lab.until(said)
                await lease_renewed(lab, 4)
                assert said() == ["standing by: first runs it"]

    run(main())


def test_a_standby_warns_of_another_task_of_its_name(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "aipod.stream")

    async def main() -> None:
        async with lab:
            other = lab.task(window="count:5", sinks=["stdout"], model="localhost:1")
            async with lab.running(lab.task(), holder="first"):
                await lab.until(lambda: "running from" in caplog.text)
                async with lab.running(other, holder="second"):
                    await lab.until(lambda: "another task" in caplog.text)

    run(main())
    (line,) = [record for record in caplog.records if "another task" in record.getMessage()]
    assert line.levelno == logging.WARNING
    assert line.getMessage() == (
        "first runs another task of this name, which differs in: window, model, sinks; rename one"
    )


async def lease_renewed(lab: Lab, count: int) -> None:
    bucket = Bucket(lab.connection, BUCKET)

    async def revision() -> int:
        entry = await bucket.get(lease_key(lab.name, 0))
        return entry.revision if entry is not None else 0

    seen = {await revision()}

    async def often() -> bool:
        seen.add(await revision())
        return len(seen) > count

    await lab.until(often)


def test_who_has_lost_the_lease_stands_by_and_nothing_is_there_twice(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            task = lab.task()
            bucket = Bucket(lab.connection, BUCKET)
            async with lab.running(task) as first, lab.running(task) as second:
                for round_ in range(1, 4):
                    await lab.publish(values(8))
                    await lab.results_are(2 * round_)
                    await bucket.remove(lease_key(lab.name, 0))
                    await lab.until(lambda: first.statistics.restarts + second.statistics.restarts >= round_)  # noqa: B023
                await lab.publish(values(4))
                await lab.results_are(7)
                await lab.floor_is(28)
            assert sorted(await lab.windows()) == [list(range(first, first + 4)) for first in range(1, 28, 4)]

    run(main())


def test_who_is_told_to_leave_right_after_it_lost_the_lease_leaves(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            pipeline = lab.pipeline(lab.task())
            running = asyncio.ensure_future(pipeline.run())
            await lab.until(lambda: pipeline.statistics.takeovers == 1)
            await Bucket(lab.connection, BUCKET).put(lease_key(lab.name, 0), {"id": "another's"})
            await lab.until(lambda: pipeline.statistics.restarts == 1)
            running.cancel()
            done, _ = await asyncio.wait({running}, timeout=5)
            assert done
            await Bucket(lab.connection, BUCKET).remove(lease_key(lab.name, 0))

    run(main())


def test_a_loop_that_stood_still_for_longer_than_the_lease_costs_nothing_where_nobody_waits_for_it(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            seen.clear()
            broken.clear()
            task = lab.task(sinks=[f"{__name__}:second_sink"], version="slow-0.1")
            async with lab.running(task) as pipeline:
                for round_ in range(1, 4):
                    await lab.publish(values(8))
                    await lab.until(lambda: pipeline.statistics.windows == 2 * round_)  # noqa: B023
                    time.sleep(1.2)  # nothing at all runs, with windows in flight
                    await lab.floor_is(8 * round_)
                counters = pipeline.statistics.as_dict()["counters"]
                assert (counters["takeovers"], counters["restarts"]) == (1, 0)
            assert sorted(map(members_of, seen)) == [list(range(first, first + 4)) for first in range(1, 24, 4)]

    run(main())


def test_what_is_recorded_is_taken_in_beside_the_loop(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []

    def make(*arguments: Any) -> Windower:
        threads.append(threading.current_thread())
        return Windower(*arguments)

    monkeypatch.setattr(tenures, "Windower", make)

    async def main() -> None:
        async with lab:
            await lab.publish(values(8))
            await lab.once(lab.task())
            assert await lab.windows() == [[1, 2, 3, 4], [5, 6, 7, 8]]

    run(main())
    assert threads and threading.main_thread() not in threads


def test_what_the_source_removed_before_it_was_processed_is_counted_and_told(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with lab:
            await ensure(lab.connection, consumer_of(lab.task(), 0))
            stream = f"E_{lab.name}"
            config = (await lab.connection.api(f"STREAM.INFO.{stream}"))["config"]
            await lab.connection.api(f"STREAM.UPDATE.{stream}", {**config, "max_msgs": 8})
            await lab.publish(values(100))
            async with lab.running(lab.task()) as pipeline:
                await lab.floor_is(100)
                counters = pipeline.statistics.as_dict()["counters"]
                assert (counters["expired"], counters["messages"]) == (92, 8)
            assert await lab.windows() == [[93, 94, 95, 96], [97, 98, 99, 100]]

    run(main())
    said = "92 messages were removed from the stream before they were processed, from 1 to 92"
    assert caplog.text.count(said) == 1 and f"up to {said}" not in caplog.text


def test_a_window_that_another_has_closed_otherwise_is_obeyed(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            await lab.publish(values(3))
            task = lab.task()
            async with lab.running(task) as pipeline:
                await lab.until(lambda: pipeline.statistics.as_dict()["gauges"].get("open_messages") == 3)
                # Another has closed the window as it was, when it fell idle.
                window = Recorded("k0", "s1", 0, 0.0, 1.0, "idle", ((1, 3),), await lab.origin())
                theirs = Result(lab.name, window, "theirs")
                headers = {"Nats-Msg-Id": theirs.identity + mark_of(theirs.recorded.source)}
                await lab.connection.js.publish(f"{lab.name}.out.k0", theirs.encode(), headers=headers)
                await lab.publish(values(4))
                await lab.results_are(2)
                await lab.floor_is(7)
                assert pipeline.statistics.restarts == 1
            assert await lab.windows() == [[1, 2, 3], [4, 5, 6, 7]]

    run(main())


def test_a_record_that_denies_what_it_was_asked_for_ends_the_task(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    class Denied:
        def __init__(self, *_: object) -> None: ...

        async def __aenter__(self) -> None:
            raise Diverged(Recorded("k0", "s1", 0, 0.0, 1.0, "full", ((1, 3),)))

        async def __aexit__(self, *_: object) -> None: ...

    monkeypatch.setattr(pipelines, "Tenure", Denied)

    async def main() -> None:
        async with lab:
            with pytest.raises(ConfigError, match=r"give task .* another name, or another sink"):
                await lab.pipeline(lab.task()).run()

    run(main())


def test_a_result_that_a_crash_kept_from_the_second_sink_is_supplied(lab: Lab, tmp_path: Path) -> None:
    async def main() -> None:
        async with lab:
            await lab.publish(values(8))
            seen.clear()
            broken.set()
            task = lab.task(sinks=[f"nats:{lab.name}.out.{{key}}", f"{__name__}:second_sink"])
            async with lab.running(task) as pipeline:
                await lab.results_are(1)
                await lab.until(lambda: pipeline.statistics.retries)
            assert not seen and await lab.windows() == [[1, 2, 3, 4]]
            broken.clear()
            async with lab.running(task):
                await lab.results_are(2)
                await lab.floor_is(8)
            assert [members_of(result) for result in seen] == [[1, 2, 3, 4], [5, 6, 7, 8]]
            assert len(await lab.results()) == 2

    run(main())


def test_a_result_that_the_second_sink_refuses_after_a_crash_goes_to_the_dead_letters(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            await lab.publish(values(4))
            task = lab.task(sinks=[f"nats:{lab.name}.out.{{key}}", f"{__name__}:refusing_sink"])
            # As a crash leaves it: recorded, and nothing acknowledged.
            await lab.once(lab.task(durable="other"))
            await lab.once(task)
            letters = await lab.dead()
            assert sorted(int(headers["Aipod-Sequence"]) for headers, _ in letters) == [1, 2, 3, 4]
            assert all("not this one" in headers["Aipod-Reason"] for headers, _ in letters)
            await lab.floor_is(4)

    run(main())


def refusing_sink(result: Any) -> None:
    raise InvalidArgument("not this one")


seen: list[dict[str, Any]] = []
broken = threading.Event()


def second_sink(result: Any) -> None:
    if broken.is_set():
        raise Unavailable("it is away")
    seen.append(result if isinstance(result, dict) else result.document())


def test_partitions_share_the_keys_and_each_message_is_in_one_result(lab: Lab) -> None:
    async def main() -> None:
        async with lab:
            await lab.publish(values(80, keys=10))
            task = lab.task(partitions=3)
            async with lab.running(task, 0), lab.running(task, 1), lab.running(task, 2):
                results = await lab.results_are(20)
                for partition in range(3):
                    await lab.floor_is(80, f"{lab.name}-{partition}")
            assert sorted(seq for result in results for seq in members_of(result)) == list(range(1, 81))

    run(main())


def test_a_model_server_that_comes_late_finds_everything_there(lab: Lab, tmp_path: Path) -> None:
    async def main() -> None:
        async with lab:
            port = free_port()
            await lab.publish(values(40))
            async with lab.running(lab.task(model=f"127.0.0.1:{port}", max_wait=60.0)) as pipeline:
                await lab.until(lambda: pipeline.statistics.retries >= 8)
                assert not await lab.dead() and not await lab.results()
                child, _ = await asyncio.to_thread(start_model, tmp_path, port)
                try:
                    await lab.results_are(10)
                    await lab.floor_is(40)
                finally:
                    await asyncio.to_thread(child.stop)
            assert not await lab.dead()

    run(main())

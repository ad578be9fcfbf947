"""What a hostile plant does to a running consumer: the real command, a real broker, a real model server.

The cases that FACTS.md lists for streams (§6), and who holds each; ``test_stream_`` is left out of the names:

====  ==========================================  ====================================================================
80    a message that cannot be decoded            here; decode, pipeline
81    an empty payload                            here; decode
82    a result larger than max_payload            here; sinks_subject, operator, pipeline
83    a window larger than max_ack_pending        tasks
84    predict slower than ack_wait                pipeline; chaos/test_chaos_stream
85    one message that the model refuses          here; poison, operator; and in every storm (kills)
86    no model server                             here, and for a minute in chaos/test_chaos_stream; operator
87    no broker, at the start or for ever         here; broker_connection, health, ../cli/test_cli_stream_run
88    stream or consumer deleted or changed       broker_faults, broker_consumer
89    the same Msg-Id twice in the source         here
90    a consumer that was frozen                  frozen, lease; chaos/test_chaos_stream
91    clocks that jump                            broker_times, windows, sinks_sql, sinks_files
92    strange headers                             here; dead, broker_times
93    subjects that cannot be, and loops          tasks, template
94    a sink without a stream                     here; sinks_subject
95    a database that fails in the worst moment   sinks_sql
96    a purge during consumption                  broker_faults
97    a pull that a restart of the broker lost    broker_outages
98    SIGTERM in mid-window                       here; ../cli/test_cli_stream_run
99    a slow sink                                 feed, pipeline; 100,000 messages in chaos/test_chaos_stream
100   messages that expire unprocessed            here
====  ==========================================  ====================================================================
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

import pytest
from nats.js.api import StreamConfig
from stream_child import Child
from stream_digest import digest
from stream_world import World
from waiting import eventually

FOR_EVER = "max_wait=1h"

Run = Callable[..., Child]


@pytest.fixture(scope="module")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("world")) as world:
        assert world.model
        yield world


@pytest.fixture
def world(_world: World) -> Iterator[World]:
    """One that other tests share: a test takes subjects that begin with its task's name."""
    yield _world
    _world.end_children(but=_world.model)


@pytest.fixture
def run(world: World) -> Run:
    """Start a consumer of one task, which takes ``events.NAME.>`` and keys it by the third token."""

    def run(name: str, window: str = f"count:2,{FOR_EVER}", *arguments: str, **table: Any) -> Child:
        task = {"name": name, "window": window, "key": "subject:2", "subjects": [f"events.{name}.>"], **table}
        world.write_tasks(task, file=f"{name}.toml")
        consumer = world.consumer(*arguments, name=name, file=f"{name}.toml")
        consumer.start()
        return consumer

    return run


def results(world: World, name: str, number: int) -> list[dict[str, Any]]:
    """The results of a task, once there are as many as that."""
    return eventually(lambda: found if len(found := world.results(name)) >= number else None)


def letters(world: World, name: str, number: int) -> list[tuple[dict[str, str], bytes]]:
    """The dead letters of a task, once there are as many as that."""
    return eventually(lambda: found if len(found := world.letters(name)) >= number else None)


def running(consumer: Child) -> Child:
    """Wait until it runs; a signal before that ends it in the way of any program."""
    eventually(lambda: "running from" in consumer.said())
    return consumer


def acknowledged(world: World, name: str) -> None:
    eventually(lambda: world.caught_up(name) and not world.ack_pending(name))


def message(number: int, **more: Any) -> dict[str, Any]:
    return {"n": number, "v": number, **more}


def test_what_cannot_be_decoded_goes_to_the_dead_letters_and_the_rest_goes_on(world, run):
    payloads = [b"", b"{", b'{"v": 1e}', b"\xff\xfe", b"[" * 100_000, b"\x00" * 10]
    places = [world.put("events.torn.a", payload) for payload in payloads]
    sent = [message(1), message(2)]
    for one in sent:
        world.put("events.torn.a", one)
    consumer = run("torn")
    (result,) = results(world, "torn", 1)
    assert result["result"] == digest(sent)
    dead = letters(world, "torn", len(payloads))
    assert [(int(headers["Aipod-Sequence"]), data) for headers, data in dead] == list(
        zip(places, payloads, strict=True)
    )
    assert all(headers["Aipod-Reason"] and headers["Aipod-Subject"] == "events.torn.a" for headers, _ in dead)
    acknowledged(world, "torn")
    assert consumer.stop() == 0, consumer.said()


def test_nothing_is_acknowledged_before_its_dead_letter_is_stored(world, run):
    limbo = StreamConfig(name="LIMBO", subjects=["limbo.>"])
    world.run(world.js.add_stream(limbo))
    consumer = run("orphan", dead_letters={"subject": "limbo.{task}", "create": False})
    running(consumer)
    world.run(world.js.delete_stream("LIMBO"))
    seq = world.put("events.orphan.a", b"{")
    eventually(lambda: "limbo.orphan" in consumer.said())
    assert consumer.alive and world.ack_pending("orphan") == 1
    world.run(world.js.add_stream(limbo))
    acknowledged(world, "orphan")
    letter = world.run(world.js.get_last_msg("LIMBO", "limbo.orphan"))
    assert (letter.headers["Aipod-Sequence"], letter.data) == (str(seq), b"{")
    assert consumer.stop() == 0, consumer.said()


def test_a_result_that_no_broker_takes_goes_to_the_dead_letters_once_and_never_round(world, run):
    # The broker takes a mebibyte.
    big = [world.put("events.big.a", message(700_000)) for _ in range(2)]
    for number in (3, 4):
        world.put("events.big.a", message(number))
    consumer = run("big", version="large")
    (result,) = results(world, "big", 1)
    assert result["result"] == "x" * 7
    dead = letters(world, "big", 2)
    assert [int(headers["Aipod-Sequence"]) for headers, _ in dead] == big
    assert all("1400" in headers["Aipod-Reason"] and "1048576" in headers["Aipod-Reason"] for headers, _ in dead)
    acknowledged(world, "big")
    assert consumer.stop() == 0, consumer.said()


def test_poison_among_thirty_two_costs_one_dead_letter_and_no_result(world, run):
    sent = [message(number, **({"bad": True} if number == 20 else {})) for number in range(32)]
    places = [world.put("events.poison.a", one) for one in sent]
    consumer = run("poison", f"count:32,{FOR_EVER}", version="strict")
    (result,) = results(world, "poison", 1)
    assert result["result"] == digest([one for one in sent if "bad" not in one])
    assert result["dropped"] == [[places[20], places[20]]]
    ((headers, data),) = letters(world, "poison", 1)
    assert (headers["Aipod-Sequence"], headers["Aipod-Error"]) == (str(places[20]), "InvalidArgument")
    assert "is bad" in headers["Aipod-Reason"] and headers["Aipod-Error-Id"]
    assert json.loads(data) == sent[20]
    acknowledged(world, "poison")
    assert consumer.stop() == 0, consumer.said()


def test_a_publisher_that_repeats_itself_is_heard_once(world, run):
    headers = {"Nats-Msg-Id": "events/again/1"}
    for _ in range(3):
        world.put("events.again.a", message(1), **headers)
    world.put("events.again.a", message(2))
    run("again")
    (result,) = results(world, "again", 1)
    assert result["result"] == digest([message(1), message(2)])


def test_strange_headers_reach_the_dead_letters_and_harm_nobody(world, run):
    strange = {"Unicode": "größe ∞", "Empty": "", "Folded": "a\r\nb", "Nats-Custom": "1", "Plain": "as it was"}
    seqs = [world.put("events.headers.a", b"{", **strange), world.put("events.headers.a", b"{", Long="x" * 60_000)]
    run("headers")
    (one, _), (other, _) = letters(world, "headers", 2)
    assert [int(headers["Aipod-Sequence"]) for headers in (one, other)] == seqs
    assert (one["Plain"], unquote(one["Unicode"])) == ("as it was", "größe ∞")
    assert "Nats-Custom" not in one
    assert other["Aipod-Left-Out"] == "headers"
    acknowledged(world, "headers")


def test_keys_of_any_sort_get_a_subject_each(world, run):
    keys = ["a.b", "a b", "*", ">", "größe", "", "x" * 200, "a/b", "%2E", "line\nfeed"]
    sent = {key: [message(1, key=key), message(2, key=key)] for key in keys}
    for pair in sent.values():
        for one in pair:
            world.put("events.keys.a", one)
    consumer = run("keys", key="field:key")
    found = {result["key"]: result["result"] for result in results(world, "keys", len(keys))}
    assert found == {key: digest(pair) for key, pair in sent.items()}
    acknowledged(world, "keys")
    assert consumer.stop() == 0, consumer.said()


def test_a_sink_without_a_stream_is_waited_for_and_nothing_is_acknowledged(world, run):
    sent = [message(1), message(2)]
    for one in sent:
        world.put("events.homeless.a", one)
    consumer = run("homeless", sinks=["nats:elsewhere.{key}"])
    eventually(lambda: "elsewhere" in consumer.said())
    assert consumer.alive
    world.run(world.js.add_stream(StreamConfig(name="ELSEWHERE", subjects=["elsewhere.>"])))
    acknowledged(world, "homeless")
    stored = world.run(world.js.get_last_msg("ELSEWHERE", "elsewhere.a"))
    assert json.loads(stored.data)["result"] == digest(sent)
    assert consumer.stop() == 0, consumer.said()


def test_it_waits_for_a_broker_that_is_not_there_yet_and_can_be_told_to_end(tmp_path):
    with World(tmp_path) as world:
        world.write_tasks({"name": "early", "window": f"count:2,{FOR_EVER}", "key": "subject:1"})
        for one in (message(1), message(2)):
            world.put("events.early", one)
        world.broker.stop()
        consumer = world.consumer()
        consumer.start()
        eventually(lambda: "is away" in consumer.said())
        assert consumer.stop() == 0, consumer.said()
        consumer.start()
        eventually(lambda: "is away" in consumer.said())
        world.broker.start()
        assert results(world, "early", 1)[0]["result"] == digest([message(1), message(2)])
        assert consumer.stop() == 0, consumer.said()


def test_a_model_server_that_is_away_terminates_nothing(tmp_path):
    sent = [message(number) for number in range(200)]
    with World(tmp_path) as world:
        world.write_tasks({"name": "away", "window": f"count:10,{FOR_EVER}", "key": "subject:1", "ack_wait": 2.0})
        world.model.stop(signal.SIGKILL)
        consumer = world.consumer()
        consumer.start()
        for one in sent:
            world.put("events.a", one)
        eventually(lambda: world.caught_up("away"))
        # For several times ack_wait.
        world.after(5.0)
        assert consumer.alive and not world.results("away") and not world.dead("away")
        assert world.ack_pending("away") == len(sent)
        world.model.start()
        found = results(world, "away", 20)
        assert [result["result"] for result in found] == [digest(sent[at : at + 10]) for at in range(0, 200, 10)]
        acknowledged(world, "away")
        assert consumer.stop() == 0, consumer.said()


def test_sigterm_in_mid_window_is_obeyed_in_time_and_nothing_runs_twice(world, run):
    sent = [message(number) for number in range(7)]
    for one in sent:
        world.put("events.midway.a", one)
    consumer = run("midway", f"count:3,{FOR_EVER}", "--grace", "10", version="slow-1.5")
    ran = world.directory / "data" / "ran"
    eventually(lambda: ran.exists() and "slow-1.5 a/s" in ran.read_text())
    # One window runs, one waits, one is open.
    assert consumer.stop(bound=15) == 0, consumer.said()
    again = running(run("midway", f"count:3,{FOR_EVER}", version="slow-1.5"))
    found = results(world, "midway", 2)
    assert [result["result"] for result in found] == [digest(sent[:3]), digest(sent[3:6])]
    lines = [line for line in ran.read_text().splitlines() if line.startswith("slow-1.5 a/s")]
    assert len(lines) == len(set(lines)) == 2
    eventually(lambda: world.ack_pending("midway") == 1)
    assert again.stop() == 0, again.said()


def test_what_expires_while_nobody_consumes_keeps_nobody_waiting(world, run):
    world.run(world.js.add_stream(StreamConfig(name="BRIEF", subjects=["brief.>"], max_age=1.0)))
    source = {"stream": "BRIEF", "subjects": ["brief.>"], "key": "subject:1"}
    consumer = running(run("brief", **source))
    world.put("brief.a", message(1))
    eventually(lambda: world.ack_pending("brief", "BRIEF") == 1)
    consumer.stop(signal.SIGKILL)
    for number in range(50):
        world.put("brief.a", message(number))
    eventually(lambda: not world.messages("BRIEF"))
    sent = [message(3), message(4)]
    consumer.start()
    running(consumer)
    for one in sent:
        world.put("brief.a", one)
    assert results(world, "brief", 1)[0]["result"] == digest(sent)
    assert consumer.stop() == 0, consumer.said()

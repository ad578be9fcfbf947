"""The consumer: made as the task needs it, or refused with every field that differs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone
from typing import Any

import pytest
from brokers import Nats

from aipod.errors import ConfigError, Unavailable
from aipod.stream.broker.connection import Connect, Connection, connect
from aipod.stream.broker.consumer import ConsumerSpec, ensure
from aipod.stream.broker.times import nanoseconds
from aipod.stream.errors import LostEnd, NoStream


def _run(nats: Nats, body: Callable[[Connection, str], Awaitable[None]], **stream: Any) -> None:
    async def main() -> None:
        conn = await connect(Connect(servers=(nats.url,)), wait=5)
        try:
            name = nats.unique("s")
            await conn.js.add_stream(name=name, subjects=[f"{name}.>"], **stream)
            await body(conn, name)
        finally:
            await conn.close()

    asyncio.run(main())


def test_a_consumer_is_made_once_and_found_again(nats: Nats) -> None:
    async def body(conn: Connection, name: str) -> None:
        spec = ConsumerSpec(durable="d", subjects=(f"{name}.a", f"{name}.b"))
        looked = await ensure(conn, spec, create=False)
        assert (looked.exists, looked.created, looked.stream) == (False, False, name)
        first, again = await ensure(conn, spec), await ensure(conn, spec)
        assert (first.created, again.created, again.exists) == (True, False, True)
        assert (first.floor, first.delivered, first.num_pending) == (0, 0, 0)
        assert first.time > 1.7e9
        assert first.incarnation == again.incarnation

    _run(nats, body)


def test_every_field_that_differs_is_named_with_both_values(nats: Nats) -> None:
    async def body(conn: Connection, name: str) -> None:
        await conn.js.add_consumer(
            name,
            durable_name="d",
            ack_policy="explicit",
            ack_wait=30,
            max_deliver=5,
            max_ack_pending=7,
            filter_subject=f"{name}.x",
            headers_only=True,
        )
        with pytest.raises(ConfigError) as caught:
            await ensure(conn, ConsumerSpec(durable="d", stream=name, subjects=(f"{name}.y",), ack_wait=2.5))
        text = str(caught.value)
        for part in (
            "ack_wait is 30 s, and the task needs 2.5 s",
            "max_deliver is 5, and the task needs -1",
            "max_ack_pending is 7, and the task needs 20000",
            f"subjects is {name}.x, and the task needs {name}.y",
            "headers_only is True",
        ):
            assert part in text
        assert len(caught.value.problems) == 5

    _run(nats, body)


def test_a_push_consumer_and_one_that_acknowledges_all_are_refused(nats: Nats) -> None:
    async def body(conn: Connection, name: str) -> None:
        await conn.js.add_consumer(name, durable_name="push", deliver_subject="to.me", ack_policy="all")
        with pytest.raises(ConfigError, match="ack_policy is all") as caught:
            await ensure(conn, ConsumerSpec(durable="push", stream=name))
        assert "deliver_subject is to.me, and the task needs none" in str(caught.value)

    _run(nats, body)


def test_where_a_new_consumer_begins(nats: Nats) -> None:
    async def body(conn: Connection, name: str) -> None:
        for number in range(5):
            await conn.js.publish(f"{name}.a", b"%d" % number)
        moment = datetime.now(timezone.utc).isoformat()
        specs: list[tuple[ConsumerSpec, int]] = []
        for durable, start, floor, pending in (
            ("all", "all", 0, 5),
            ("new", "new", 5, 0),
            ("seq", "seq:4", 3, 2),
            ("time", f"time:{moment}", 5, 0),
        ):
            specs.append((ConsumerSpec(durable=durable, stream=name, start=start), floor))
            state = await ensure(conn, specs[-1][0])
            assert (state.floor, state.delivered, state.num_pending) == (floor, floor, pending), durable
        again = await ensure(conn, ConsumerSpec(durable="behind", stream=name), after=2)
        assert (again.floor, again.num_pending) == (2, 3)
        # Nor is it forgotten while something is delivered, and nothing acknowledged.
        await conn.js.publish(f"{name}.a", b"one more")
        for spec, floor in specs:
            subscription = await conn.js.pull_subscribe_bind(durable=spec.durable, stream=name)
            await subscription.fetch(1, timeout=5)
            state = await ensure(conn, spec)
            assert (state.floor, state.delivered) == (floor, floor + 1), spec.durable

    _run(nats, body)


def test_a_time_to_begin_at_is_found_between_messages_that_are_gone(nats: Nats) -> None:
    async def body(conn: Connection, name: str) -> None:
        moments = []
        for number in range(12):
            now = nanoseconds((await conn.api(f"STREAM.INFO.{name}"))["ts"]) / 1e9
            moments.append(datetime.fromtimestamp(now, timezone.utc).isoformat())
            await conn.js.publish(f"{name}.a", b"%d" % number)
        for gone in (1, 2, 6, 7, 12):
            await conn.js.delete_msg(name, gone)
        for seq, moment in enumerate(moments, start=1):
            durable = f"from-{seq}"
            state = await ensure(conn, ConsumerSpec(durable=durable, stream=name, start=f"time:{moment}"))
            assert state.num_pending == sum(kept >= seq for kept in (3, 4, 5, 8, 9, 10, 11)), seq

    _run(nats, body)


def test_one_that_others_made_begins_where_they_said(nats: Nats) -> None:
    async def body(conn: Connection, name: str) -> None:
        await conn.js.publish(f"{name}.a", b"before")
        config = {"durable_name": "d", "ack_policy": "explicit", "ack_wait": 10_000_000_000, "max_ack_pending": 20_000}
        request = {"stream_name": name, "config": {**config, "max_deliver": -1, "deliver_policy": "new"}}
        await conn.api(f"CONSUMER.DURABLE.CREATE.{name}.d", request)
        state = await ensure(conn, ConsumerSpec(durable="d", stream=name))
        assert (state.floor, state.delivered, state.created) == (1, 1, False)

    _run(nats, body)


def test_a_whole_stream_can_be_said_in_two_ways(nats: Nats) -> None:
    async def body(conn: Connection, name: str) -> None:
        await ensure(conn, ConsumerSpec(durable="d", stream=name))
        assert not (await ensure(conn, ConsumerSpec(durable="d", stream=name, subjects=(">",)))).created

    _run(nats, body)


def test_what_is_not_there_is_said(nats: Nats) -> None:
    async def body(conn: Connection, name: str) -> None:
        nothing = nats.unique("nothing")
        with pytest.raises(NoStream, match=f"no stream holds subject '{nothing}'"):
            await ensure(conn, ConsumerSpec(durable="d", subjects=(nothing,)))
        with pytest.raises(NoStream, match=f"there is no stream '{nothing}'"):
            await ensure(conn, ConsumerSpec(durable="d", stream=nothing))
        other = nats.unique("o")
        await conn.js.add_stream(name=other, subjects=[f"{other}.>"])
        with pytest.raises(ConfigError, match="several streams"):
            await ensure(conn, ConsumerSpec(durable="d", subjects=(f"{name}.a", f"{other}.a")))
        with pytest.raises(ConfigError, match=r"cannot be made.*overlap"):
            await ensure(conn, ConsumerSpec(durable="d", stream=name, subjects=(f"{name}.>", f"{name}.a")))

    _run(nats, body)


def test_a_stream_that_acknowledges_before_it_stores_is_refused(nats: Nats) -> None:
    async def body(conn: Connection, _: str) -> None:
        name = nats.unique("s")
        config = {"name": name, "subjects": [f"{name}.>"], "storage": "file", "persist_mode": "async"}
        made = await conn.api(f"STREAM.CREATE.{name}", config)
        if "persist_mode" not in made["config"]:
            pytest.skip("a broker before 2.12 has no such mode")
        with pytest.raises(ConfigError, match="persist_mode"):
            await ensure(conn, ConsumerSpec(durable="d", stream=name))

    _run(nats, body)


def test_two_that_make_it_at_the_same_time_have_the_same(nats: Nats) -> None:
    async def body(conn: Connection, name: str) -> None:
        spec = ConsumerSpec(durable="d", stream=name)
        states = await asyncio.gather(*(ensure(conn, spec) for _ in range(8)))
        assert all(state.exists for state in states)

    _run(nats, body)


def test_one_that_is_ahead_of_its_stream_is_refused(nats: Nats) -> None:
    async def body(conn: Connection, name: str) -> None:
        with pytest.raises(LostEnd, match="has lost its end"):
            await ensure(conn, ConsumerSpec(durable="d", stream=name), after=10)

    _run(nats, body)


def test_one_that_is_to_begin_behind_the_end_of_its_stream_waits_for_that(nats: Nats) -> None:
    async def body(conn: Connection, name: str) -> None:
        spec = ConsumerSpec(durable="d", stream=name, start="seq:3")
        with pytest.raises(ConfigError, match="ends at 0, before where consumer 'd' begins") as raised:
            await ensure(conn, spec)
        assert not isinstance(raised.value, LostEnd)
        for _ in range(3):
            await conn.js.publish(f"{name}.a", b"")
        assert (await ensure(conn, spec)).exists
        subscription = await conn.js.pull_subscribe_bind(durable="d", stream=name)
        (message,) = await subscription.fetch(1, timeout=5)
        assert message.metadata.sequence.stream == 3
        # Before it has delivered the first one, nats-server 2.11 counts those that lie before the beginning, too.
        assert (await ensure(conn, spec)).num_pending == 0

    _run(nats, body)


def test_a_broker_that_is_away_is_another_matter(own_nats: Nats) -> None:
    async def main() -> None:
        conn = await connect(Connect(servers=(own_nats.url,)), wait=5)
        await conn.close()
        with pytest.raises(Unavailable):
            await ensure(conn, ConsumerSpec(durable="d", stream="s"))

    asyncio.run(main())

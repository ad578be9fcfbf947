"""The lease and who shares: one holder at a time, taken over when it is gone, given up at once when it says so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from brokers import Nats, until

from aipod.errors import ConfigError
from aipod.stream.broker.bucket import Bucket
from aipod.stream.broker.connection import Connect, Connection, connect
from aipod.stream.broker.lease import Lease, Membership, awake, lease_key

TTL = 0.6


class Clock:
    """A clock that goes on as others do, and can be put forward, as after a freeze."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return awake() + self.ahead


def _run(nats: Nats, body: Callable[[Connection, str], Awaitable[None]]) -> None:
    async def main() -> None:
        conn = await connect(Connect(servers=(nats.url,)), wait=5)
        try:
            await body(conn, nats.unique("bucket"))
        finally:
            await conn.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


async def _renewals(bucket: Bucket, key: str, count: int) -> None:
    """Wait until an entry has been written so many times more."""
    entry = await bucket.get(key)
    assert entry is not None
    first = entry.revision
    while entry is None or entry.revision < first + count:
        await asyncio.sleep(0.01)
        entry = await bucket.get(key)


def test_of_two_one_has_it_and_the_other_waits(nats: Nats) -> None:
    async def body(conn: Connection, name: str) -> None:
        one, other = (Lease(conn, name, "task.with ödd*name", 0, holder, TTL) for holder in ("one", "other"))
        assert not one.held()
        await one.acquire()
        waiting = asyncio.ensure_future(other.acquire())
        await _renewals(Bucket(conn, name), one.key, 6)  # twice its time
        assert one.held() and not other.held() and not waiting.done()
        await one.release()
        await asyncio.wait_for(waiting, 10)
        assert other.held() and not one.held()
        assert other.token > one.token > 0
        await other.release()
        await other.release()

    _run(nats, body)


def test_a_release_is_taken_up_long_before_the_time_is_over(nats: Nats) -> None:
    async def body(conn: Connection, name: str) -> None:
        one, other = (Lease(conn, name, "t", 0, holder, ttl=600.0) for holder in ("one", "other"))
        await one.acquire()
        waiting = asyncio.ensure_future(other.acquire())
        await asyncio.sleep(0.1)
        await one.release()
        await asyncio.wait_for(waiting, 10)
        await other.release()

    _run(nats, body)


def test_one_that_is_gone_without_a_word_is_succeeded_after_its_time(nats: Nats) -> None:
    async def body(conn: Connection, name: str) -> None:
        dying = await connect(conn.spec, wait=5)
        one = Lease(dying, name, "t", 0, "one", TTL)
        other = Lease(conn, name, "t", 0, "other", TTL)
        await one.acquire()
        await dying.close()  # nothing is released, and nothing is renewed from here on
        await asyncio.wait_for(other.acquire(), 20)
        # By the rule of the lease, not by luck: when the other has it, the first has stopped to believe.
        assert other.held() and not one.held()
        await one.release()
        assert other.held()
        await other.release()

    _run(nats, body)


def test_one_that_was_frozen_knows_at_once_when_it_wakes(nats: Nats, caplog: pytest.LogCaptureFixture) -> None:
    async def body(conn: Connection, name: str) -> None:
        clock = Clock()
        one = Lease(conn, name, "t", 0, "one", TTL, clock)
        await one.acquire()
        assert one.held()
        clock.ahead = 5.0
        assert not one.held() and one.age >= 5.0  # before anything has run on the loop
        # Nobody else took it, so it was never anybody else's.
        before = one.token
        await until(one.held)
        assert not one.lost.is_set() and one.token == before
        await one.release()
        assert await Bucket(conn, name).get(one.key) is None

    _run(nats, body)
    assert "nothing is written until it is" in caplog.text
    assert "nobody else had it" in caplog.text and "is lost" not in caplog.text


def test_one_that_was_frozen_until_another_took_it_never_has_it_again(
    nats: Nats, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(conn: Connection, name: str) -> None:
        one, other = (Lease(conn, name, "t", 0, holder, TTL) for holder in ("one", "other"))
        await one.acquire()
        # Nothing of it runs, as in a process that is stopped; its clock does.
        renewing, one._renewing = one._renewing, None
        assert renewing is not None
        renewing.cancel()
        await other.acquire()
        assert not one.held() and not one.lost.is_set()
        one._renewing = asyncio.ensure_future(one._renew())
        await asyncio.wait_for(one.lost.wait(), 10)
        assert not one.held() and other.held()
        await one.release()
        assert other.held()
        await other.release()

    _run(nats, body)
    assert "is lost: another process has it" in caplog.text


def test_one_whose_entry_is_gone_does_not_make_it_anew(nats: Nats, caplog: pytest.LogCaptureFixture) -> None:
    # Another may have had it in between, and given it back.
    async def body(conn: Connection, name: str) -> None:
        lease = Lease(conn, name, "t", 0, "me", TTL)
        for remove in (Bucket(conn, name).remove(lease.key), conn.api(f"STREAM.DELETE.KV_{name}")):
            await asyncio.wait_for(lease.acquire(), 10)
            await remove
            await asyncio.wait_for(lease.lost.wait(), 20)
            assert not lease.held()
        await asyncio.wait_for(lease.acquire(), 10)
        assert lease.held()
        await lease.release()

    _run(nats, body)
    assert "is lost: it was removed" in caplog.text


def test_one_that_others_have_taken_over_from_does_not_take_it_back(nats: Nats) -> None:
    async def body(conn: Connection, name: str) -> None:
        clock = Clock()
        one, other = Lease(conn, name, "t", 0, "one", TTL, clock), Lease(conn, name, "t", 0, "other", TTL)
        await one.acquire()
        entry = await Bucket(conn, name).get(one.key)
        assert entry is not None
        # As if it had slept through the takeover, and its clock with it.
        assert await Bucket(conn, name).change(one.key, {"holder": "other", "id": "x"}, entry.revision)
        await asyncio.wait_for(one.lost.wait(), 10)
        assert not one.held()
        await one.release()
        there = await Bucket(conn, name).get(one.key)
        assert there is not None and there.value["holder"] == "other"
        await asyncio.wait_for(other.acquire(), 20)
        await other.release()

    _run(nats, body)


def test_many_that_want_it_have_it_one_after_another(nats: Nats) -> None:
    async def body(conn: Connection, name: str) -> None:
        holding = 0
        tokens: list[int] = []

        async def work(number: int) -> None:
            nonlocal holding
            lease = Lease(conn, name, "t", 0, str(number), TTL)
            await lease.acquire()
            holding += 1
            assert holding == 1
            tokens.append(lease.token)
            await asyncio.sleep(0.01)
            assert lease.held()
            holding -= 1
            await lease.release()

        await asyncio.wait_for(asyncio.gather(*(work(number) for number in range(6))), 30)
        assert tokens == sorted(set(tokens))

    _run(nats, body)


def test_who_waits_is_told_once_who_has_it_and_what_that_says_of_itself(nats: Nats) -> None:
    async def body(conn: Connection, name: str) -> None:
        one = Lease(conn, name, "t", 0, "one", TTL, about={"task": {"window": "a"}})
        other = Lease(conn, name, "t", 0, "other", TTL)
        met: list[tuple[object, object]] = []
        await one.acquire()
        waiting = asyncio.ensure_future(
            other.acquire(lambda entry: met.append((entry.get("holder"), entry.get("task"))))
        )
        await _renewals(Bucket(conn, name), one.key, 6)
        assert met == [("one", {"window": "a"})]
        await one.release()
        await asyncio.wait_for(waiting, 10)
        await other.release()

    _run(nats, body)


def test_what_somebody_has_left_who_is_gone_is_not_taken_for_somebody(nats: Nats) -> None:
    async def body(conn: Connection, name: str) -> None:
        await Bucket(conn, name).put(lease_key("t", 0), {"holder": "gone", "id": "gone"})
        lease = Lease(conn, name, "t", 0, "me", TTL)
        met: list[object] = []
        await asyncio.wait_for(lease.acquire(met.append), 10)
        assert lease.held() and not met
        await lease.release()

    _run(nats, body)


def test_what_is_published_is_there_with_the_next_renewal(nats: Nats) -> None:
    async def body(conn: Connection, name: str) -> None:
        lease = Lease(conn, name, "t", 3, "me", TTL)
        await lease.acquire()
        lease.publish({"lag": 7})
        bucket = Bucket(conn, name)
        await _renewals(bucket, lease_key("t", 3), 2)
        entry = await bucket.get(lease_key("t", 3))
        assert entry is not None
        assert (entry.value["holder"], entry.value["statistics"]) == ("me", {"lag": 7})
        assert entry.value["since"] > 1.7e9
        await lease.release()
        assert await bucket.get(lease.key) is None

    _run(nats, body)


def test_a_restart_of_the_broker_shorter_than_its_time_does_not_cost_the_lease(own_nats: Nats) -> None:
    async def body(conn: Connection, name: str) -> None:
        lease = Lease(conn, name, "t", 0, "me", 6.0)
        await lease.acquire()
        await asyncio.to_thread(own_nats.server.kill)
        await asyncio.to_thread(own_nats.server.start)
        await until(lambda: conn.generation == 2)
        await _renewals(Bucket(conn, name), lease.key, 1)
        assert lease.held() and not lease.lost.is_set()
        await lease.release()

    _run(own_nats, body)


def test_while_a_broker_stays_away_nobody_holds_the_lease_and_then_the_same_one_again(own_nats: Nats) -> None:
    async def body(conn: Connection, name: str) -> None:
        lease = Lease(conn, name, "t", 0, "me", TTL)
        await lease.acquire()
        before = lease.token
        own_nats.server.kill()
        await until(lambda: not lease.held())
        await asyncio.to_thread(own_nats.server.start)
        await until(lease.held)
        assert not lease.lost.is_set() and lease.token == before
        await lease.release()

    _run(own_nats, body)


def test_of_those_who_are_gone_nothing_is_left_and_nobody_is_asked_for_them(nats: Nats) -> None:
    async def body(conn: Connection, name: str) -> None:
        bucket, clock = Bucket(conn, name), Clock()
        me = Membership(conn, name, "t", "me", TTL, clock)
        await me.join()
        for number in range(70):  # some left in order, some were killed, and some left as older versions did
            gone = Membership(conn, name, "t", f"gone-{number}", TTL)
            await gone.join()
            if number % 2:
                await gone.leave()
            else:
                assert gone._presence is not None
                gone._presence.cancel()
            if number % 4 == 0:
                await bucket.remove(gone.key)
        other = Membership(conn, name, "t", "other", 600.0)  # as one that was frozen, it writes seldom
        await other.join()
        assert await me.members() == 19
        clock.ahead = 2 * TTL
        assert await me.members() == 1
        assert len(await bucket.keys("member.>")) == 19
        clock.ahead = 11 * TTL
        assert await me.members() == 1
        await bucket.put(other.key, {"holder": "other"})
        assert await me.members() == 2
        assert await bucket.keys("member.>") == sorted((me.key, other.key))
        await me.leave()
        await other.leave()
        assert await bucket.keys("member.>") == []

    _run(nats, body)


def test_partitions_are_shared_though_nobody_may_tidy_up(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(conn: Connection, name: str) -> None:
        asked: list[str] = []

        async def forbidden(self: Bucket, key: str, last: int | None = None) -> None:
            asked.append(key)
            raise ConfigError(["not yours"])

        monkeypatch.setattr(Bucket, "forget", forbidden)
        me, gone = (Membership(conn, name, "t", holder, TTL) for holder in ("me", "gone"))
        await me.join()
        await Bucket(conn, name).put(gone.key, {"holder": "gone"})
        await Bucket(conn, name).remove(gone.key)
        for _ in range(3):
            assert await me.share(8) == 8
        assert asked == [gone.key]
        await me.leave()

    _run(nats, body)


def test_partitions_are_shared_by_those_who_are_there(nats: Nats) -> None:
    async def body(conn: Connection, name: str) -> None:
        members = [Membership(conn, name, "t", f"holder.{number}", TTL) for number in range(3)]
        await members[0].join()
        assert await members[0].share(8) == 8
        for member in members[1:]:
            await member.join()
        assert [await member.share(8) for member in members] == [3, 3, 3]
        stranger = Membership(conn, name, "other", "x", TTL)
        await stranger.join()
        assert await members[0].share(8) == 3
        await members[2].leave()
        assert [await member.share(8) for member in members[:2]] == [4, 4]
        # One that is gone without a word is counted until its time is over.
        presence = members[1]._presence
        assert presence is not None
        presence.cancel()
        while await members[0].share(8) != 8:
            await asyncio.sleep(0.02)
        for member in (*members, stranger):
            await member.leave()

    _run(nats, body)

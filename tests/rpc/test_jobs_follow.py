"""To follow a job on the wire: each record once and in order, a sign of life while it is quiet, and followers that cost
nothing when they do not read, or are gone."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from front_world import NOTHING, Guest, failure
from waiting import BOUND, eventually

from aipod.errors import InvalidArgument, JobNotFound
from aipod.model import AIModelBase
from aipod.rpc import job_streams
from aipod.rpc.client import AIClient
from aipod.rpc.methods import FOLLOW
from aipod.rpc.v1.jobs_pb2 import FollowReply, FollowRequest

UNKNOWN = "v@20260101T000000000000Z-0000"


class Writer(AIModelBase):
    """Writes a record when it is told to, until it is told to end."""

    orders: threading.Semaphore
    over: threading.Event

    def train(self, records: int = 0, size: int = 0) -> int:
        for n in range(records):
            self.training_log.append(progress=n, data="x" * size)
        n = records
        while not self.over.is_set():
            if self.cancelled:
                self.training_log.append(message="this ends the run")
            if self.orders.acquire(timeout=0.005):
                self.training_log.append(progress=n)
                n += 1
        return n


@pytest.fixture
def writer() -> Any:
    model = type("Writer", (Writer,), {"orders": threading.Semaphore(0), "over": threading.Event()})
    yield model
    model.over.set()


@pytest.fixture
def server(server_of: Any, writer: type[Writer]) -> Any:
    return server_of(writer)


@pytest.fixture
def client(server: Any, client_of: Any) -> AIClient:
    client: AIClient = client_of(server)
    return client


def asked(job_id: str, **fields: Any) -> bytes:
    return bytes(FollowRequest(id=job_id, **fields).SerializeToString())


def numbers(replies: Any) -> list[int]:
    return [json.loads(record)["seq"] for reply in replies for record in reply.records]


def told(stream: Any) -> Any:
    return map(FollowReply.FromString, stream)


class TestRecords:
    def test_they_come_as_they_are_written_each_once_and_in_order(self, client, writer):
        job = client.start_training(records=3)
        records = job.logs(follow=True)
        assert [next(records)["seq"] for _ in range(3)] == [1, 2, 3]
        for seq in range(4, 10):
            writer.orders.release()
            record = next(records)
            assert (record["seq"], record["progress"], record["job_id"]) == (seq, seq - 1, job.id)
        writer.over.set()
        assert list(records) == []
        assert job.result() == 9

    def test_without_following_those_come_that_are_there(self, client, writer):
        job = client.start_training(records=200)
        eventually(lambda: job.progress == 199)
        assert [record["seq"] for record in job.logs()] == list(range(1, 201))
        assert [record["seq"] for record in job.logs(after=198)] == [199, 200]
        assert job.state == "running"

    def test_of_a_job_that_is_over_all_come_and_then_the_end(self, client, writer):
        writer.over.set()
        job = client.start_training(records=300)
        job.wait(BOUND)
        assert [record["seq"] for record in job.logs(follow=True)] == list(range(1, 301))
        assert list(job.logs(follow=True, after=300)) == []
        assert list(job.logs(follow=True, after=2**63 - 1)) == []

    def test_large_ones_come_page_by_page(self, client, writer):
        writer.over.set()
        job = client.start_training(records=40, size=500_000)
        job.wait(BOUND)
        with Guest(client.address, max_receive_message_length=2**20) as guest:
            replies = list(told(guest.open(asked(job.id), method=FOLLOW, half_close=True)))
        assert numbers(replies) == list(range(1, 41))
        assert max(len(reply.records) for reply in replies) == 1

    @pytest.mark.parametrize("after", [-1, 2**63, 1.5, "1", None, True])
    def test_a_place_that_is_none_is_refused_here(self, client, after):
        job = client.start_training()
        with pytest.raises(InvalidArgument, match="give the seq of the last record"):
            job.logs(after=after)

    def test_they_come_through_another_server_of_the_same_data_as_well(self, server_of, client, client_of, writer):
        job = client.start_training(records=1)
        found = client_of(server_of(writer)).job(job.id)
        records = found.logs(follow=True)
        assert next(records)["seq"] == 1
        writer.orders.release()
        assert next(records)["seq"] == 2
        for end in (found.cancel, found.stop):
            with pytest.raises(InvalidArgument, match="another server on the same data path holds"):
                end()
        writer.over.set()
        assert list(records) == []
        assert found.result() == 2


class TestState:
    def test_it_is_told_at_first_and_whenever_it_changes(self, client, writer):
        job = client.start_training(records=2)
        eventually(lambda: job.progress == 1)
        with Guest(client.address) as guest:
            stream = told(guest.open(asked(job.id), method=FOLLOW))
            assert next(stream).job.state == "running"
            writer.over.set()
            states = [reply.job.state for reply in stream if reply.HasField("job")]
        assert states == ["succeeded"]

    def test_whoever_wants_no_records_gets_none(self, client, writer):
        job = client.start_training(records=100)
        with Guest(client.address) as guest:
            stream = told(guest.open(asked(job.id, without_records=True), method=FOLLOW))
            assert next(stream).job.id == job.id
            writer.over.set()
            assert not any(reply.records for reply in stream)

    def test_while_it_is_quiet_a_sign_of_life_comes(self, client, writer, monkeypatch):
        monkeypatch.setattr(job_streams, "HEARTBEAT_SECONDS", 0.02)
        job = client.start_training(records=1)
        with Guest(client.address) as guest:
            stream = told(guest.open(asked(job.id, after=1), method=FOLLOW))
            assert [next(stream).heartbeat > 0 for _ in range(5)][1:] == [True] * 4


class TestFollowers:
    def test_a_hundred_of_them_hold_no_threads(self, server, client, writer):
        job = client.start_training(records=1)
        eventually(lambda: job.progress == 0)
        before = threading.active_count()
        with Guest(server.address) as guest:
            streams = [told(guest.open(asked(job.id), method=FOLLOW)) for _ in range(100)]
            for stream in streams:
                next(stream)
            # The guest's own threads, two for each stream, are not the server's.
            names = [thread.name for thread in threading.enumerate() if thread.name.startswith("aipod")]
            assert len(names) <= before + 3
            assert repr(server._jobs._streams) == "<JobStreams, 100 open>"
            writer.orders.release()
            assert [numbers([next(stream)]) for stream in streams] == [[2]] * 100
        eventually(lambda: repr(server._jobs._streams) == "<JobStreams, 0 open>")

    def test_one_that_does_not_read_is_not_read_ahead_for(self, server, client, writer, monkeypatch):
        writer.over.set()
        job = client.start_training(records=1000, size=20_000)
        job.wait(BOUND)
        asked_for: list[int] = []
        records = server.engine.trainings.records

        def counted(job_id: str, after: int = 0, limit: int | None = None) -> Any:
            asked_for.append(after)
            return records(job_id, after, limit)

        monkeypatch.setattr(server.engine.trainings, "records", counted)
        with Guest(server.address) as guest:
            stream = guest.open(asked(job.id), method=FOLLOW)
            eventually(lambda: server._front.counters()["sends"])
            for _ in range(20):
                assert client.job(job.id).state == "succeeded"
            assert max(asked_for) < 500
            # It reads after all, and has missed nothing.
            assert numbers(told(stream)) == list(range(1, 1001))

    def test_one_that_is_gone_is_forgotten(self, server, client, writer):
        job = client.start_training()
        with Guest(server.address) as guest:
            stream = guest.open(asked(job.id), method=FOLLOW)
            next(stream)
            stream.cancel()
            eventually(lambda: repr(server._jobs._streams) == "<JobStreams, 0 open>")
            assert not server.engine.trainings._followers._told
        eventually(lambda: server._front.counters() == NOTHING)

    def test_whoever_leaves_a_log_leaves_the_server(self, server, client, writer):
        records = client.start_training(records=1).logs(follow=True)
        next(records)
        records.close()
        eventually(lambda: repr(server._jobs._streams) == "<JobStreams, 0 open>")

    def test_when_the_server_stops_they_are_told(self, server, client, writer):
        job = client.start_training(records=1)
        with Guest(server.address) as guest:
            stream = told(guest.open(asked(job.id), method=FOLLOW))
            next(stream)
            server.stop(BOUND)
            assert [reply.job.state for reply in stream if reply.HasField("job")][-1] == "interrupted"


HOSTILE: list[tuple[str, list[bytes], str, str]] = [
    ("garbage", [b"\xff"], "INVALID_ARGUMENT", "the request is no aipod.v1.FollowRequest message"),
    ("nothing", [], "INVALID_ARGUMENT", "the request is no aipod.v1.FollowRequest message"),
    ("no id", [b""], "NOT_FOUND", "there is no training job ''"),
    ("an unknown id", [asked(UNKNOWN)], "NOT_FOUND", "there is no training job"),
    ("a path", [asked("../../etc/passwd")], "NOT_FOUND", "there is no training job"),
    ("a zero", [asked("v@\0")], "NOT_FOUND", "there is no training job"),
    ("a giant", [asked("x" * 1_000_000)], "NOT_FOUND", "there is no training job"),
    ("before the beginning", [asked(UNKNOWN, after=-1)], "INVALID_ARGUMENT", "after is -1; give the seq"),
]


@pytest.mark.parametrize(("what", "messages", "status", "sentence"), HOSTILE, ids=[what for what, *_ in HOSTILE])
def test_a_request_that_makes_no_sense_is_refused(server, client, what, messages, status, sentence):
    with Guest(server.address) as guest:
        error = failure(list, guest.open(*messages, method=FOLLOW, half_close=True))
        assert error.code().name == status
        assert sentence in error.details()
        assert len(error.details()) < 1100
    eventually(lambda: repr(server._jobs._streams) == "<JobStreams, 0 open>")


def test_what_comes_after_the_request_is_passed_over(server, client, writer):
    job = client.start_training(records=1)
    with Guest(server.address) as guest:
        stream = guest.open(asked(job.id), asked(UNKNOWN), b"\xff", method=FOLLOW, half_close=True)
        writer.over.set()
        assert numbers(told(stream)) == [1]


def test_a_job_that_is_forgotten_meanwhile_is_an_error_of_ours(server, client, writer):
    job = client.start_training(records=1)
    records = job.logs(follow=True)
    next(records)
    jobs = server.engine._store.jobs
    jobs.forget(jobs.of("v"))
    writer.orders.release()
    with pytest.raises(JobNotFound):
        list(records)

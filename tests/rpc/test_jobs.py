"""Trainings as jobs, from the clients: started, watched, ended, found again; and what they answer."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from front_world import Guest, failure, fronted
from raw_trunk import RawTrunk, call
from waiting import BOUND, eventually

from aipod.codec import encode_call, encode_reply, read_reply
from aipod.engine.training import Training
from aipod.errors import (
    AipodError,
    DeadlineExceeded,
    InvalidArgument,
    JobNotFound,
    ModelError,
    NotSupportedError,
    TrainingCancelled,
    TrainingInProgress,
    Unavailable,
)
from aipod.model import AIModelBase
from aipod.rpc import job_streams
from aipod.rpc.ai_pb2 import Input, Output
from aipod.rpc.client import AIClient, AsyncAIClient
from aipod.rpc.methods import FOLLOW, MODEL_METHODS
from aipod.rpc.v1.jobs_pb2 import FollowReply, FollowRequest, JobRequest

UNKNOWN = "v@20260101T000000000000Z-0000"


class Trained(AIModelBase):
    """Trains as its arguments say, on a thread of the server's process, so that a test can hold it up."""

    gate: threading.Event
    runs: list[dict[str, Any]]

    def train(self, do: str = "return", **kwargs: Any) -> object:
        self.runs.append(kwargs)
        self.training_log.append(progress=50, message="half of it", stage=do)
        if do == "wait":
            while not (self.gate.wait(0.01) or self.cancelled or self.stopping):
                pass
            if self.cancelled:
                self.training_log.append(message="I am to end")
        elif do == "raise":
            raise {"ValueError": ValueError("no"), "InvalidArgument": InvalidArgument("x is wrong")}[kwargs["what"]]
        (self.model_dir() / "stage").write_text(do)
        return {"accuracy": 0.5, "stopped": self.stopping, **kwargs}

    def predict(self) -> object:
        return (self.model_dir() / "stage").read_text()


@pytest.fixture
def trained() -> Any:
    model = type("Trained", (Trained,), {"gate": threading.Event(), "runs": []})
    yield model
    model.gate.set()


@pytest.fixture
def client(server_of: Any, client_of: Any, trained: type[Trained]) -> AIClient:
    client: AIClient = client_of(server_of(trained))
    return client


class TestTrain:
    def test_it_returns_what_the_model_returned_and_the_new_revision_serves(self, client):
        assert client.train(epochs=2) == {"accuracy": 0.5, "stopped": False, "epochs": 2}
        assert client.predict() == "return"

    @pytest.mark.parametrize("options", [{"trunk": False}, {"shared_memory": False}, {}])
    def test_it_does_so_whichever_way_calls_go(self, server_of, client_of, trained, options):
        client = client_of(server_of(trained), **options)
        client.log()
        client.connect()
        assert client.train(n=1)["n"] == 1

    def test_what_the_model_raises_is_raised_here(self, client):
        with pytest.raises(ModelError, match="ValueError: no") as error:
            client.train(do="raise", what="ValueError")
        assert error.value.type == "ValueError"
        assert error.value.error_id
        with pytest.raises(InvalidArgument, match="x is wrong"):
            client.train(do="raise", what="InvalidArgument")
        assert [job.state for job in client.jobs()] == ["failed", "failed"]

    def test_a_model_without_train_says_so(self, server_of, client_of):
        model = type("Bare", (AIModelBase,), {"predict": lambda self: 1})
        client = client_of(server_of(model))
        for start in (client.train, client.start_training):
            with pytest.raises(NotSupportedError):
                start()

    def test_a_timeout_bounds_the_wait_and_not_the_job(self, client, trained):
        with pytest.raises(DeadlineExceeded, match="the job goes on, and client") as error:
            client.options(timeout=0.3).train(do="wait")
        [job] = client.jobs()
        assert job.id in str(error.value)
        assert job.state in ("queued", "running")
        trained.gate.set()
        assert client.job(job.id).result(BOUND)["accuracy"] == 0.5

    def test_it_returns_when_the_version_can_be_written_again(self, client, background, monkeypatch):
        release = threading.Event()
        close = Training._close
        monkeypatch.setattr(Training, "_close", lambda *outcome: (release.wait(BOUND), close(*outcome)))
        monkeypatch.setattr(job_streams, "HEARTBEAT_SECONDS", 0.01)
        training = background(client.train, n=1)
        eventually(lambda: [job.state for job in client.jobs()] == ["succeeded"])
        with Guest(client.address) as guest:
            stream = guest.open(FollowRequest(id=client.jobs()[0].id).SerializeToString(), method=FOLLOW)
            told = [FollowReply.FromString(next(stream)).job.state for _ in range(3)]
        assert told == ["", "", ""]
        with pytest.raises(TrainingInProgress):
            client.start_training()
        assert not training.done()
        release.set()
        assert training.result(BOUND)["n"] == 1
        assert client.train(n=2)["n"] == 2

    def test_a_client_that_is_closed_waits_no_longer(self, server_of, trained, background):
        server = server_of(trained)
        client = AIClient(server.address, "v")
        training = background(client.train, do="wait")
        eventually(lambda: trained.runs and "1 open" in repr(server._jobs._streams))
        client.close()
        error = training.exception(BOUND)
        assert isinstance(error, Unavailable)
        assert "this client was closed" in str(error)
        with pytest.raises(Unavailable, match="this client was closed"):
            client.train()
        with AIClient(server.address) as other:
            [job] = other.jobs()
            assert job.state == "running"
            trained.gate.set()
            assert other.job(job.id).wait(BOUND).state == "succeeded"

    def test_where_its_time_went_is_told(self, client):
        value, timings = client.options(timed=True).train()
        assert value["accuracy"] == 0.5
        assert timings.total == timings.queue + timings.predict > 0

    def test_an_argument_that_cannot_travel_starts_no_job(self, client):
        with pytest.raises(InvalidArgument, match=r'kwargs\["x"\]'):
            client.train(x={1, 2})
        assert client.jobs() == ()


class TestJob:
    def test_it_is_there_at_once_and_says_how_it_does(self, client, trained):
        job = client.start_training(do="wait", epochs=3)
        assert (job.version, repr(job)) == ("v", f"<TrainingJob {job.id!r}>")
        eventually(lambda: job.progress == 50.0)
        assert job.state == "running"
        info = job.info()
        assert (info.version, info.kind, info.revision, info.parent, info.reason) == ("v", "train", 0, 0, "")
        assert info.parameters == {"do": "wait", "epochs": 3}
        assert info.latest is not None
        assert (info.latest["seq"], info.latest["message"]) == (1, "half of it")
        assert info.heartbeat > 0
        trained.gate.set()
        assert job.wait(BOUND).state == "succeeded"
        assert job.result() == {"accuracy": 0.5, "stopped": False, "epochs": 3}
        info = job.info()
        assert (info.revision, info.is_over, info.metrics) == (1, True, {"accuracy": 0.5, "epochs": 3})
        assert info.created <= info.started <= info.ended

    def test_to_wait_has_a_bound(self, client):
        job = client.start_training(do="wait")
        for wait in (job.wait, job.result):
            with pytest.raises(DeadlineExceeded, match="the job goes on"):
                wait(0.2)
        assert job.cancel().state in ("cancelling", "cancelled")

    def test_a_second_one_is_told_of_the_first(self, client, trained):
        first = client.start_training(do="wait")
        for start in (client.train, client.start_training):
            with pytest.raises(TrainingInProgress) as error:
                start()
            assert error.value.job == first.id
        trained.gate.set()
        first.wait(BOUND)
        assert client.train()["accuracy"] == 0.5

    def test_one_with_the_same_request_id_is_the_same(self, client, trained):
        night = client.options(request_id="夜 2026-11-20")
        first = night.start_training(do="wait")
        assert night.start_training(do="wait").id == first.id
        trained.gate.set()
        assert first.result(BOUND) == night.train(do="wait")
        assert len(trained.runs) == 1
        assert first.info().request_id == "夜 2026-11-20"
        assert night.options(request_id=None).start_training().id != first.id

    @pytest.mark.parametrize("request_id", ["", "x" * 201, "a\nb", 7, "\ud800"])
    def test_a_request_id_that_is_none_is_refused_here(self, client, request_id):
        with pytest.raises(InvalidArgument, match="printable text of 1 to 200 bytes"):
            client.options(request_id=request_id)

    def test_to_cancel_discards_what_it_made(self, client):
        client.train()
        job = client.start_training(do="wait")
        eventually(lambda: job.progress == 50.0)
        assert job.cancel().state in ("cancelling", "cancelled")
        with pytest.raises(TrainingCancelled) as error:
            job.result(BOUND)
        assert error.value.job == job.id
        assert job.wait().state == "cancelled"
        assert client.predict() == "return"
        assert job.cancel().state == "cancelled"

    def test_to_stop_publishes_what_it_returns_early(self, client):
        job = client.start_training(do="wait")
        eventually(lambda: job.progress == 50.0)
        job.stop()
        assert job.result(BOUND)["stopped"] is True
        assert client.predict() == "wait"

    def test_another_client_finds_it_by_its_id(self, server_of, client_of, trained):
        server = server_of(trained)
        job = client_of(server).start_training(do="wait")
        found = client_of(server, "other").job(job.id)
        assert (found.version, found.state in ("queued", "running")) == ("v", True)
        trained.gate.set()
        assert found.result(BOUND) == job.result(BOUND)

    def test_all_of_them_are_listed(self, server_of, client_of, trained):
        server = server_of(trained, model_pool_size=2)
        one, two = client_of(server, "one"), client_of(server, "two")
        one.train(n=1)
        two.train()
        one.train(n=2)
        assert [(job.version, job.state) for job in one.jobs()] == [(v, "succeeded") for v in ("one", "two", "one")]
        assert [job.parameters for job in two.jobs("one")] == [{"n": 1}, {"n": 2}]
        assert two.jobs("nobody") == ()
        with pytest.raises(InvalidArgument, match="is no version name"):
            one.jobs("../x")

    def test_what_it_printed_is_text(self, client):
        job = client.start_training()
        job.wait(BOUND)
        assert isinstance(job.output(), str)


HOSTILE = [UNKNOWN, "", "v", "../../etc/passwd", "v@\0", "x" * 100_000, "v@" + "9" * 300, "/", "."]


@pytest.mark.parametrize("verb", ["Get", "Cancel", "Stop", "Result", "Output"])
@pytest.mark.parametrize("job_id", HOSTILE, ids=range(len(HOSTILE)))
def test_an_id_that_no_job_has_is_not_found(client, verb, job_id):
    with Guest(client.address) as guest:
        request = JobRequest(id=job_id).SerializeToString()
        error = failure(guest.call, request, f"/aipod.v1.Jobs/{verb}")
    assert error.code().name == "NOT_FOUND"
    assert len(error.details()) < 1100


@pytest.mark.parametrize("verb", ["Get", "List", "Cancel", "Stop", "Result", "Output"])
def test_what_is_no_request_is_refused(client, verb):
    with Guest(client.address) as guest:
        error = failure(guest.call, b"\xff", f"/aipod.v1.Jobs/{verb}")
    assert error.code().name == "INVALID_ARGUMENT"
    assert "the request is no aipod.v1." in error.details()


def test_a_job_that_is_not_there_is_an_error_of_ours(client):
    with pytest.raises(JobNotFound, match="there is no training job"):
        client.job(UNKNOWN)
    for wrong in (7, None, "a\n"):
        with pytest.raises(InvalidArgument, match="the id of a job"):
            client.job(wrong)


def test_the_result_of_what_runs_is_refused(client):
    job = client.start_training(do="wait")
    with Guest(client.address) as guest:
        error = failure(guest.call, JobRequest(id=job.id).SerializeToString(), "/aipod.v1.Jobs/Result")
    assert error.code().name == "INVALID_ARGUMENT"
    job.cancel()


class TestWire:
    """What other languages' clients send."""

    def test_a_train_that_detaches_is_answered_with_its_job(self, client, trained):
        with Guest(client.address) as guest:
            message = encode_call("v", {"do": "wait"}, request_id="r", detach=True)
            reply = read_reply(guest.call(message, MODEL_METHODS["train"]))
            assert reply.value()["id"] == reply.job
            assert read_reply(guest.call(message, MODEL_METHODS["train"])).job == reply.job
        trained.gate.set()
        assert client.job(reply.job).result(BOUND)["accuracy"] == 0.5

    def test_one_that_does_not_is_answered_when_it_is_over(self, client):
        with Guest(client.address) as guest:
            reply = read_reply(guest.call(encode_call("v", {"n": 1}), MODEL_METHODS["train"]))
        assert (reply.job, reply.value()["n"]) == ("", 1)

    @pytest.mark.parametrize(
        ("method", "options", "sentence"),
        [
            ("predict", {"detach": True}, "detach is for train; no job comes of predict"),
            ("initialize", {"detach": True}, "detach is for train; no job comes of initialize"),
            ("train", {"detach": True, "request_id": "x" * 201}, "at most 200 bytes"),
            ("train", {"request_id": "a\0b"}, "printable text"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, client, method, options, sentence):
        with Guest(client.address) as guest:
            error = failure(guest.call, encode_call("v", {}, **options), MODEL_METHODS[method])
        assert error.code().name == "INVALID_ARGUMENT"
        assert sentence in error.details()
        assert client.jobs() == ()

    def test_the_job_outlives_whoever_started_it(self, client, trained):
        with Guest(client.address) as guest:
            guest.begin(encode_call("v", {"do": "wait"}), MODEL_METHODS["train"])
            eventually(lambda: trained.runs)
        [job] = client.jobs()
        trained.gate.set()
        assert client.job(job.id).wait(BOUND).state == "succeeded"


class TestOlderServer:
    """One that knows no jobs runs a train to its end, whatever it carries."""

    @pytest.fixture
    def older(self, front: str) -> Any:
        calls: list[bytes] = []

        def answer(raw: Any) -> None:
            calls.append(raw.message)
            raw.reply(encode_reply({"trained": len(calls)}))

        with fronted(front, answer, methods={MODEL_METHODS["train"]: None}) as (_, address):
            yield address, calls

    def test_its_answer_is_the_value(self, older, client_of):
        client = client_of(older[0])
        assert client.train() == {"trained": 1}
        assert client.options(timed=True).train().value == {"trained": 2}

        async def asynchronous() -> object:
            async with AsyncAIClient(older[0], "v") as client:
                return await client.train()

        assert asyncio.run(asynchronous()) == {"trained": 3}

    def test_there_is_no_job_to_be_had(self, older, client_of):
        with pytest.raises(NotSupportedError, match="knows no jobs"):
            client_of(older[0]).start_training()


class TestSeveralServers:
    def test_a_train_goes_to_one_of_them_and_is_followed_there(self, server_of, trained, tmp_path):
        servers = [server_of(trained, data_path=tmp_path / name) for name in ("a", "b")]
        with AIClient([server.address for server in servers], "v") as client:
            assert client.train(n=1)["n"] == 1
            assert len(trained.runs) == 1
            for ask in (client.jobs, lambda: client.job(UNKNOWN)):
                with pytest.raises(InvalidArgument, match="several servers"):
                    ask()

    def test_one_that_is_away_is_passed_over(self, server_of, trained):
        with AIClient(["127.0.0.1:1", server_of(trained).address], "v") as client:
            for n in range(2):
                assert client.train(n=n)["n"] == n
        assert len(trained.runs) == 2


def test_a_server_that_was_never_there_is_not_waited_for(client_of):
    client = client_of("127.0.0.1:1").options(retry=1)
    for ask in (client.train, client.start_training, client.jobs, lambda: client.job(UNKNOWN)):
        with pytest.raises(Unavailable, match="there is no server at"):
            ask()


class TestLog:
    def test_it_is_read_from_a_place_on(self, client, trained):
        client.train()
        assert [record["seq"] for record in client.log()] == [1]
        assert client.log(after=1) == []
        assert client.log(limit=0) == []
        assert client.log(after=0, limit=1)[0]["message"] == "half of it"

    @pytest.mark.parametrize("wrong", [{"after": -1}, {"limit": -1}, {"after": "x"}, {"limit": True}, {"after": 1.5}])
    def test_a_place_that_is_none_is_refused(self, client, wrong):
        with pytest.raises(InvalidArgument, match="whole number of records"):
            client.log(**wrong)


class TestRevisions:
    def test_each_says_what_made_it_and_what_came_of_it(self, client):
        client.train(do="return", rate=0.1)
        job = client.start_training(rate=0.2)
        job.wait(BOUND)
        first, second = client.admin.revisions("v")
        assert (first.parent, second.parent, second.job, second.live) == (0, 1, job.id, True)
        assert (first.parameters, second.parameters) == ({"do": "return", "rate": 0.1}, {"rate": 0.2})
        assert second.metrics == {"accuracy": 0.5, "rate": 0.2}
        [version] = client.admin.versions()
        assert version.revisions[1]._replace(parameters=second.parameters, metrics=second.metrics) == second
        assert version.revisions[1].parameters is None

    def test_of_a_version_that_is_not_there_there_are_none(self, client):
        with pytest.raises(AipodError, match="there is no version 'w'"):
            client.admin.revisions("w")


class TestAsync:
    def test_everything_is_awaited(self, server_of, trained):
        async def run() -> None:
            async with AsyncAIClient(server_of(trained).address, "v") as client:
                assert (await client.options(timed=True).train(n=1)).value["n"] == 1
                job = await client.start_training(do="wait")
                assert repr(job) == f"<AsyncTrainingJob {job.id!r}>"
                assert (await job.info()).id == (await client.job(job.id)).id == job.id
                with pytest.raises(DeadlineExceeded, match="the job goes on"):
                    await job.wait(0.2)
                with pytest.raises(TrainingInProgress):
                    await client.train()
                assert await job.state == "running"
                assert await job.progress == 50.0
                await job.stop()
                assert (await job.result(BOUND))["stopped"] is True
                assert [record["seq"] async for record in job.logs()] == [1]
                assert await job.output() == ""
                assert [job.state for job in await client.jobs("v")] == ["succeeded"] * 2
                assert len(await client.admin.revisions("v")) == 2
                with pytest.raises(JobNotFound):
                    await client.job(UNKNOWN)
                other = await client.start_training(do="wait")
                await other.cancel()
                with pytest.raises(TrainingCancelled):
                    await other.result(BOUND)

        asyncio.run(run())

    def test_to_cancel_the_task_leaves_the_job_running(self, server_of, trained):
        async def run() -> None:
            async with AsyncAIClient(server_of(trained).address, "v") as client:
                task = asyncio.create_task(client.train(do="wait"))
                while not trained.runs:
                    await asyncio.sleep(0.005)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                [info] = await client.jobs()
                assert info.state == "running"
                trained.gate.set()
                assert (await (await client.job(info.id)).result(BOUND))["accuracy"] == 0.5

        asyncio.run(run())


def test_the_wire_of_1_0_blocks_and_answers_as_it_did(server_of, trained):
    with Guest(server_of(trained).address) as guest:
        reply = guest.call(Input(kwargs_json=b'{"n": 1}', version="v").SerializeToString(), "/ai.AI/train")
    assert json.loads(Output.FromString(reply).data_json) == {"accuracy": 0.5, "stopped": False, "n": 1}


def test_a_trunk_carries_a_train_that_detaches(server_of, trained, client_of):
    server = server_of(trained)
    with RawTrunk(server.address) as trunk:
        trunk.send(call(1, encode_call("v", {"n": 1}, detach=True), method=3))
        reply = read_reply(trunk.answer(1).content)
    assert client_of(server).job(reply.job).result(BOUND)["n"] == 1
    assert reply.value()["id"] == reply.job

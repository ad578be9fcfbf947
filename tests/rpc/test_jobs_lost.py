"""Jobs outlive what they are seen through: connections that are cut, clients that are killed, servers that are."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cutting_relay import CuttingRelay
from front_world import Ear, fronted
from waiting import BOUND, eventually

from aipod.codec import encode_reply, with_job
from aipod.errors import TrainingFailed, Unavailable
from aipod.rpc.client import AIClient, AsyncAIClient
from aipod.rpc.methods import FOLLOW, MODEL_METHODS
from aipod.rpc.v1.admin_pb2 import InfoReply
from aipod.rpc.v1.jobs_pb2 import FollowReply, JobInfo

SERVE = """
    import os, time
    from aipod.model import AIModelBase
    from aipod.rpc.server import serve

    class Slow(AIModelBase):
        resumable = RESUMABLE

        def train(self, steps=30, seconds=0.1, name=""):
            with open(str(self.datapath) + "/trainings", "a") as file:
                file.write(name + "x")
            done = self.model_dir() / "done"
            begun = int(done.read_text()) if done.exists() and self.resume_from else 0
            for step in range(begun, steps):
                if os.path.exists(str(self.datapath) + "/finish"):
                    break
                time.sleep(seconds)
                done.write_text(str(step + 1))
                self.training_log.append(progress=100.0 * (step + 1) / steps)
            return {"steps": steps, "begun": begun}

        def predict(self):
            return "served"

    serve(Slow)
"""
ONCE = SERVE.replace("RESUMABLE", "False")
RESUMABLE = SERVE.replace("RESUMABLE", "True")


def trainings(data: Path) -> int:
    """How often train was entered."""
    path = data / "trainings"
    return path.read_text().count("x") if path.exists() else 0


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def relayed(process_of: Any) -> Iterator[tuple[Any, CuttingRelay]]:
    process = process_of(ONCE)
    with CuttingRelay(process.address) as relay:
        yield process, relay


class TestConnections:
    def test_train_returns_the_right_value_over_connections_that_are_cut_again_and_again(self, relayed, data):
        _, relay = relayed
        with AIClient(relay.address, "v") as client, relay.cutting(0.3):
            assert client.train(steps=25) == {"steps": 25, "begun": 0}
        assert relay.cuts >= 3
        assert trainings(data) == 1

    def test_so_it_does_where_it_is_awaited(self, relayed, data):
        _, relay = relayed

        async def run() -> object:
            async with AsyncAIClient(relay.address, "v") as client:
                return await client.train(steps=25)

        with relay.cutting(0.3):
            assert asyncio.run(run()) == {"steps": 25, "begun": 0}
        assert relay.cuts >= 3
        assert trainings(data) == 1

    def test_a_log_is_followed_over_three_reconnects_each_record_once_and_in_order(self, relayed):
        _, relay = relayed
        with AIClient(relay.address, "v") as client:
            job = client.start_training(steps=40, seconds=0.02)
            seen = []
            for record in job.logs(follow=True):
                seen.append(record["seq"])
                if record["seq"] in (5, 15, 25):
                    assert relay.cut()
        assert seen == list(range(1, 41))

    def test_so_it_is_where_it_is_awaited(self, relayed):
        _, relay = relayed

        async def run() -> list[int]:
            seen = []
            async with AsyncAIClient(relay.address, "v") as client:
                job = await client.start_training(steps=40, seconds=0.02)
                async for record in job.logs(follow=True):
                    seen.append(record["seq"])
                    if record["seq"] in (5, 15, 25):
                        assert relay.cut()
            return seen

        assert asyncio.run(run()) == list(range(1, 41))

    def test_a_train_whose_answer_is_lost_is_sent_again_and_is_the_same_job(self, relayed, data, background):
        _, relay = relayed
        with AIClient(relay.address, "v") as client:
            client.predict()
            relay.hold_answers()
            training = background(client.train, steps=3)
            eventually(lambda: trainings(data) == 1)
            relay.cut()
            relay.hold_answers(False)
            assert training.result(BOUND) == {"steps": 3, "begun": 0}
            assert trainings(data) == 1
            assert len(client.jobs()) == 1

    def test_without_tries_it_is_not_sent_again(self, relayed, data, background):
        _, relay = relayed
        with AIClient(relay.address, "v") as client:
            client.predict()
            relay.hold_answers()
            training = background(client.options(retry=0).train, steps=3)
            eventually(lambda: trainings(data) == 1)
            relay.cut()
            relay.hold_answers(False)
            error = training.exception(BOUND)
            assert isinstance(error, Unavailable)
            assert error.may_have_run

    def test_a_server_that_knows_no_jobs_gets_it_once(self, front, background):
        calls: list[bytes] = []

        def answer(raw: Any) -> None:
            if raw.method == MODEL_METHODS["train"]:
                calls.append(raw.message)
            else:
                raw.reply(InfoReply(server="2.0", wire_version=1, abilities=["unary", "trunk"]).SerializeToString())

        methods = {MODEL_METHODS["train"]: None, "/aipod.v1.Admin/Info": None}
        with (
            fronted(front, answer, methods=methods) as (_, address),
            CuttingRelay(address) as relay,
            AIClient(relay.address) as client,
        ):
            training = background(client.train)
            eventually(lambda: calls)
            relay.cut()
            error = training.exception(BOUND)
            assert isinstance(error, Unavailable)
            assert error.may_have_run
            assert len(calls) == 1

    @pytest.mark.parametrize("status", ["OK", "INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED"])
    def test_a_stream_that_somebody_in_between_ends_is_opened_again(self, front, status, caplog):
        ends = iter([status, status])

        def follow(stream: Any) -> Ear:
            ear = Ear(stream)
            end = next(ends, None)
            state = "succeeded" if end is None else "running"
            ear.say(FollowReply(job=JobInfo(id="v@1", version="v", state=state)).SerializeToString())
            stream.finish(end or "OK", "a proxy lost it")
            return ear

        def answer(raw: Any) -> None:
            reply = encode_reply(5)
            raw.reply(with_job(reply, "v@1") if raw.method == MODEL_METHODS["train"] else reply)

        methods = {MODEL_METHODS["train"]: None, "/aipod.v1.Jobs/Result": None}
        with (
            fronted(front, answer, methods=methods, streams={FOLLOW: follow}) as (_, address),
            AIClient(address, "v") as client,
        ):
            assert client.train() == 5
        assert next(ends, None) is None
        said = [record.getMessage() for record in caplog.records if record.name == "aipod.client"]
        assert all("is followed on when its server is back" in text for text in said)
        assert bool(said) == (status != "DEADLINE_EXCEEDED")


class TestServers:
    def test_a_client_goes_on_with_a_queued_job_after_a_kill(self, process_of, data, background):
        process = process_of(ONCE)
        with AIClient(process.address, "first") as first, AIClient(process.address, "second") as second:
            running = background(first.train, steps=1000)
            eventually(lambda: trainings(data) == 1)
            waiting = background(second.train, steps=2)
            eventually(lambda: [job.state for job in second.jobs("second")] == ["queued"])
            process.send(signal.SIGKILL)
            process.wait()
            process.start()
            assert waiting.result(BOUND) == {"steps": 2, "begun": 0}
            error = running.exception(BOUND)
            assert isinstance(error, TrainingFailed)
            assert "the process that ran it ended" in str(error)
            assert second.predict() == "served"

    def test_a_client_goes_on_with_a_job_that_is_resumed_after_a_kill(self, process_of, data, background):
        process = process_of(RESUMABLE)
        with AIClient(process.address, "v") as client:
            training = background(client.train, steps=20, seconds=0.05)
            eventually(client.log)
            [job] = client.jobs()
            process.send(signal.SIGKILL)
            process.wait()
            process.start()
            value = training.result(BOUND)
            assert value["steps"] == 20
            assert value["begun"] >= 1
            assert trainings(data) == 2
            assert [(one.id, one.state) for one in client.jobs()] == [(job.id, "succeeded")]
            records = client.job(job.id).logs()
            assert [record["seq"] for record in records] == list(range(1, len(client.log()) + 1))

    @pytest.mark.parametrize("source", [ONCE, RESUMABLE], ids=["once", "resumable"])
    def test_after_a_drain_it_goes_on_or_says_why_it_does_not(self, process_of, data, background, source):
        process = process_of(source, AIPOD_DRAIN_SECONDS="0.5")
        with AIClient(process.address, "v") as client:
            training = background(client.train, steps=20, seconds=0.05)
            eventually(client.log)
            process.send(signal.SIGTERM)
            assert process.wait() == 0
            process.start()
            if source is RESUMABLE:
                assert training.result(BOUND)["begun"] >= 1
            else:
                assert isinstance(training.exception(BOUND), TrainingFailed)

    def test_a_train_that_finds_no_server_waits_for_it_as_a_predict_does(self, process_of, data):
        process = process_of(ONCE)
        with AIClient(process.address, "v") as client:
            assert client.train(steps=1) == {"steps": 1, "begun": 0}
            process.send(signal.SIGKILL)
            process.wait()
            restart = threading.Thread(target=process.start)
            restart.start()
            assert client.options(retry=60).train(steps=1) == {"steps": 1, "begun": 0}
            restart.join()
            assert trainings(data) == 2


CLIENT = """
    import sys
    from aipod.rpc.client import AIClient

    client = AIClient(sys.argv[1], "v")
    job = client.start_training(steps=1000, seconds=0.01)
    for record in job.logs(follow=True):
        if record["seq"] == 1:
            print(job.id, flush=True)
"""


class TestClients:
    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "SIGINT"])
    def test_another_one_finds_the_job_of_one_that_was_killed(self, process_of, data, tmp_path, number):
        process = process_of(ONCE)
        script = tmp_path / "client.py"
        script.write_text(textwrap.dedent(CLIENT))
        environment = {**os.environ, "PYTHONPATH": os.getcwd()}
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen([sys.executable, str(script), process.address], env=environment, **pipes) as child:
            try:
                job_id = child.stdout.readline().strip()
                child.send_signal(number)
                child.communicate(timeout=BOUND)
            finally:
                child.kill()
        assert child.returncode in (-number, 1)
        with AIClient(process.address) as client:
            job = client.job(job_id)
            records = job.logs(follow=True)
            assert next(records)["seq"] == 1
            (data / "finish").touch()
            assert [record["seq"] for record in records][-1:] == [client.job(job_id).info().latest["seq"]]
            assert job.result(BOUND) == {"steps": 1000, "begun": 0}
        assert trainings(data) == 1

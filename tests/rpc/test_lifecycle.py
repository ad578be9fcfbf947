"""Servers as processes: start, ports, signals, kills, restarts, frozen peers."""

from __future__ import annotations

import signal
import socket
import threading
from pathlib import Path

import pytest
from ports import free_port
from waiting import BOUND, eventually

from aipod.errors import ConfigError, DeadlineExceeded, TrainingFailed, Unavailable
from aipod.rpc.client import AIClient
from aipod.rpc.connection import Connection
from aipod.rpc.server import Server

SERVE = """
    import sys, time
    from aipod.model import AIModelBase
    from aipod.rpc.server import serve

    class Digits(AIModelBase):
        def train(self, seconds=0.0):
            with open(str(self.datapath) + "/trainings", "a") as file:
                file.write("x")
            time.sleep(seconds)
            return "trained"

        def predict(self, seconds=0.0, die=False):
            with open(str(self.datapath) + "/started", "a") as file:
                file.write("x")
            if die:
                import os, signal
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(seconds)
            return "done"

    serve(Digits)
"""


def started(data: Path, name: str = "started") -> int:
    """How many calls the model has begun; "trainings" counts the others."""
    path = data / name
    return len(path.read_text()) if path.exists() else 0


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


class TestStart:
    def test_the_first_line_says_what_is_served_and_where(self, process_of):
        process = process_of(SERVE)
        assert process.first_line == f"aipod: serving Digits on 127.0.0.1:{process.port}"
        with AIClient(process.address) as client:
            assert client.predict() == "done"

    def test_a_taken_port_is_an_error_of_one_line(self, process_of):
        first = process_of(SERVE)
        second = process_of(SERVE, AIPOD_LISTEN_PORT=first.port)
        assert second.wait() == 1
        assert second.stdout == ""
        assert f"aipod: nothing can listen on 127.0.0.1:{first.port}" in second.stderr
        assert "Traceback" not in second.stderr

    def test_a_port_that_a_listening_socket_holds_is_taken_too(self, tmp_path, model):
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            port = holder.getsockname()[1]
            with pytest.raises(Unavailable, match="the port is taken"):
                Server(model, port=port, listen_host="127.0.0.1", data_path=tmp_path).start()

    @pytest.mark.parametrize(("name", "value"), [("AIPOD_LISTEN_PORT", "99999"), ("AIPOD_MODEL_POOL_SIZE", "abc")])
    def test_a_bad_setting_ends_it_with_2_and_a_line_that_names_it(self, process_of, name, value):
        process = process_of(SERVE, **{name: value})
        assert process.wait() == 2
        assert process.stderr.startswith(f"aipod: {name} is '{value}'")
        assert "Traceback" not in process.stderr

    def test_a_data_path_that_cannot_be_used_is_refused_at_the_start(self, process_of, tmp_path):
        (tmp_path / "file").write_text("")
        process = process_of(SERVE, AIPOD_DATA_PATH=str(tmp_path / "file" / "data"))
        assert process.wait() == 1
        assert process.stderr.splitlines()[-1].startswith("aipod: opening the data path: Not a directory")
        assert "Traceback" not in process.stderr

    def test_a_server_has_a_free_port_and_an_address(self, server_of, client_of, model):
        one, two = server_of(model), server_of(model)
        assert one.address != two.address
        assert client_of(one).predict(x=1) == client_of(two).predict(x=1)

    def test_port_0_of_serve_means_the_environments(self, process_of):
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            port = str(holder.getsockname()[1])
        process = process_of(SERVE.replace("serve(Digits)", "serve(Digits, port=0)"), AIPOD_LISTEN_PORT=port)
        assert process.port == port

    def test_a_server_starts_once(self, tmp_path, model):
        server = Server(model, port=0, listen_host="127.0.0.1", data_path=tmp_path)
        assert repr(server) == "<Server of Model, not started yet>"
        with server:
            assert repr(server) == f"<Server of Model, on {server.address}>"
            with pytest.raises(Unavailable, match="a server starts once; make a new one"):
                server.start()
        assert repr(server) == "<Server of Model, stopped>"
        with pytest.raises(Unavailable, match="a server starts once; make a new one"):
            server.start()

    def test_a_host_that_is_none_is_named_as_the_reason(self, tmp_path, model):
        with pytest.raises(Unavailable, match="this machine has no such address; choose another AIPOD_LISTEN_HOST"):
            Server(model, port=0, listen_host="192.0.2.1", data_path=tmp_path).start()

    def test_what_is_no_model_is_refused(self):
        with pytest.raises(ConfigError, match="no subclass of AIModelBase"):
            Server(dict)

    def test_a_closed_stdout_is_no_reason_not_to_serve(self, process_of, tmp_path):
        process = process_of(SERVE)
        process.popen.stdout.close()
        with AIClient(process.address) as client:
            assert client.predict() == "done"


class TestEnd:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_drains_running_calls_finish_and_new_ones_are_refused(self, process_of, data, background, number):
        process = process_of(SERVE)
        with AIClient(process.address) as client, AIClient(process.address) as late:
            running = background(client.predict, seconds=1.0)
            eventually(lambda: started(data) == 1)
            process.send(number)
            with pytest.raises(Unavailable) as refused:
                for _ in range(1000):
                    late.options(retry=0).predict()
            assert refused.value.may_have_run is False
            assert running.result(BOUND) == "done"
        assert process.wait() == 0
        assert "Traceback" not in process.stderr

    def test_a_stuck_model_does_not_keep_it_beyond_the_grace(self, process_of, data, background):
        process = process_of(SERVE, AIPOD_DRAIN_SECONDS="0.5")
        with AIClient(process.address) as client:
            stuck = background(client.options(retry=0).predict, seconds=3600)
            eventually(lambda: started(data) == 1)
            process.send(signal.SIGTERM)
            error = stuck.exception(BOUND)
            assert isinstance(error, Unavailable)
            assert "the server stopped before the model was through" in str(error)
            assert error.may_have_run
        assert process.wait(0.5 + 1 + 5) == 0

    def test_a_load_that_hangs_at_the_start_does_not_keep_it(self, process_of, data):
        source = SERVE.replace("def predict", "def load(self):\n            time.sleep(3600)\n\n        def predict")
        source = source.replace("serve(Digits)", "print('loading', flush=True)\n    serve(Digits, preload='v')")
        process = process_of(source)
        assert process.first_line == "loading"
        process.send(signal.SIGTERM)
        # The handler is there from the first line of serve(); before that the default action ends the process.
        assert process.wait() in (0, -signal.SIGTERM)

    def test_a_training_gets_the_grace_and_what_it_leaves_is_recovered(self, process_of, data, background):
        process = process_of(SERVE, AIPOD_DRAIN_SECONDS="0.3")
        with AIClient(process.address, version="v") as client:
            client.initialize(a=1)
            training = background(client.train, seconds=3600)
            eventually(lambda: started(data, "trainings") == 1)
            process.send(signal.SIGTERM)
            assert process.wait() == 0
            process.start()
            # Whoever follows it hears of it from the server that is back.
            assert isinstance(training.exception(BOUND), TrainingFailed)
            assert client.predict() == "done"
            assert not any((data / "staging").iterdir())
            assert client.train() == "trained"

    def test_a_second_signal_ends_it_at_once(self, process_of, data, background):
        process = process_of(SERVE, AIPOD_DRAIN_SECONDS="3600")
        with AIClient(process.address) as client:
            stuck = background(client.options(retry=0).predict, seconds=3600)
            eventually(lambda: started(data) == 1)
            process.send(signal.SIGTERM)
            with pytest.raises(Unavailable):
                for _ in range(1000):
                    AIClient(process.address).options(retry=0, timeout=5.0).predict()
            process.send(signal.SIGTERM)
            assert process.wait() == 128 + signal.SIGTERM
            assert isinstance(stuck.exception(BOUND), Unavailable)

    def test_starts_and_stops_leave_nothing(self, tmp_path, model):
        before = threading.enumerate()
        for _ in range(20):
            with (
                Server(model, port=0, listen_host="127.0.0.1", data_path=tmp_path) as server,
                AIClient(server.address) as client,
            ):
                assert client.predict(x=1) == {"x": 1}
        left = [thread for thread in threading.enumerate() if thread not in before]
        assert [thread.name for thread in left if thread.name.startswith("aipod")] == []


class TestAway:
    def test_predict_survives_a_restart_of_the_server(self, process_of):
        process = process_of(SERVE)
        with AIClient(process.address) as client:
            assert client.predict() == "done"
            process.send(signal.SIGKILL)
            process.wait()
            restart = threading.Thread(target=process.start)
            restart.start()
            # As many tries as a busy machine may need to start it again.
            assert client.options(retry=60).predict() == "done"
            restart.join()

    def test_a_server_that_dies_under_a_call_says_that_it_can_have_run(self, process_of, data):
        process = process_of(SERVE)
        with AIClient(process.address) as client, pytest.raises(Unavailable, match="the call can have run") as error:
            client.options(retry=0).predict(die=True)
        assert error.value.may_have_run
        assert started(data) == 1

    @pytest.mark.parametrize("method", ["train", "initialize"])
    def test_train_and_initialize_never_run_twice(self, process_of, data, background, method):
        process = process_of(
            SERVE.replace("def predict", "def initialize(self): return self.train(3600)\n\n        def predict")
        )
        with AIClient(process.address) as client:
            call = background(getattr(client, method), **({"seconds": 3600} if method == "train" else {}))
            eventually(lambda: started(data, "trainings") == 1)
            process.send(signal.SIGKILL)
            process.wait()
            process.start()
            assert isinstance(call.exception(BOUND), TrainingFailed if method == "train" else Unavailable)
            assert started(data, "trainings") == 1

    def test_a_frozen_server_is_noticed_by_pings_and_not_by_the_deadline(self, process_of, data, background):
        process = process_of(SERVE)
        with AIClient(process.address, ping_seconds=0.3) as client:
            call = background(client.options(timeout=None, retry=0).predict, seconds=3600)
            eventually(lambda: started(data) == 1)
            process.send(signal.SIGSTOP)
            try:
                assert isinstance(call.exception(BOUND), Unavailable)
            finally:
                process.send(signal.SIGCONT)

    def test_a_long_call_is_not_killed_by_its_own_pings(self, process_of):
        process = process_of(SERVE)
        with AIClient(process.address, ping_seconds=0.2) as client:
            assert client.options(timeout=None, retry=0).predict(seconds=3.0) == "done"

    def test_what_never_answers_ends_with_the_deadline(self, background):
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            with AIClient(address) as client, pytest.raises((DeadlineExceeded, Unavailable)):
                client.options(timeout=0.5).predict()

    def test_what_is_no_grpc_server_is_unavailable(self):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()

            def answer() -> None:
                peer, _ = other.accept()
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                peer.close()

            thread = threading.Thread(target=answer)
            thread.start()
            with (
                AIClient(f"127.0.0.1:{other.getsockname()[1]}") as client,
                pytest.raises((Unavailable, DeadlineExceeded)),
            ):
                client.options(timeout=2.0, retry=0).predict()
            thread.join()


class TestHalfOpen:
    def test_streams_that_never_send_their_request_hold_up_nobody(self, server_of, client_of, model):
        import grpc

        server = server_of(model)
        release = threading.Event()

        def never():
            release.wait(BOUND)
            yield from ()

        with grpc.insecure_channel(server.address) as channel:
            send = channel.stream_unary("/aipod.v1.Model/Predict")
            halves = [send.future(never()) for _ in range(100)]
            assert client_of(server).predict(x=1) == {"x": 1}
            for half in halves:
                half.cancel()
            release.set()

    def test_garbage_on_the_port_hurts_nobody(self, server_of, client_of, model):
        server = server_of(model)
        host, _, port = server.address.rpartition(":")
        for garbage in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x00" * 1000,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
        ) * 20:
            with socket.create_connection((host, int(port))) as attacker:
                attacker.sendall(garbage)
        assert client_of(server).predict(x=1) == {"x": 1}


def test_two_servers_on_one_data_path_share_its_revisions(process_of, tmp_path):
    one = process_of(SERVE)
    two = process_of(SERVE)
    with AIClient(one.address, version="v") as writer, AIClient(two.address, version="v") as reader:
        assert writer.initialize(a=1)["result"] is True
        assert writer.train() == "trained"
        assert reader.predict() == "done"
        assert [one.number for one in reader.admin.versions()[0].revisions] == [1, 2]


def test_between_two_tries_a_call_waits_for_the_server(client_of, monkeypatch):
    # Without it older versions of gRPC do not see that a server is back; make test-grpcio has those.
    client = client_of(f"127.0.0.1:{free_port()}", trunk=False)
    stub, calls = Connection.stub, []

    def recorded(self, method):
        def call(message, **options):
            calls.append((method, options.get("wait_for_ready", False)))
            return stub(self, method)(message, **options)

        return call

    monkeypatch.setattr(Connection, "stub", recorded)
    with pytest.raises(Unavailable, match="there is no server"):
        client.options(retry=2).predict()
    tries = [("/aipod.v1.Model/Predict", False), ("/grpc.health.v1.Health/Check", True)]
    assert calls == [*tries, *tries, tries[0]]

"""The model's methods through a socket: values, errors, options, many callers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import ml_dtypes
import numpy
import pytest
from waiting import BOUND, eventually

from aipod.errors import (
    BadVersionName,
    Cancelled,
    ConfigError,
    Conflict,
    DeadlineExceeded,
    InvalidArgument,
    LoadError,
    ModelError,
    NotSupportedError,
    Overloaded,
    SerializationError,
    Unavailable,
    VersionNotFound,
)
from aipod.model import AIModelBase, current_call
from aipod.rpc.calls import RemoteTraceback
from aipod.rpc.client import AIClient, AsyncAIClient


def same(one: object, other: object) -> bool:
    if isinstance(one, numpy.ndarray):
        assert isinstance(other, numpy.ndarray)
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return type(one) is type(other) and one == other


@pytest.mark.parametrize(
    "value",
    [
        None,
        "模型",
        b"\x00" * 5000,
        [1, 2.5, {"deep": True}],
        numpy.arange(12, dtype=">i4").reshape(3, 4)[:, ::2],
        numpy.array(1.5, dtype="f4"),
        numpy.zeros((0, 3)),
        numpy.array(["2026-01-01", "NaT"], dtype="M8[D]"),
        numpy.array([1.5, numpy.nan], dtype=ml_dtypes.bfloat16),
        numpy.random.default_rng(0).standard_normal(300_000),
    ],
    ids=repr,
)
def test_values_come_back_as_they_went(server_of, client_of, model, value):
    client = client_of(server_of(model))
    assert same(client.predict(value=value)["value"], value)


def test_initialize_train_predict_and_log_in_one_go(server_of, client_of, model, tmp_path: Path):
    client = client_of(server_of(model))
    assert client.initialize(layers=[64, 10]) == {"result": True, "model_info": {"layers": [64, 10]}}
    assert client.train(epochs=2, image=numpy.ones(3))["epochs"] == 2
    assert [record["message"] for record in client.log()] == ["完成"]
    assert client.predict(x=1) == {"x": 1}
    assert (tmp_path / "data" / "models" / "v" / "trained").read_text() == "yes"


def test_every_keyword_belongs_to_the_model(server_of, client_of, model):
    arguments = {"timeout": 1, "version": "x", "priority": 2, "retry": 3, "method": "m", "self": 4, "binary_data": b"b"}
    model.predict = staticmethod(lambda **kwargs: kwargs)
    assert client_of(server_of(model)).predict(**arguments) == arguments


class TestErrors:
    def test_the_same_class_comes_back_with_id_and_traceback(self, server_of, client_of, model, caplog):
        client = client_of(server_of(model))
        with pytest.raises(ModelError, match="ValueError: no good") as error:
            client.predict(do="raise", text="no good")
        assert error.value.error_id in caplog.text
        assert "in predict" in error.value.remote_traceback
        assert isinstance(error.value.__cause__, RemoteTraceback)
        assert "ValueError: no good" in str(error.value.__cause__)

    @pytest.mark.parametrize(
        ("policy", "host", "sent"),
        [("never", "127.0.0.1", False), ("auto", "127.0.0.1", True), ("auto", "[::]", False), ("always", "[::]", True)],
    )
    def test_tracebacks_leave_the_server_only_if_it_allows_that(self, server_of, client_of, model, policy, host, sent):
        client = client_of(server_of(model, send_tracebacks=policy, listen_host=host))
        with pytest.raises(ModelError) as error:
            client.predict(do="raise")
        assert bool(error.value.remote_traceback) is sent

    @pytest.mark.parametrize(
        "raised",
        [
            InvalidArgument("x must be positive"),
            Conflict("v", "two at once"),
            Overloaded("the accelerator is full"),
            VersionNotFound("w", 3),
            NotSupportedError(),
            Unavailable("the camera is off", may_have_run=True),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_errors_of_ours_pass_through_with_what_they_know(self, server_of, client_of, model, raised):
        def predict(self: AIModelBase) -> None:
            raise raised

        model.predict = predict
        client = client_of(server_of(model)).options(retry=0)
        with pytest.raises(type(raised)) as error:
            client.predict()
        assert type(error.value) is type(raised)
        assert str(error.value) == str(raised)
        known = {name: value for name, value in vars(raised).items() if name not in ("error_id", "remote_traceback")}
        assert known.items() <= vars(error.value).items()

    def test_a_model_that_exits_does_not_leave_its_caller_waiting(self, server_of, client_of, model):
        client = client_of(server_of(model))
        with pytest.raises(ModelError, match="SystemExit: 3"):
            client.predict(do="exit")
        assert client.predict(x=1) == {"x": 1}

    def test_a_result_that_cannot_travel_names_its_place(self, server_of, client_of, model):
        with pytest.raises(ModelError, match=r'predict\(\) returned what cannot travel: result\["deep"\]\[1\].*set'):
            client_of(server_of(model)).predict(do="return a set")

    def test_an_argument_that_cannot_travel_is_refused_before_it_is_sent(self, server_of, client_of, model):
        with pytest.raises(SerializationError, match=r'kwargs\["a"\]\[1\]: type set is not supported'):
            client_of(server_of(model)).predict(a=[1, {2}])
        assert model.entered == []

    def test_no_path_of_the_data_leaves_the_server(self, server_of, client_of, model, tmp_path: Path):
        model.predict = lambda self: (self.model_dir() / "nofile").read_text()
        with pytest.raises(ModelError, match=r"No such file or directory: '<data path>/") as error:
            client_of(server_of(model, send_tracebacks="never")).predict()
        assert str(tmp_path) not in str(error.value)
        model.load = lambda self: (self.model_dir() / "weights").read_text()
        with pytest.raises(LoadError, match="No such file") as error:
            client_of(server_of(model, send_tracebacks="never")).predict()
        assert str(tmp_path) not in str(error.value)

    def test_an_odd_error_of_the_users_is_answered_like_any_other(self, server_of, client_of, model):
        class Odd(InvalidArgument):
            status = "TEAPOT"

            def __init__(self) -> None:
                super().__init__("odd")
                self.code, self.name = 2**70, "\ud800"

        def predict(self: AIModelBase, odd: bool = False) -> str:
            if odd:
                raise Odd()
            return "fine"

        model.predict = predict
        client = client_of(server_of(model, rpc_max_workers=1))
        for _ in range(3):
            with pytest.raises(InvalidArgument, match="odd"):
                client.predict(odd=True)
        assert client.predict() == "fine"

    def test_what_the_model_itself_raises_is_not_sent_again(self, server_of, client_of, model):
        def predict(self: AIModelBase) -> None:
            self.entered.append("once")
            raise Unavailable("the camera is off")

        model.predict = predict
        with pytest.raises(Unavailable, match="the camera is off"):
            client_of(server_of(model)).predict()
        assert model.entered == ["once"]

    @pytest.mark.parametrize("length", [100_000, 5_000])
    def test_a_giant_message_is_cut_and_its_status_kept(self, server_of, client_of, model, length):
        with pytest.raises(ModelError) as error:
            client_of(server_of(model)).predict(do="raise", text="错" * length)
        assert len(str(error.value).encode()) <= 1024
        assert str(error.value).startswith("ValueError: 错")

    def test_control_characters_of_a_message_do_no_harm(self, server_of, client_of, model):
        with pytest.raises(ModelError) as error:
            client_of(server_of(model)).predict(do="raise", text="a\0b\r\x1b[31m")
        assert "\0" not in str(error.value)
        assert "\x1b" not in str(error.value)

    def test_a_bad_version_name_comes_back_as_such(self, server_of, client_of, model):
        with pytest.raises(BadVersionName, match="is no version name"):
            client_of(server_of(model), version="../../victim").predict()

    def test_a_request_over_the_limit_says_both_numbers(self, server_of, client_of, model):
        client = client_of(server_of(model, max_message_bytes="2MiB"))
        with pytest.raises(Overloaded, match=r"larger than max \(\d+ vs\. 2097152\).*AIPOD_MAX_MESSAGE_BYTES"):
            client.predict(x=b"x" * 3 * 2**20)
        assert client.predict(x=1) == {"x": 1}

    def test_a_result_over_the_limit_says_both_numbers(self, server_of, client_of, model):
        model.predict = lambda self: b"x" * 3 * 2**20
        with pytest.raises(Overloaded, match=r"the result takes 3145\d+ bytes, and 2097152 are allowed"):
            client_of(server_of(model, max_message_bytes="2MiB")).predict()

    def test_kwargs_and_results_outside_of_arrays_are_bounded(self, server_of, client_of, model):
        client = client_of(server_of(model, max_kwargs_bytes=1000, max_result_bytes=1000))
        with pytest.raises(SerializationError, match="send large data as numpy arrays or bytes"):
            client.predict(x=list(range(1000)))
        assert client.predict(x=numpy.arange(1000)).keys() == {"x"}
        model.predict = lambda self: list(range(1000))
        with pytest.raises(ModelError, match="more than the 1000 allowed"):
            client_of(server_of(model, max_result_bytes=1000)).predict()


class TestTime:
    def test_a_deadline_ends_the_wait_and_the_model_can_see_it(self, server_of, client_of, model):
        seen: list[object] = []

        def predict(self: AIModelBase) -> None:
            call = current_call()
            while True:
                try:
                    call.check()
                except (Cancelled, DeadlineExceeded) as error:
                    seen.append(error)
                    raise
                time.sleep(0.001)

        model.predict = predict
        client = client_of(server_of(model))
        with pytest.raises(DeadlineExceeded):
            client.options(timeout=0.2).predict()
        with pytest.raises(TimeoutError):
            client.options(timeout=0.2).predict()
        eventually(lambda: len(seen) == 2)

    def test_a_caller_without_a_deadline_gets_the_servers(self, server_of, client_of, model):
        client = client_of(server_of(model, default_timeout=0.2)).options(timeout=None)
        seen: list[object] = []

        def predict(self: AIModelBase) -> None:
            call = current_call()
            eventually(lambda: call.cancelled)
            seen.append(call)

        model.predict = predict
        with pytest.raises(DeadlineExceeded, match="AIPOD_DEFAULT_TIMEOUT"):
            client.predict()
        eventually(lambda: seen)

    def test_a_call_that_is_given_up_while_it_waits_never_runs(self, server_of, client_of, model, background):
        server = server_of(model, rpc_max_workers=1)
        client = client_of(server)
        running = background(client.predict, do="wait")
        eventually(lambda: model.entered == ["wait"])
        with pytest.raises(DeadlineExceeded):
            client.options(timeout=0.1).predict(do="too late")
        eventually(lambda: client.admin.statistics().lanes[0].queued == 0)
        model.gate.set()
        running.result(BOUND)
        assert client.predict(x=1) == {"x": 1}
        assert "too late" not in model.entered

    def test_a_full_pool_refuses_before_the_caller_is_gone(self, server_of, client_of, model, background):
        server = server_of(model, model_pool_size=1)
        busy = background(client_of(server, "busy").predict, do="wait")
        eventually(lambda: model.entered == ["wait"])
        with pytest.raises(Overloaded, match="no place in the pool came free for version 'new'"):
            client_of(server, "new").options(timeout=1.0).predict()
        model.gate.set()
        busy.result(BOUND)


class TestManyCallers:
    def test_a_hundred_threads_on_one_client_get_their_own_answers(self, server_of, client_of, model, background):
        client = client_of(server_of(model))

        def call(number: int) -> None:
            for n in range(20):
                assert client.predict(x=[number, n]) == {"x": [number, n]}

        for caller in [background(call, number) for number in range(100)]:
            caller.result(60)

    def test_five_hundred_coroutines_on_one_async_client_too(self, server_of, model):
        server = server_of(model)

        async def main() -> list[object]:
            async with AsyncAIClient(server.address, "v") as client:
                return await asyncio.gather(*(client.predict(x=number) for number in range(500)))

        assert asyncio.run(main()) == [{"x": number} for number in range(500)]

    def test_the_async_client_has_the_same_errors_and_verbs(self, server_of, model):
        server = server_of(model)

        async def main() -> None:
            async with AsyncAIClient(server.address, "v") as client:
                assert (await client.initialize(a=1))["result"] is True
                assert await client.train(b=2) == {"b": 2}
                assert len(await client.log()) == 1
                with pytest.raises(ModelError, match="ValueError: no") as error:
                    await client.predict(do="raise")
                assert "in predict" in error.value.remote_traceback
                with pytest.raises(DeadlineExceeded):
                    await client.options(timeout=0.1).predict(do="wait")
                model.gate.set()
                assert (await client.admin.versions())[0].version == "v"
                assert (await client.admin.info()).model == "Model"
                await client.admin.set_alias("live", "v")
                assert await client.admin.aliases() == {"live": "v"}
                await client.admin.drop_alias("live")
                assert await client.admin.rollback("v") == 1
                await client.admin.unload("v")
                await client.admin.load("v")
                await client.admin.pin("v")
                assert (await client.admin.statistics()).pool.size == 1
                await client.admin.delete("v")
            with pytest.raises(Unavailable, match="this client was closed"):
                await client.predict()

        asyncio.run(main())

    def test_an_async_call_that_is_cancelled_is_cancelled_on_the_server(self, server_of, model):
        server = server_of(model)

        async def main() -> None:
            async with AsyncAIClient(server.address, "v") as client:
                task = asyncio.create_task(client.predict(do="wait"))
                while not model.entered:
                    await asyncio.sleep(0.001)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

        asyncio.run(main())
        model.gate.set()


class TestClient:
    @pytest.mark.parametrize("address", ["", "host", "host:99999", "host:x", "::1:50051", ":1", None, 5])
    def test_an_address_that_is_none_is_refused_at_once(self, address):
        with pytest.raises(ValueError, match="address"):
            AIClient(address)
        with pytest.raises(ConfigError):
            AsyncAIClient(address)

    def test_it_touches_no_disk_and_connects_with_the_first_call(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        client = AIClient("localhost:1", version="v", datapath="appdata")
        assert repr(client) == "AIClient('localhost:1', version='v')"
        client.close()
        client.close()
        assert list(tmp_path.iterdir()) == []

    def test_no_server_is_unavailable_and_cannot_have_run(self):
        with (
            AIClient("127.0.0.1:1", version="v") as client,
            pytest.raises(Unavailable, match=r"there is no server at 127\.0\.0\.1:1") as error,
        ):
            client.options(retry=1).predict()
        assert error.value.may_have_run is False

    def test_a_closed_client_says_so(self, server_of, model):
        client = AIClient(server_of(model).address)
        variant = client.options(timeout=1.0)
        client.predict(x=1)
        client.close()
        for closed in (client, variant):
            with pytest.raises(Unavailable, match="this client was closed; make a new one"):
                closed.predict(x=1)

    def test_closing_it_under_its_calls_is_an_error_of_ours(self, server_of, model, background):
        client = AIClient(server_of(model).address)
        running = [background(client.predict, do="wait") for _ in range(4)]
        eventually(lambda: len(model.entered) == 4)
        client.close()
        for call in running:
            assert isinstance(call.exception(BOUND), Unavailable)
        model.gate.set()

    def test_closing_an_async_one_under_its_calls_too(self, server_of, model):
        server = server_of(model)

        async def main() -> list[object]:
            client = AsyncAIClient(server.address)
            calls = [asyncio.create_task(client.predict(do="wait")) for _ in range(4)]
            while len(model.entered) < 4:
                await asyncio.sleep(0.001)
            await client.close()
            return await asyncio.gather(*calls, return_exceptions=True)

        errors = asyncio.run(main())
        model.gate.set()
        assert [type(error) for error in errors] == [Unavailable] * 4

    def test_an_async_one_moves_on_when_its_loop_is_gone(self, server_of, model):
        client = AsyncAIClient(server_of(model).address)
        for number in range(3):
            assert asyncio.run(client.predict(x=number)) == {"x": number}

    @pytest.mark.parametrize("timeout", [0, -1, float("nan"), "5", True])
    def test_a_timeout_that_is_none_is_refused(self, timeout):
        with pytest.raises(InvalidArgument, match="give seconds above 0, or None for ever"):
            AIClient("localhost:1", timeout=timeout)
        with pytest.raises(InvalidArgument, match="give seconds above 0, or None for ever"):
            AIClient("localhost:1").options(timeout=timeout)

    @pytest.mark.parametrize("timeout", [None, float("inf"), 1e300, 10**9])
    def test_a_timeout_may_be_as_long_as_anybody_likes(self, server_of, client_of, model, timeout):
        assert client_of(server_of(model)).options(timeout=timeout).predict(x=1) == {"x": 1}

    @pytest.mark.parametrize("retry", [-1, "a", 1.5, None])
    def test_a_retry_that_is_none_is_refused(self, retry):
        with pytest.raises(InvalidArgument, match="give the number of further tries"):
            AIClient("localhost:1").options(retry=retry)

    @pytest.mark.parametrize("version", [3, b"v", ["v"]])
    def test_a_version_that_is_no_text_is_refused(self, version):
        with pytest.raises(BadVersionName, match="a name is text"):
            AIClient("localhost:1", version=version)

    def test_options_change_a_copy_and_share_the_connection(self, server_of, client_of, model):
        client = client_of(server_of(model))
        quick = client.options(timeout=0.1, retry=False)
        with pytest.raises(DeadlineExceeded):
            quick.predict(do="wait")
        model.gate.set()
        assert client.predict(do="wait") == {}
        assert quick.version == client.version

    def test_it_works_in_a_child_after_a_fork_and_in_the_parent_too(self, process_of, tmp_path):
        # In a process of its own: a test runner full of threads is no place to fork.
        server = process_of(
            """
            from aipod.model import AIModelBase, current_call
            from aipod.rpc.server import serve
            class Echo(AIModelBase):
                def predict(self, x): return x
            serve(Echo)
            """
        )
        script = tmp_path / "forks.py"
        script.write_text(
            "import os, sys\n"
            "from aipod.rpc.client import AIClient\n"
            "client = AIClient(sys.argv[1])\n"
            "assert client.predict(x=1) == 1\n"
            "child = os.fork()\n"
            "assert client.predict(x=2) == 2\n"
            "if child == 0:\n"
            "    os._exit(0)\n"
            "assert os.waitpid(child, 0)[1] == 0\n"
            "assert client.predict(x=3) == 3\n"
        )
        environment = {**os.environ, "PYTHONPATH": os.getcwd()}
        done = subprocess.run(
            [sys.executable, str(script), server.address],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr


class TestAdmin:
    def test_every_verb_does_what_it_says(self, server_of, client_of, model):
        server = server_of(model, model_pool_size=2)
        client = client_of(server)
        admin = client.admin
        client.initialize(a=1)
        client.train()
        client.predict()
        info = admin.info()
        assert (info.wire_version, info.model) == (1, "Model")
        assert {"unary", "segments", "admin"} <= set(info.abilities)
        (version,) = admin.versions()
        assert (version.version, version.state, version.revision, version.loaded_revision) == ("v", "ready", 2, 2)
        assert [(one.number, one.origin, one.live) for one in version.revisions] == [
            (1, "initialize", False),
            (2, "train", True),
        ]
        assert version.size_bytes > 0
        assert abs(version.last_use - time.time()) < 60
        admin.set_alias("live", "v")
        assert admin.aliases() == {"live": "v"}
        assert admin.versions()[0].aliases == ("live",)
        assert client_of(server, "live").predict(x=1) == {"x": 1}
        assert admin.rollback("v") == 1
        assert admin.versions()[0].loaded_revision == 1
        admin.pin("v")
        assert admin.versions()[0].pinned
        admin.unload("v")
        assert admin.versions()[0].state == "absent"
        admin.load("v")
        statistics = admin.statistics()
        assert statistics.pool.size == 1
        assert statistics.pool.capacity == 2
        assert statistics.workers == 4
        assert statistics.lanes[0].version == "v"
        admin.drop_alias("live")
        admin.delete("v")
        assert admin.versions() == ()

    @pytest.mark.parametrize(
        ("verb", "arguments", "kind"),
        [
            ("rollback", ("nope",), VersionNotFound),
            ("delete", ("nope",), VersionNotFound),
            ("load", ("../x",), BadVersionName),
            ("pin", ("a/b",), BadVersionName),
            ("set_alias", ("../x", "v"), BadVersionName),
            ("set_alias", ("a", "nope"), VersionNotFound),
            ("drop_alias", ("nope",), InvalidArgument),
            ("unload", ("nope",), VersionNotFound),
            ("delete", ("",), InvalidArgument),
            ("rollback", ("",), InvalidArgument),
            ("rollback", ("v", 0), InvalidArgument),
            ("rollback", ("v", -1), InvalidArgument),
            ("rollback", ("v", "x"), InvalidArgument),
        ],
    )
    def test_what_cannot_be_done_is_refused_with_a_reason(self, server_of, client_of, model, verb, arguments, kind):
        with pytest.raises(kind):
            getattr(client_of(server_of(model)).admin, verb)(*arguments)


def test_an_order_reaches_the_version_that_it_names(server_of, client_of, model, background):
    """Each request is read while its handler runs; later it is gone."""
    server = server_of(model, model_pool_size=0, rpc_max_workers=8)
    client = client_of(server)
    names = [f"v{number}" for number in range(60)]
    for name in names:
        server.engine.initialize(name)
    for call in [background(client.admin.pin, name) for name in names]:
        call.result(BOUND)
    assert {one.version for one in client.admin.versions() if one.pinned} == set(names)


def test_importing_the_client_imports_no_server_and_no_engine():
    unwanted = "[name for name in sys.modules if name.startswith(('aipod.engine', 'aipod.rpc.server'))]"
    code = f"import sys, aipod.rpc.client; print({unwanted})"
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_models_thread_may_call_the_server_that_it_lives_in(server_of, client_of, model):
    """With one worker it would wait for itself for ever; the deadline ends that, and the server lives on."""
    server = server_of(model, rpc_max_workers=1)
    client = client_of(server)
    model.predict = lambda self, again=False: client.options(timeout=0.3, retry=0).predict() if again else "done"
    with pytest.raises((DeadlineExceeded, Cancelled, Overloaded)):
        client.options(timeout=1.0).predict(again=True)
    assert client.predict() == "done"
    assert threading.active_count() < 200

"""What bad input gets, and good input, is the same by whichever way a call comes: word for word."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy
import pytest
from raw_trunk import RawTrunk, call
from test_hostile import PREDICT, REFUSED
from waiting import BOUND, eventually

from aipod.codec import decode_reply, encode_call
from aipod.errors import (
    AipodError,
    BadVersionName,
    Conflict,
    DeadlineExceeded,
    InvalidArgument,
    LoadError,
    ModelError,
    NotInitialized,
    NotSupportedError,
    Overloaded,
    SerializationError,
    Unavailable,
    VersionNotFound,
)
from aipod.model import AIModelBase
from aipod.rpc.ai_pb2 import Input, Output
from aipod.rpc.calls import channel_options
from aipod.rpc.client import AIClient, AsyncAIClient
from aipod.rpc.methods import LEGACY_METHODS
from aipod.rpc.server import Server
from aipod.rpc.status import error_of_rpc, trailing_of
from aipod.shm import lender

MIB = 2**20


class Sync:
    """A client of threads."""

    trunk = False

    def __init__(self, server: Server, version: str, **options: Any) -> None:
        self._client = AIClient(server.address, version, trunk=self.trunk, **options)
        if self.trunk:
            assert self._client.connect(BOUND)

    def __call__(self, method: str = "predict", /, timeout: float | None = 60.0, **kwargs: Any) -> Any:
        return getattr(self._client.options(timeout=timeout, retry=0), method)(**kwargs)

    def close(self) -> None:
        self._client.close()


class SyncTrunk(Sync):
    trunk = True


class Shared(SyncTrunk):
    """A client that lends every array, and every reply's, however small."""

    def __init__(self, server: Server, version: str, **options: Any) -> None:
        self._from, lender.SHARED_FROM_BYTES = lender.SHARED_FROM_BYTES, 0
        super().__init__(server, version, **options)
        assert self._client.empty(1).base is not None, "there is no shared memory"

    def close(self) -> None:
        lender.SHARED_FROM_BYTES = self._from
        super().close()


class Async:
    """A client of coroutines, on a loop of its own."""

    trunk = False

    def __init__(self, server: Server, version: str, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loop of the test")
        self._thread.start()
        self._client = self._run(self._connect(server.address, version, options))

    def __call__(self, method: str = "predict", /, timeout: float | None = 60.0, **kwargs: Any) -> Any:
        return self._run(getattr(self._client.options(timeout=timeout, retry=0), method)(**kwargs))

    def close(self) -> None:
        """Close the client; the second time, its loop too."""
        if not self._loop.is_closed():
            self._run(self._client.close())

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _connect(self, address: str, version: str, options: dict[str, Any]) -> AsyncAIClient:
        client = AsyncAIClient(address, version, trunk=self.trunk, **options)
        if self.trunk:
            assert await client.connect(BOUND)
        return client

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(3 * BOUND)


class AsyncTrunk(Async):
    trunk = True


class Legacy:
    """The wire of 1.0, with our statuses read as our client reads them."""

    def __init__(self, server: Server, version: str, max_message_bytes: int = 100 * MIB) -> None:
        self._address = server.address
        self._version = version
        self._channel = grpc.insecure_channel(
            server.address, options=channel_options(max_message_bytes=max_message_bytes)
        )

    def __call__(self, method: str = "predict", /, timeout: float | None = 60.0, **kwargs: Any) -> Any:
        binary = kwargs.pop("binary_data", b"")
        request = Input(version=self._version, kwargs_json=json.dumps(kwargs).encode(), binary_data=binary)
        try:
            reply = self._channel.unary_unary(LEGACY_METHODS[method])(request.SerializeToString(), timeout=timeout)
        except grpc.RpcError as error:
            raise error_of_rpc(
                error.code(), error.details(), trailing_of(error.trailing_metadata()), self._address
            ) from None
        return json.loads(Output.FromString(reply).data_json)

    def close(self) -> None:
        self._channel.close()


# One line for each way in.
WAYS: dict[str, Callable[..., Any]] = {
    "sync unary": Sync,
    "sync trunk": SyncTrunk,
    "async unary": Async,
    "async trunk": AsyncTrunk,
    "shared memory": Shared,
    "ai.AI": Legacy,
}


class World:
    """A server, and callers of it that all go the same way."""

    def __init__(self, way: Callable[..., Any], server: Server, model: Any, background: Any, options: Any) -> None:
        self.server = server
        self.model = model
        self.background: Callable[..., Future[Any]] = background
        self._way = way
        self._options = options
        self._callers: list[Any] = []
        self._running: list[Future[Any]] = []

    def caller(self, version: str = "v") -> Any:
        self._callers.append(self._way(self.server, version, **self._options))
        return self._callers[-1]

    def busy(self, caller: Any, **kwargs: Any) -> Future[Any]:
        """Have a model run until the gate opens."""
        before = len(self.model.entered)
        running = self.background(caller, do="wait", **kwargs)
        self._running.append(running)
        eventually(lambda: len(self.model.entered) > before)
        return running

    def wait_until_queued(self, calls: int) -> None:
        with AIClient(self.server.address, trunk=False) as client:
            eventually(lambda: client.admin.statistics().lanes[0].queued == calls)

    def name(self, alias: str) -> None:
        """Have a version ``v``, and an alias of it."""
        with AIClient(self.server.address, "v", trunk=False) as client:
            client.initialize()
            client.admin.set_alias(alias, "v")

    def close(self) -> None:
        self.model.gate.set()
        wait(self._running, BOUND)
        for caller in self._callers:
            caller.close()
            if isinstance(caller, Async):
                caller.end()


@dataclass(frozen=True)
class Case:
    """What a caller does and what comes of it.

    Attributes:
        act: Does it.
        error: The class of what is raised; None if a value comes.
        told: The value, or the whole sentence as a pattern.
        known: Attributes of the error.
        model: Attributes of the model's class.
        server: Settings.
        client: Options.
        on_legacy: Whether it can be said on the wire of 1.0.
    """

    act: Callable[[World], object]
    error: type[AipodError] | None
    told: Any
    known: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    server: dict[str, Any] = field(default_factory=dict)
    client: dict[str, Any] = field(default_factory=dict)
    on_legacy: bool = True


def asks(*, version: str = "v", method: str = "predict", **kwargs: Any) -> Callable[[World], object]:
    return lambda world: world.caller(version)(method, **kwargs)


def raises(error: BaseException) -> dict[str, Any]:
    def predict(self: AIModelBase) -> None:
        raise error

    return {"predict": predict}


def gives(value: object) -> dict[str, Any]:
    return {"predict": lambda self: value}


class Spiteful(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


class OfAUser(InvalidArgument):
    """Derived from one of ours, with what does not travel."""

    def __init__(self) -> None:
        super().__init__("half of it is missing")
        self.half = object()


def asks_while_one_waits(world: World) -> object:
    caller = world.caller()
    world.busy(caller)
    queued = world.background(caller, do="echo")
    try:
        world.wait_until_queued(1)
        return caller(x=1)
    finally:
        world.model.gate.set()
        queued.result(BOUND)


def asks_while_much_is_held(world: World) -> object:
    caller = world.caller()
    world.busy(caller, binary_data=bytes(700_000))
    return caller(binary_data=bytes(700_000))


def is_late_in_the_queue(world: World) -> object:
    caller = world.caller()
    world.busy(caller)
    try:
        return caller(timeout=0.2, do="too late")
    finally:
        assert "too late" not in world.model.entered


def is_late_while_it_runs(world: World) -> object:
    return world.caller()(timeout=0.2, do="wait")


def asks_without_a_limit(world: World) -> object:
    return world.caller()(timeout=None, do="wait")


def asks_a_full_pool(world: World) -> object:
    world.busy(world.caller("busy"))
    return world.caller("new")(timeout=2.0, x=1)


def asks_while_it_drains(world: World) -> object:
    caller = world.caller()
    world.busy(caller)
    stopping = world.background(world.server.stop)
    eventually(lambda: world.server._front is None)
    try:
        eventually(lambda: _refuses(caller))
        return caller(x=1)
    finally:
        world.model.gate.set()
        stopping.result(BOUND)


def _refuses(caller: Any) -> bool:
    try:
        caller(x=1)
    except Unavailable:
        return True
    return False


def asks_after_a_close(world: World) -> object:
    caller = world.caller()
    caller(x=1)
    caller.close()
    return caller(x=1)


def is_closed_under(world: World) -> object:
    caller = world.caller()
    running = world.busy(caller)
    caller.close()
    return running.result(BOUND)


def asks_an_alias(world: World) -> object:
    world.name("live")
    return world.caller("live")(x=1)


def trains_an_alias(world: World) -> object:
    world.name("live")
    return world.caller("live")("train", x=1)


def no_load(self: AIModelBase) -> None:
    raise OSError("no weights")


def no_revision(self: AIModelBase) -> None:
    raise NotInitialized(self.version)


NO_NAME = "is no version name: "
TOO_LONG = "the deadline passed before the call was done; allow it more time"

CASES: dict[str, Case] = {
    # What goes well.
    "a value": Case(
        asks(x=[1, 2.5, {"deep": True}], y="模型", z=None), None, dict(x=[1, 2.5, {"deep": True}], y="模型", z=None)
    ),
    "no arguments": Case(asks(), None, {}),
    "an array": Case(
        lambda world: world.caller()(x=numpy.arange(5)).popitem()[1].tolist(), None, [0, 1, 2, 3, 4], on_legacy=False
    ),
    "names that are ours elsewhere": Case(
        asks(priority=2, retry=3, number=4),
        None,
        dict(priority=2, retry=3, number=4),
    ),
    "an alias": Case(asks_an_alias, None, {"x": 1}),
    "a version without a name": Case(asks(version="", x=1), None, {"x": 1}),
    "a call that may take for ever": Case(asks(timeout=None, x=1), None, {"x": 1}),
    "a train": Case(asks(method="train", x=1), None, {"x": 1}),
    "an initialize": Case(lambda world: world.caller()("initialize", x=1)["result"], None, True),
    "no log yet": Case(asks(method="log"), None, []),
    # The caller's fault, found by the client.
    "a set": Case(
        asks(a=[1, {2}]),
        SerializationError,
        r'kwargs\["a"\]\[1\]: type set is not supported.*',
        {"place": 'kwargs["a"][1]'},
        on_legacy=False,
    ),
    "an int too large": Case(asks(a=2**64), SerializationError, r'kwargs\["a"\]: .*', on_legacy=False),
    # The caller's fault, found by the server.
    "an argument too many": Case(
        asks(y=1),
        InvalidArgument,
        r".*\(\) got an unexpected keyword argument 'y'; pass what the method's signature names",
        model={"predict": lambda self, x=1: x},
    ),
    "an argument too few": Case(
        asks(),
        InvalidArgument,
        r".* missing 1 required positional argument: 'x'; pass what the method's signature names",
        model={"predict": lambda self, x: x},
    ),
    "too much besides arrays": Case(
        asks(x="a" * 5000),
        SerializationError,
        r"kwargs: 5\d{3} bytes besides arrays and large bytes are more than the 4096 allowed; send large data as numpy"
        r" arrays or bytes",
        {"place": "kwargs"},
        server={"max_kwargs_bytes": 4096},
        on_legacy=False,
    ),
    "a path for a name": Case(asks(version="../v"), BadVersionName, rf"'\.\./v' {NO_NAME}.*", {"name": "../v"}),
    "an empty byte in a name": Case(asks(version="a\0b"), BadVersionName, rf"'a\\x00b' {NO_NAME}.*", {"name": "a\0b"}),
    "a name too long": Case(asks(version="v" * 300), BadVersionName, rf"'v{{64}}…' {NO_NAME}.*", {"name": "v" * 200}),
    "a name to train with": Case(asks(version="-rf", method="train"), BadVersionName, rf"'-rf' {NO_NAME}.*"),
    "a name that is nowhere": Case(
        asks(version="w"),
        VersionNotFound,
        "there is no version 'w' here; ask for one that versions\\(\\) lists, or initialize it",
        {"version": "w", "revision": None, "status": "NOT_FOUND"},
        server={"strict_versions": True},
    ),
    "an alias to train": Case(
        trains_an_alias, InvalidArgument, "'live' is an alias of version 'v'; write that one by its own name"
    ),
    "a log that is not there": Case(
        asks(method="log", name="other"),
        NotSupportedError,
        "Model has no log 'other'; the training log is called 'trainning'",
    ),
    "a method that is not there": Case(
        asks(method="train"), NotSupportedError, ".+", model={"train": AIModelBase.train}
    ),
    # The model's.
    "a ValueError": Case(asks(do="raise", text="no good"), ModelError, "ValueError: no good", {"type": "ValueError"}),
    "what cannot be shown": Case(
        asks(),
        ModelError,
        r".*Spiteful: \(its message cannot be shown: str\(\) of it raised\)",
        model=raises(Spiteful()),
    ),
    "surrogates": Case(
        asks(), ModelError, "ValueError: a\N{REPLACEMENT CHARACTER}b", model=raises(ValueError("a\ud800b"))
    ),
    "a long text": Case(asks(), ModelError, "ValueError: x+ \\[…\\] x+", model=raises(ValueError("x" * 9000))),
    "an exit": Case(asks(do="exit"), ModelError, "SystemExit: 3"),
    "a KeyboardInterrupt": Case(asks(), ModelError, "KeyboardInterrupt", model=raises(KeyboardInterrupt())),
    "our InvalidArgument": Case(
        asks(), InvalidArgument, "x must be positive", model=raises(InvalidArgument("x must be positive"))
    ),
    "our Conflict": Case(
        asks(), Conflict, "version 'v': two at once; .*", {"version": "v"}, model=raises(Conflict("v", "two at once"))
    ),
    "our Overloaded": Case(
        asks(), Overloaded, "the accelerator is full", model=raises(Overloaded("the accelerator is full"))
    ),
    "our NotSupportedError": Case(
        asks(), NotSupportedError, "this model does not support that method", model=raises(NotSupportedError())
    ),
    "our Unavailable": Case(
        asks(),
        Unavailable,
        "the camera is off",
        {"may_have_run": True, "by_model": True},
        model=raises(Unavailable("the camera is off", may_have_run=True)),
    ),
    "our DeadlineExceeded": Case(
        asks(), DeadlineExceeded, "the camera is slow", model=raises(DeadlineExceeded("the camera is slow"))
    ),
    "a class of a user's": Case(asks(), InvalidArgument, "half of it is missing", model=raises(OfAUser())),
    "a set returned": Case(
        asks(do="return a set"),
        ModelError,
        r'predict\(\) returned what cannot travel: result\["deep"\]\[1\]: type set is not supported.*',
        on_legacy=False,
    ),
    "a result too large besides arrays": Case(
        asks(),
        ModelError,
        r"predict\(\) returned what cannot travel: result: 5\d{3} bytes besides .* more than the 4096 allowed; .*",
        model=gives("a" * 5000),
        server={"max_result_bytes": 4096},
        on_legacy=False,
    ),
    "a result too large for the server": Case(
        asks(),
        Overloaded,
        rf"the result takes 2\d{{6}} bytes, and {MIB} are allowed; return less",
        model=gives("a" * 2 * MIB),
        server={"max_message_bytes": MIB, "max_kwargs_bytes": 1000},
    ),
    "a large result too large for the client": Case(
        asks(),
        Overloaded,
        rf"Received message larger than max \(2\d{{6}} vs\. {MIB}\); send or ask for less at once, or raise"
        " AIPOD_MAX_MESSAGE_BYTES of the server and max_message_bytes of the client",
        model=gives("a" * 2 * MIB),
        client={"max_message_bytes": MIB},
    ),
    "a small result too large for the client": Case(
        asks(),
        Overloaded,
        r"Received message larger than max \(3\d{3} vs\. 2048\); send or ask for less at once, or raise"
        " AIPOD_MAX_MESSAGE_BYTES of the server and max_message_bytes of the client",
        model=gives("a" * 3000),
        client={"max_message_bytes": 2048},
    ),
    "an instance that does not load": Case(
        asks(), LoadError, "version 'v' does not load: .*no weights.*", {"version": "v"}, model={"load": no_load}
    ),
    "a version that is not initialized": Case(
        asks(),
        NotInitialized,
        r"version 'v' has not been initialized; call initialize\(\) or train\(\) on it first",
        {"version": "v"},
        model={"load": no_revision},
    ),
    # Nobody's, or the operator's.
    "a request too large": Case(
        asks(binary_data=bytes(2 * MIB)),
        Overloaded,
        rf"Received message larger than max \(2\d{{6}} vs\. {MIB}\); send or ask for less at once, or raise"
        " AIPOD_MAX_MESSAGE_BYTES of the server and max_message_bytes of the client",
        server={"max_message_bytes": MIB, "max_kwargs_bytes": 1000},
    ),
    "a full queue": Case(
        asks_while_one_waits,
        Overloaded,
        r"1 calls wait for version 'v' already \(AIPOD_MAX_QUEUE\); try again later",
        server={"rpc_max_workers": 1, "max_queue": 1},
    ),
    "too many bytes": Case(
        asks_while_much_is_held,
        Overloaded,
        rf"the calls of version 'v' hold 700\d{{3}} bytes, this one brings 700\d{{3}}, and {MIB} are allowed"
        r" \(AIPOD_MAX_QUEUE_BYTES\); try again later",
        server={"max_queue_bytes": MIB},
    ),
    "a full pool": Case(
        asks_a_full_pool,
        Overloaded,
        "no place in the pool came free for version 'new' in time: .*",
        server={"model_pool_size": 1},
    ),
    "a deadline in the queue": Case(is_late_in_the_queue, DeadlineExceeded, TOO_LONG, server={"rpc_max_workers": 1}),
    "a deadline while it runs": Case(is_late_while_it_runs, DeadlineExceeded, TOO_LONG),
    "the server's deadline": Case(
        asks_without_a_limit,
        DeadlineExceeded,
        r"the time that the server allows passed \(AIPOD_DEFAULT_TIMEOUT\); set a timeout of your own",
        server={"default_timeout": 0.2},
    ),
    "a server that drains": Case(
        asks_while_it_drains,
        Unavailable,
        "the server is draining and takes no more calls; try another one, or again later",
        {"may_have_run": False},
    ),
    "a client that was closed": Case(
        asks_after_a_close,
        Unavailable,
        "this client was closed; make a new one",
        {"may_have_run": False},
        on_legacy=False,
    ),
    "a client that is closed under its call": Case(
        is_closed_under,
        Unavailable,
        "this client was closed under the call; the call can have run",
        {"may_have_run": True},
        on_legacy=False,
    ),
}


@pytest.fixture
def world_of(server_of: Any, model: Any, background: Any) -> Iterator[Callable[[Case, str], World]]:
    worlds: list[World] = []

    def make(case: Case, way: str) -> World:
        for name, value in case.model.items():
            setattr(model, name, value)
        worlds.append(World(WAYS[way], server_of(model, **case.server), model, background, case.client))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


EACH = [
    pytest.param(case, way, id=f"{name}-{way}")
    for name, case in CASES.items()
    for way in WAYS
    if case.on_legacy or way != "ai.AI"
]


@pytest.mark.parametrize(("case", "way"), EACH)
def test_what_comes_of_a_call_does_not_depend_on_its_way(world_of, case, way):
    world = world_of(case, way)
    if case.error is None:
        assert case.act(world) == case.told
        return
    with pytest.raises(AipodError) as error:
        case.act(world)
    assert type(error.value) is case.error
    assert re.fullmatch(case.told, str(error.value), re.DOTALL), str(error.value)
    assert case.known.items() <= {name: getattr(error.value, name) for name in case.known}.items()


@pytest.mark.parametrize("way", WAYS)
def test_an_error_has_its_id_and_its_traceback_by_every_way(world_of, caplog, way):
    caller = world_of(CASES["a ValueError"], way).caller()
    with pytest.raises(ModelError) as error:
        caller(do="raise", text="no good")
    assert re.fullmatch("[0-9a-f]{8}", error.value.error_id)
    assert f"[{error.value.error_id}]" in caplog.text
    assert "in predict" in error.value.remote_traceback
    assert "ValueError: no good" in error.value.remote_traceback


@pytest.mark.parametrize("name", [name for name, row in REFUSED.items() if row[0] == PREDICT])
def test_what_cannot_be_read_is_refused_on_a_trunk_as_it_is_alone(server_of, model, name):
    _, message, status, sentence = REFUSED[name]
    server = server_of(model)
    with RawTrunk(server.address) as trunk, grpc.insecure_channel(server.address) as channel:
        trunk.send(call(1, message))
        trunk.send(call(2, encode_call("v", {"x": 1})))
        outcome = trunk.answer(1)
        with pytest.raises(grpc.RpcError) as alone:
            channel.unary_unary(PREDICT)(message, timeout=BOUND)
        assert outcome == (alone.value.code().name, alone.value.details())
        assert (outcome.status, sentence in outcome.content) == (status, True)
        assert decode_reply(trunk.answer(2).content) == {"x": 1}

"""What a stranger may send: a status of ours, a sentence that helps, and a server that serves on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import msgpack
import pytest
from http2 import Intruder
from mutations import VERSION, Mutations
from volley import Volley
from waiting import BOUND

from aipod.codec import decode_reply, encode_call
from aipod.codec.wire import join
from aipod.errors import (
    AipodError,
    InvalidArgument,
    VersionNotFound,
)
from aipod.rpc.ai_pb2 import Input
from aipod.rpc.methods import ADMIN, LEGACY_METHODS, MODEL_METHODS
from aipod.rpc.v1.admin_pb2 import SetAliasRequest, VersionRequest

PREDICT, INITIALIZE, TRAIN = MODEL_METHODS["predict"], MODEL_METHODS["initialize"], MODEL_METHODS["train"]
MIB = 2**20


class Answer(NamedTuple):
    status: str
    sentence: str
    reply: bytes | None = None


Ask = Callable[..., Answer]


@pytest.fixture
def ask_of(tmp_path: Path) -> Iterator[Callable[[Any], Ask]]:
    """Sends bytes to a method, and holds every refusal against what all of them promise."""
    channels: list[grpc.Channel] = []

    def connect(server: Any) -> Ask:
        channel = grpc.insecure_channel(server.address)
        channels.append(channel)

        def ask(method: str, message: bytes, timeout: float = BOUND, **options: Any) -> Answer:
            try:
                reply = channel.unary_unary(method)(message, timeout=timeout, **options)
            except grpc.RpcError as error:
                answer = Answer(error.code().name, error.details())
                assert len(answer.sentence.encode()) <= 1024
                assert str(tmp_path) not in answer.sentence
                return answer
            return Answer("OK", "", reply)

        return ask

    yield connect
    for channel in channels:
        channel.close()


def body(data: bytes, *segments: bytes) -> bytes:
    return join("v", data, [memoryview(segment) for segment in segments])


def extension(code: int, data: object, *segments: bytes) -> bytes:
    return body(msgpack.packb({"a": msgpack.ExtType(code, msgpack.packb(data))}), *segments)


def named(name: bytes) -> bytes:
    """A call for a version whose name the client's own codec might not write."""
    size = len(name)
    length = bytes((size,)) if size < 128 else bytes((size & 0x7F | 0x80, size >> 7))
    return b"\x0a" + length + name


BAD_NAMES = [
    "../../victim",
    "/etc/victim",
    ".",
    "..",
    "a\0b",
    "a/b",
    "a\\b",
    "-rf",
    ".tmp-x",
    "a\nb",
    "a ",
    "\u202eabc",
    "e\u0301",
    "v" * 300,
]

IS_NO_NAME = "is no version name: "

# Method, message, the status and the sentence that are wanted.
REFUSED: dict[str, tuple[str, bytes, str, str]] = {
    "no message at all": (PREDICT, b"\xff" * 20, "INVALID_ARGUMENT", "send one as aipod/v1/model.proto describes it"),
    "a message cut off": (PREDICT, encode_call("v", {"x": 1})[:-1], "INVALID_ARGUMENT", "it ends inside a field"),
    "a field of 2 GB": (PREDICT, b"\x12\xff\xff\xff\xff\x07", "INVALID_ARGUMENT", "it ends inside a field"),
    "a name that is not UTF-8": (PREDICT, named(b"\xff"), "INVALID_ARGUMENT", "version: the name is not UTF-8"),
    "cut-off msgpack": (PREDICT, body(b"\x83\xa1x"), "INVALID_ARGUMENT", "kwargs: "),
    "trailing msgpack": (PREDICT, body(b"\x80\x80"), "INVALID_ARGUMENT", "kwargs: "),
    "a byte that is never used": (PREDICT, body(b"\xc1"), "INVALID_ARGUMENT", "kwargs: "),
    "a list for kwargs": (PREDICT, body(b"\x91\x01"), "INVALID_ARGUMENT", "a list is no map of names to values"),
    "an int for kwargs": (PREDICT, body(b"\x05"), "INVALID_ARGUMENT", "a int is no map of names to values"),
    "an int for a name": (PREDICT, body(b"\x81\x01\x01"), "INVALID_ARGUMENT", "kwargs"),
    "a map of 4e9": (PREDICT, body(b"\xdf\xff\xff\xff\xff"), "INVALID_ARGUMENT", "kwargs: "),
    "bytes of 4e9": (PREDICT, body(b"\x81\xa1x\xc6\xff\xff\xff\xff"), "INVALID_ARGUMENT", "kwargs: "),
    "5,000 levels": (PREDICT, body(b"\x81\xa1x" + b"\x91" * 5000 + b"\x90"), "INVALID_ARGUMENT", "kwargs"),
    "an extension of a stranger": (PREDICT, body(b"\x81\xa1x\xd4\x63\0"), "INVALID_ARGUMENT", "extension type 99"),
    "an array of objects": (PREDICT, extension(2, [0, "|O", "C", [1]], b"x" * 8), "INVALID_ARGUMENT", r'kwargs["a"]'),
    "an array of no segment": (PREDICT, extension(2, [7, "|u1", "C", [1]]), "INVALID_ARGUMENT", r'kwargs["a"]'),
    "an array too short": (PREDICT, extension(2, [0, "<f8", "C", [9]], b"x" * 8), "INVALID_ARGUMENT", r'kwargs["a"]'),
    "an array too deep": (PREDICT, extension(2, [0, "|u1", "C", [1] * 65], b"x"), "INVALID_ARGUMENT", r'kwargs["a"]'),
    "70,000 segments": (PREDICT, body(b"\x80") + b"\x1a\0" * 70_000, "INVALID_ARGUMENT", "stack arrays into fewer"),
    "a method that is none": ("/aipod.v1.Model/Explode", b"", "UNIMPLEMENTED", "Method not found"),
    "a service that is none": ("/grpc.health.v2.Health/Check", b"", "UNIMPLEMENTED", "Method not found"),
    "1.0: no message": (LEGACY_METHODS["predict"], b"\xff", "INVALID_ARGUMENT", "no ai.Input message"),
    "1.0: a bad name": (
        LEGACY_METHODS["train"],
        Input(version="../v").SerializeToString(),
        "INVALID_ARGUMENT",
        IS_NO_NAME,
    ),
    "1.0: a number of 5,000 digits": (
        LEGACY_METHODS["predict"],
        Input(kwargs_json=b'{"x": ' + b"9" * 5000 + b"}").SerializeToString(),
        "INVALID_ARGUMENT",
        "kwargs_json: it is no JSON",
    ),
    "an order that is no message": (ADMIN + "Load", b"\xff", "INVALID_ARGUMENT", "is no "),
    "an order for a bad name": (
        ADMIN + "DeleteVersion",
        VersionRequest(version="../v").SerializeToString(),
        "INVALID_ARGUMENT",
        IS_NO_NAME,
    ),
    "a log that is not there": (
        MODEL_METHODS["log"],
        encode_call("v", {"name": "../../etc/passwd"}),
        "UNIMPLEMENTED",
        "the training log is called 'trainning'",
    ),
}


@pytest.mark.parametrize(("method", "message", "status", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_refused_and_the_next_call_is_answered(
    server_of, ask_of, model, method, message, status, sentence
):
    ask = ask_of(server_of(model))
    answer = ask(method, message)
    assert (answer.status, sentence in answer.sentence) == (status, True), answer
    assert model.entered == []
    assert decode_reply(ask(PREDICT, encode_call("v", {"x": 1})).reply) == {"x": 1}


@pytest.mark.parametrize("method", [*MODEL_METHODS.values(), *LEGACY_METHODS.values(), ADMIN + "DeleteVersion"])
def test_no_name_leads_out_of_the_data_path(server_of, ask_of, model, tmp_path, method):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_text("still here")
    ask = ask_of(server_of(model))
    for name in (*BAD_NAMES, "../../../victim"):
        text = name.encode()
        # Field 1 in ours, field 2 in 1.0's.
        message = Input(version=name).SerializeToString() if "/ai.AI/" in method else named(text)
        answer = ask(method, message)
        assert answer.status == "INVALID_ARGUMENT", (name, answer)
        assert IS_NO_NAME in answer.sentence
    assert (victim / "precious").read_text() == "still here"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "victim"]
    assert not any((tmp_path / "data" / "models").iterdir())
    assert not any((tmp_path / "data" / "revisions").iterdir())


def test_thousands_of_damaged_requests_end_with_a_status_of_ours(server_of, client_of, model):
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    # Bytes of 1.0 have no way back in JSON.
    model.predict = lambda self, /, **kwargs: {name: kwargs[name] for name in kwargs if name != "binary_data"}
    server = server_of(model, strict_versions=True)
    client, mutations = client_of(server, VERSION), Mutations(random.Random(seed))
    client.initialize()
    with grpc.insecure_channel(server.address) as channel:
        volley = Volley(channel)
        for _ in range(3000):
            volley.send(*mutations.request())
        volley.wait()
    assert not volley.faults, "\n".join(volley.faults)
    assert volley.statuses["OK"] > 100
    assert volley.statuses["INVALID_ARGUMENT"] > 500
    assert client.predict(x=1) == {"x": 1}


SERVE = """
    from aipod.model import AIModelBase
    from aipod.rpc.server import serve

    class Sizes(AIModelBase):
        def predict(self, **kwargs):
            return len(kwargs)

    serve(Sizes)
"""


def peak_bytes(process: Any) -> int:
    """The most memory that a process had since :func:`forget_peak`."""
    lines = Path(f"/proc/{process.popen.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def forget_peak(process: Any) -> None:
    Path(f"/proc/{process.popen.pid}/clear_refs").write_text("5")


# Each with the most memory that it may cost.
BOMBS: dict[str, tuple[bytes, dict[str, Any], str, int]] = {
    "10 MB of maps": (
        body(b"\x81\xa1x\xdd" + (3_000_000).to_bytes(4, "big") + b"\x81\xa0\x80" * 3_000_000),
        {},
        "INVALID_ARGUMENT",
        64 * MIB,
    ),
    "1 MB of lists, as many as are allowed": (
        body(b"\x81\xa1x\xdd" + (1_040_000).to_bytes(4, "big") + b"\x90" * 1_040_000),
        {},
        "OK",
        128 * MIB,
    ),
    "a string that says 4 GB": (body(b"\x81\xa1x\xdb\xff\xff\xff\xff"), {}, "INVALID_ARGUMENT", 16 * MIB),
    "an array that says 4 GB": (
        extension(2, [0, "<f8", "C", [2**29]], b"x"),
        {},
        "INVALID_ARGUMENT",
        16 * MIB,
    ),
    "a gzip bomb of 64 MB": (bytes(64 * MIB), {"compression": grpc.Compression.Gzip}, "RESOURCE_EXHAUSTED", 64 * MIB),
    "20 KB of metadata": (encode_call("v", {}), {"metadata": [("x", "y" * 20_000)]}, "RESOURCE_EXHAUSTED", 16 * MIB),
}


def test_no_request_costs_more_memory_than_it_may(process_of, ask_of):
    process = process_of(SERVE, AIPOD_MAX_MESSAGE_BYTES="32MiB")
    ask = ask_of(process)
    assert ask(PREDICT, encode_call("v", {})).status == "OK"
    for name, (message, options, status, most) in BOMBS.items():
        forget_peak(process)
        before = peak_bytes(process)
        answer = ask(PREDICT, message, **options)
        assert answer.status == status, (name, answer)
        assert peak_bytes(process) - before <= most, name


def test_resetting_streams_hurts_nobody_for_long(server_of, client_of, model):
    server = server_of(model)
    client = client_of(server)
    with Intruder(server.address) as intruder:
        intruder.open_streams(PREDICT, 2000, reset=True)
        intruder.open_streams(LEGACY_METHODS["predict"], 200)
        assert client.predict(x=1) == {"x": 1}
    assert client.predict(x=2) == {"x": 2}


def test_a_caller_who_wants_tls_learns_that_there_is_none(server_of, client_of, model):
    server = server_of(model)
    with grpc.secure_channel(server.address, grpc.ssl_channel_credentials()) as channel:
        with pytest.raises(grpc.RpcError) as error:
            channel.unary_unary(PREDICT)(encode_call("v", {}), timeout=5)
        assert error.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert client_of(server).predict(x=1) == {"x": 1}


def test_a_deadline_of_a_millisecond_is_one(server_of, ask_of, model):
    ask = ask_of(server_of(model))
    for _ in range(50):
        assert ask(PREDICT, encode_call("v", {"do": "wait"}), timeout=0.001).status == "DEADLINE_EXCEEDED"
    model.gate.set()
    assert ask(PREDICT, encode_call("v", {"x": 1})).status == "OK"


def test_names_that_callers_invent_leave_nothing_on_the_disk(server_of, client_of, model, tmp_path):
    server = server_of(model, strict_versions=True)
    for number in range(20):
        with pytest.raises(VersionNotFound):
            client_of(server, f"invented-{number}").predict()
        with pytest.raises(AipodError):
            client_of(server, f"invented-{number}").admin.load(f"invented-{number}")
    files = [path for path in (tmp_path / "data").rglob("*") if "invented" in path.name]
    assert files == []


def test_an_alias_is_no_version_and_a_version_no_alias(server_of, client_of, ask_of, model):
    server = server_of(model)
    client = client_of(server)
    client.initialize(x=1)
    client.admin.set_alias("live", "v")
    for method in ("initialize", "train"):
        with pytest.raises(InvalidArgument, match="'live' is an alias of version 'v'; write that one by its own name"):
            getattr(client_of(server, "live"), method)()
    answer = ask_of(server)(ADMIN + "SetAlias", SetAliasRequest(alias="v", version="v").SerializeToString())
    assert (answer.status, "no alias can have its name" in answer.sentence) == ("INVALID_ARGUMENT", True)

"""What a model may do, and what may happen to its data: its callers hear of it, and nobody else is hurt."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from waiting import BOUND

from aipod.errors import (
    AipodError,
    DeadlineExceeded,
    LoadError,
    ModelError,
    Overloaded,
    StorageError,
    VersionNotFound,
)
from aipod.model import AIModelBase


class Spiteful(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


def endless() -> Exception:
    error = ValueError("the first of many")
    for _ in range(20_000):
        following = ValueError("one of many")
        following.__cause__ = error
        error = following
    return error


def recurse(x: object) -> object:
    return recurse(x)


def throw(error: BaseException) -> object:
    raise error


def write_to(array: Any) -> None:
    array[0] = 1


# What predict does with ``x``, and what its caller is told.
DOES: dict[str, tuple[Callable[[Any], object], type[AipodError], str]] = {
    "raises what cannot be shown": (lambda x: throw(Spiteful()), ModelError, "Spiteful: (its message cannot be shown"),
    "raises at the end of a long chain": (lambda x: throw(endless()), ModelError, "ValueError: one of many"),
    "raises KeyboardInterrupt": (lambda x: throw(KeyboardInterrupt()), ModelError, "KeyboardInterrupt"),
    "raises GeneratorExit": (lambda x: throw(GeneratorExit()), ModelError, "GeneratorExit"),
    "raises StopIteration": (lambda x: throw(StopIteration(1)), ModelError, "StopIteration: 1"),
    "raises what has surrogates": (lambda x: throw(ValueError("a\ud800b")), ModelError, "ValueError: a"),
    "recurses for ever": (recurse, ModelError, "RecursionError"),
    "writes to its argument": (write_to, ModelError, "assignment destination is read-only"),
    "returns a generator": (lambda x: (y for y in x), ModelError, "result: type generator is not supported"),
    "returns itself in itself": (lambda x: [y := [], y.append(y)], ModelError, "predict() returned what cannot travel"),
    "returns objects": (lambda x: {"a": numpy.array([object()])}, ModelError, 'result["a"]: '),
    "returns an int too large": (lambda x: [2**64], ModelError, "result[0]: "),
    "returns half a surrogate pair": (lambda x: "\ud800", ModelError, "result: "),
    "returns a name that is no str": (lambda x: {1: 1}, ModelError, "result"),
    "asks for all memory": (lambda x: numpy.zeros(2**57), ModelError, "Unable to allocate"),
}


@pytest.mark.parametrize("does", DOES)
def test_whatever_predict_does_its_caller_hears_of_it_and_the_next_is_served(server_of, client_of, model, does):
    action, kind, sentence = DOES[does]
    model.predict = lambda self, x=None, act=False: action(x) if act else "fine"
    client = client_of(server_of(model))
    with pytest.raises(kind) as error:
        client.predict(act=True, x=numpy.zeros(3))
    assert type(error.value) is kind
    assert sentence in str(error.value)
    assert client.predict() == "fine"


@pytest.mark.parametrize(
    "value",
    [None, numpy.float32(1.5), numpy.bool_(True), (1, 2), {"a": numpy.zeros(0)}, memoryview(b"ab"), bytearray(b"ab")],
    ids=lambda value: type(value).__name__,
)
def test_what_numpy_and_python_have_besides_is_no_reason_to_fail(server_of, client_of, model, value):
    model.predict = lambda self: value
    client_of(server_of(model)).predict()


def test_a_class_that_cannot_be_built_hurts_no_other_version(server_of, client_of, model):
    def build(self: AIModelBase, version: str | None = None, datapath: str | None = None) -> None:
        AIModelBase.__init__(self, version=version, datapath=datapath)
        if version == "bad":
            raise OSError(2, "No such file", str(self.model_dir() / "weights"))

    model.__init__ = build
    server = server_of(model, model_pool_size=1)
    good = client_of(server, "good")
    assert good.predict(x=1) == {"x": 1}
    for _ in range(3):
        with pytest.raises(LoadError, match=r"version 'bad' does not load: .*No such file") as error:
            client_of(server, "bad").predict()
        assert str(server.settings.data_path) not in str(error.value)
    assert good.predict(x=2) == {"x": 2}


def test_a_load_that_never_ends_costs_its_callers_their_deadline_and_nobody_else_anything(server_of, client_of, model):
    never = threading.Event()
    model.load = lambda self: never.wait(BOUND) if self.version == "stuck" else None
    server = server_of(model, model_pool_size=2)
    stuck, good = client_of(server, "stuck"), client_of(server, "good")
    with pytest.raises(DeadlineExceeded):
        stuck.options(timeout=0.3).predict()
    assert good.predict(x=1) == {"x": 1}
    never.set()
    assert stuck.predict(x=2) == {"x": 2}


def test_a_dispose_that_raises_is_logged_and_the_place_is_free(server_of, client_of, model, caplog):
    model.dispose = lambda self: throw(SystemExit(1))
    server = server_of(model, model_pool_size=1)
    for version in ("a", "b", "a"):
        assert client_of(server, version).predict(x=1) == {"x": 1}
    assert "dispose() of version 'a' failed" in caplog.text


def test_a_dispose_that_never_ends_keeps_its_place_and_is_said(server_of, client_of, model):
    never = threading.Event()
    model.dispose = lambda self: never.wait(BOUND)
    server = server_of(model, model_pool_size=1)
    assert client_of(server, "a").predict(x=1) == {"x": 1}
    with pytest.raises((Overloaded, DeadlineExceeded), match=r"version 'b'|deadline"):
        client_of(server, "b").options(timeout=0.5).predict(x=1)
    never.set()
    assert client_of(server, "b").predict(x=2) == {"x": 2}


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


# What somebody did to a published model.json.
SPOILT: dict[str, tuple[Callable[[Path], object], bool]] = {
    "torn": (lambda path: path.write_text('{\n "x": '), False),
    "empty": (lambda path: path.write_text(""), False),
    "a list": (lambda path: path.write_text("[1]"), False),
    "not UTF-8": (lambda path: path.write_bytes(b'{"x": "\xff"}'), False),
    "100,000 levels": (lambda path: path.write_text("[" * 100_000), False),
    "a directory": (make_directory, False),
    "a NaN": (lambda path: path.write_text('{"x": NaN}'), True),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_spoilt_model_json_is_named(server_of, client_of, model, tmp_path, spoilt):
    spoil, readable = SPOILT[spoilt]
    model.load = lambda self: self.model_info
    server = server_of(model)
    client = client_of(server)
    client.initialize(x=1)
    client.admin.unload("v")
    spoil((tmp_path / "data" / "models" / "v").resolve() / "model.json")
    if readable:
        assert client.predict(x=1) == {"x": 1}
        return
    with pytest.raises(LoadError, match=r"model\.json") as error:
        client.predict()
    assert str(tmp_path) not in str(error.value)
    assert client.initialize(x=2)["result"] is True
    assert client.predict(x=2) == {"x": 2}


def test_a_directory_that_is_deleted_under_an_instance_does_not_stop_it(server_of, client_of, model, tmp_path):
    server = server_of(model)
    client = client_of(server)
    client.initialize(x=1)
    assert client.predict(x=1) == {"x": 1}
    shutil.rmtree(tmp_path / "data" / "revisions" / "v" / "1")
    assert client.predict(x=2) == {"x": 2}
    assert client.initialize(x=2)["result"] is True
    assert client.predict(x=3) == {"x": 3}
    assert client.admin.versions()[0].loaded_revision == 2


def test_a_link_that_leads_elsewhere_is_not_followed(server_of, client_of, model, tmp_path):
    server = server_of(model)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("still here")
    client = client_of(server)
    client.predict()
    (tmp_path / "data" / "models" / "w").symlink_to(outside)
    stranger = client_of(server, "w")
    for action in (stranger.predict, stranger.initialize, stranger.train, lambda: stranger.admin.delete("w")):
        with pytest.raises((StorageError, LoadError, VersionNotFound)) as error:
            action()
        assert str(tmp_path) not in str(error.value)
    assert (outside / "precious").read_text() == "still here"
    assert (tmp_path / "data" / "models" / "w").is_symlink()

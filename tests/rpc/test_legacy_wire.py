"""The wire of 1.0, as its clients speak it: raw requests, built from the contract alone."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy
import pytest

from aipod.model import AIModelBase, NotSupportedError
from aipod.rpc.ai_pb2 import Input, Output
from aipod.rpc.legacy_service import _LegacyCall
from aipod.rpc.refusal import Refusals


class Old(AIModelBase):
    """Written for 1.0."""

    def __init__(self, version: str | None = None, datapath: str | None = None) -> None:
        super().__init__(version=version, datapath=datapath)
        self.weights = (self.model_dir() / "weights").exists()

    def train(self, binary_data: bytes | None = None, **kwargs: Any) -> Any:
        self.trainning_logger.append(progress=50, message="一半", stage="训练")
        (self.model_dir() / "weights").write_bytes(binary_data or b"")
        return kwargs

    def predict(self, binary_data: bytes | None = None, **kwargs: Any) -> Any:
        if kwargs.get("boom"):
            raise RuntimeError("boom")
        if kwargs.get("unsupported"):
            raise NotSupportedError()
        if kwargs.get("numpy"):
            return {"scalar": numpy.float32(1.5), "array": numpy.arange(3)}
        if kwargs.get("set"):
            return {1}
        if kwargs.get("long"):
            return "x" * kwargs["long"]
        return {"weights": self.weights, "length": len(binary_data or b""), **kwargs}


@pytest.fixture
def ask(server_of) -> Iterator[Callable[..., Any]]:
    with grpc.insecure_channel(server_of(Old).address) as channel:

        def call(method: str, version: str = "v", binary_data: bytes | None = None, **kwargs: Any) -> Any:
            request = Input(kwargs_json=json.dumps(kwargs).encode(), version=version, binary_data=binary_data)
            data = channel.unary_unary(f"/ai.AI/{method}")(request.SerializeToString(), timeout=20)
            return json.loads(Output.FromString(data).data_json)

        call.raw = lambda method, data: channel.unary_unary(f"/ai.AI/{method}")(data, timeout=20)  # type: ignore[attr-defined]
        yield call


def test_a_session_of_1_0_gets_the_answers_of_1_0(ask):
    assert ask("initialize", 名称="数字", layers=[1, 2]) == {"result": True}
    assert ask("predict", x=1) == {"weights": False, "length": 0, "x": 1}
    assert ask("train", epochs=2, binary_data=b"data") == {"epochs": 2}
    assert ask("predict", 文字="你好", binary_data=b"12345") == {"weights": True, "length": 5, "文字": "你好"}
    (record,) = ask("log")
    assert record == {**record, "progress": 50, "data": None, "message": "一半", "stage": "训练", "status": "running"}
    assert isinstance(record["timestamp"], int)


def test_no_version_is_the_default_one_and_no_kwargs_are_none(ask):
    assert ask("predict", version="") == {"weights": False, "length": 0}
    assert json.loads(Output.FromString(ask.raw("predict", Input().SerializeToString())).data_json)["length"] == 0


def test_numbers_of_numpy_become_numbers(ask):
    assert ask("predict", numpy=True) == {"scalar": 1.5, "array": [0, 1, 2]}


def test_nan_crosses_as_it_did(ask):
    assert numpy.isnan(ask("predict", x=float("nan"))["x"])


@pytest.mark.parametrize(
    ("kwargs", "status", "text"),
    [
        ({"boom": True}, grpc.StatusCode.INTERNAL, "RuntimeError: boom"),
        ({"unsupported": True}, grpc.StatusCode.UNIMPLEMENTED, "does not support"),
        ({"set": True}, grpc.StatusCode.INTERNAL, "predict() returned what JSON cannot hold"),
        ({"version": "../x"}, grpc.StatusCode.INVALID_ARGUMENT, "is no version name"),
    ],
)
def test_errors_have_our_statuses(ask, kwargs, status, text):
    with pytest.raises(grpc.RpcError) as error:
        ask("predict", **kwargs)
    assert error.value.code() is status
    assert text in error.value.details()


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff",
        Input(kwargs_json=b"[1]").SerializeToString(),
        Input(kwargs_json=b"{").SerializeToString(),
        Input(kwargs_json=b"\xff").SerializeToString(),
        Input(kwargs_json=b"5").SerializeToString(),
        Input(kwargs_json=b"[" * 100_000).SerializeToString(),
    ],
    ids=["no message", "a list", "torn", "no utf-8", "a number", "too deep"],
)
def test_what_is_no_request_is_the_callers_fault(ask, data):
    with pytest.raises(grpc.RpcError) as error:
        ask.raw("predict", data)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b'{"x":[' + b",".join([b'{"":{}}'] * 300_000) + b"]}", "600002 lists and objects"),
        (b'{"x":[' + b"0," * (1 << 20) + b"0]}", "1048577 values"),
    ],
    ids=["objects", "numbers"],
)
def test_json_that_would_fill_the_memory_is_refused_before_it_is_read(ask, monkeypatch, text, what):
    monkeypatch.setattr(json, "loads", lambda text: pytest.fail("it was read"))
    with pytest.raises(grpc.RpcError) as error:
        ask.raw("predict", Input(kwargs_json=text).SerializeToString())
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert what in error.value.details()
    assert "binary_data" in error.value.details()


def test_an_image_as_a_list_is_no_danger_nor_is_a_long_text(ask):
    image = [[[1] * 3] * 500] * 500
    assert ask("predict", image=image, text="[{,}]" * 1000)["image"] == image


def test_a_result_that_is_too_large_says_so(server_of):
    with grpc.insecure_channel(server_of(Old, max_message_bytes=1 << 20).address) as channel:
        request = Input(kwargs_json=b'{"long": 2000000}', version="v")
        with pytest.raises(grpc.RpcError) as error:
            channel.unary_unary("/ai.AI/predict")(request.SerializeToString(), timeout=20)
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert re.fullmatch(
        r"the result takes 20000\d\d bytes, and 1048576 are allowed; return less", error.value.details()
    )


def test_a_request_is_not_kept_while_the_model_works_on_it():
    raw = SimpleNamespace(deadline=None, message=b"")
    request = Input(kwargs_json=b'{"x": 1}', version="v", binary_data=b"data")
    before = sys.getrefcount(request)
    call = _LegacyCall("predict", request, raw, Refusals(False, Path("/")), 1 << 20)
    assert sys.getrefcount(request) > before
    assert call.arguments() == {"x": 1, "binary_data": b"data"}
    assert sys.getrefcount(request) == before


def test_a_method_that_1_0_had_not_is_unimplemented(ask):
    with pytest.raises(grpc.RpcError) as error:
        ask.raw("explode", b"")
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED

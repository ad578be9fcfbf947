"""A script written for 1.0 runs as it is, for the clients of today and for those of 1.0."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from aipod.errors import NotSupportedError
from aipod.package import ZipPackage
from aipod.rpc.ai_pb2 import Input, Output
from aipod.rpc.client import AIClient

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "v1" / "review_model.py"

# What a client of 1.0 does, to the letter of its wire.
Ask = Callable[..., Any]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "AIPOD_LISTEN_HOST": "127.0.0.1",
        "AIPOD_LISTEN_PORT": "0",
        "AIPOD_DATA_PATH": str(tmp_path / "data"),
        # Where 1.0 could not write its log and its parameters.
        "LC_ALL": "C",
        "PYTHONIOENCODING": "utf-8",
    }
    command = [sys.executable, "-W", "error", str(SCRIPT)]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, encoding="utf-8") as process:
        yield process
        process.kill()


@pytest.fixture
def address(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    greeting = server.stdout.readline()
    assert greeting.startswith("aipod: serving ReviewModel on "), greeting
    return greeting.split()[-1]


@pytest.fixture
def ask(address: str) -> Iterator[Ask]:
    with grpc.insecure_channel(address) as channel:

        def ask(method: str, binary_data: bytes = b"", version: str = "v1", **kwargs: Any) -> Any:
            call = channel.unary_unary(
                f"/ai.AI/{method}", request_serializer=Input.SerializeToString, response_deserializer=Output.FromString
            )
            request = Input(kwargs_json=json.dumps(kwargs).encode(), version=version, binary_data=binary_data)
            return json.loads(call(request, timeout=30).data_json)

        yield ask


def reviews() -> bytes:
    package = ZipPackage()
    package.write_file("好评.txt", data="很好 喜欢 推荐")
    package.write_file("差评.txt", data="失望 很差")
    return package.close()


def test_todays_client_leads_it_through_its_life(address: str) -> None:
    with AIClient(address, version="v1") as client:
        assert client.initialize(语言="中文")["result"] is True
        assert client.train(binary_data=reviews(), 轮数=2) == {"词数": 5}
        assert client.predict(文本="很好 推荐") == {"分数": 4, "标签": "好评", "语言": "中文"}
        assert client.predict(binary_data="失望".encode()) == {"分数": -2, "标签": "差评", "语言": "中文"}

        records = client.log()
        assert [record["progress"] for record in records] == [10, 50, 90, 100]
        assert records[1]["data"] == {"轮": 1}

        package = ZipPackage(data=base64.b64decode(client.predict(操作="导出")["zip"]))
        assert json.loads(package.read_file("词表.json"))["很好"] == 2
        assert package.read_file("说明.txt").decode() == "版本 v1"

        with pytest.raises(NotSupportedError):
            client.predict(操作="飞")


def test_a_client_of_1_0_gets_the_answers_of_1_0(ask: Ask) -> None:
    assert ask("initialize", 语言="中文") == {"result": True}
    assert ask("train", reviews(), 轮数=2) == {"词数": 5}
    assert ask("predict", 文本="很好 推荐") == {"分数": 4, "标签": "好评", "语言": "中文"}
    assert ask("predict", "失望".encode()) == {"分数": -2, "标签": "差评", "语言": "中文"}

    records = ask("log")
    assert [record["message"] for record in records] == ["开始训练", "训练中", "训练中", "训练完成"]
    assert {"progress", "data", "message", "stage", "status", "timestamp"} <= set(records[0])
    assert [record["status"] for record in records][-2:] == ["running", "finished"]

    package = ZipPackage(data=base64.b64decode(ask("predict", 操作="导出")["zip"]))
    assert json.loads(package.read_file("词表.json"))["很差"] == -2


def test_a_client_of_1_0_gets_statuses_of_today(ask: Ask) -> None:
    ask("initialize")
    with pytest.raises(grpc.RpcError) as failure:
        ask("predict", 操作="飞")
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.RpcError) as failure:
        ask("initialize", version="../../victim")
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_both_clients_see_the_same_version(address: str, ask: Ask) -> None:
    ask("initialize", version="", 语言="中文")
    ask("train", reviews(), version="default")
    with AIClient(address) as client:
        assert client.predict(文本="喜欢") == ask("predict", 文本="喜欢", version="")
        assert client.predict(文本="喜欢")["分数"] == 3


def test_what_stands_after_serve_runs_when_the_server_has_ended(server: subprocess.Popen[str], address: str) -> None:
    server.send_signal(signal.SIGTERM)
    output, _ = server.communicate(timeout=15)
    assert output == "服务已停止\n"
    assert server.returncode == 0

"""Which front serves, where grpcio is not what it was."""

from __future__ import annotations

import ast
import logging
import re
import types
from pathlib import Path
from typing import Any

import grpc
import pytest
from front_world import CALL, MIB, echo

import aipod.rpc.front.cq as cq_module
from aipod.errors import ConfigError
from aipod.rpc.front import FrontOptions, open_front
from aipod.rpc.front.aio import AioFront
from aipod.rpc.front.cq import CqFront, missing

ROOT = Path(__file__).parents[2]
OPTIONS = FrontOptions({CALL: None}, MIB)


def kind_of(kind: Any) -> type:
    return type(open_front(kind, echo, OPTIONS))


@pytest.fixture
def poorer_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """grpcio after a change that it may make any day."""
    real = cq_module.cygrpc
    names = {name: getattr(real, name) for name in dir(real) if name != "SendMessageOperation"}
    names["Server"] = types.SimpleNamespace(start=None)
    monkeypatch.setattr(cq_module, "cygrpc", types.SimpleNamespace(**names))


def test_here_the_fast_one_does(caplog: pytest.LogCaptureFixture) -> None:
    assert missing() == ""
    assert kind_of("auto") is CqFront
    assert not caplog.records


def test_whoever_names_one_gets_it() -> None:
    assert kind_of("cq") is CqFront
    assert kind_of("aio") is AioFront


@pytest.mark.parametrize("version", ["1.61.9", "1.86.0", "2.0.0", "1.99.0rc1", "1.100.0.dev0"])
def test_with_a_grpcio_that_was_not_tested_the_public_one_does_with_one_warning(
    version: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(grpc, "__version__", version)
    assert kind_of("auto") is AioFront
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert version in record.getMessage()
    assert "AIPOD_FRONT=cq" in record.getMessage()
    assert kind_of("cq") is CqFront


@pytest.mark.parametrize("version", ["1.62.3", "1.85.1", "1.85.0rc1", "1.70.0"])
def test_with_those_between_the_oldest_and_the_newest_that_were_tested_the_fast_one_does(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc, "__version__", version)
    assert kind_of("auto") is CqFront


@pytest.mark.usefixtures("poorer_layer")
def test_without_what_the_fast_one_needs_the_public_one_does_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert "SendMessageOperation" in missing()
    assert "Server.request_call" in missing()
    assert kind_of("auto") is AioFront
    [record] = caplog.records
    assert "SendMessageOperation" in record.getMessage()


@pytest.mark.usefixtures("poorer_layer")
def test_who_asks_for_the_fast_one_by_name_is_told_what_it_lacks() -> None:
    with pytest.raises(ConfigError, match="SendMessageOperation"):
        open_front("cq", echo, OPTIONS)


def test_all_that_is_used_of_the_layer_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [ROOT / "aipod/rpc/front" / name for name in ("cq.py", "cq_rpc.py")]
    used = {
        node.attr
        for file in files
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "cygrpc"
    }
    monkeypatch.setattr(cq_module, "cygrpc", types.SimpleNamespace())
    assert used == {name.partition(".")[0] for name in missing().split()} - {"Call"}


def test_the_oldest_that_is_admitted_is_the_oldest_that_was_tested() -> None:
    admitted = re.search(r"^ +grpcio>=(\d+)\.(\d+)", (ROOT / "setup.cfg").read_text("utf-8"), re.MULTILINE)
    assert admitted is not None
    text = (ROOT / "aipod/rpc/front/choice.py").read_text("utf-8")
    assert f"_OLDEST, _NEWEST = ({admitted[1]}, {admitted[2]})," in text

"""A served model inside a test."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aipod.errors import ConfigError, InvalidArgument, Unavailable
from aipod.model import AIModelBase
from aipod.rpc.client import AIClient
from aipod.testing import served, served_async


class Scale(AIModelBase):
    """Multiplies by what it was trained to."""

    def train(self, factor: float) -> None:
        (self.model_dir() / "factor").write_text(str(factor))

    def load(self) -> None:
        self.factor = float((self.model_dir() / "factor").read_text())

    def predict(self, x: Any) -> Any:
        return np.asarray(x) * self.factor

    def log(self, name: str = "trainning", **kwargs: Any) -> Any:
        return str(self.datapath) if name == "datapath" else super().log(name=name, **kwargs)


def test_a_model_lives_its_whole_life_in_a_with_block() -> None:
    with served(Scale) as client:
        client.initialize()
        client.train(factor=3.0)
        assert client.predict(x=np.arange(3)).tolist() == [0.0, 3.0, 6.0]
        assert client.version == "default"


def test_the_client_calls_the_version_that_was_asked_for() -> None:
    with served(Scale, version="甲", model_pool_size=2) as client:
        client.train(factor=2.0)
        with AIClient(client.address, version="乙") as other:
            other.train(factor=5.0)
            assert (client.predict(x=1), other.predict(x=1)) == (2.0, 5.0)
        assert [one.version for one in client.admin.versions()] == sorted(["甲", "乙"])
        assert client.admin.statistics().pool.capacity == 2


def test_nothing_is_left_on_disk_nor_on_the_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with served(Scale) as client:
        client.train(factor=1.0)
        host, _, port = client.address.rpartition(":")
        assert host == "127.0.0.1"
        assert client.log(name="datapath").startswith(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=5)


def test_a_data_path_that_was_given_stays(tmp_path: Path) -> None:
    with served(Scale, data_path=tmp_path) as client:
        client.train(factor=4.0)
    with served(Scale, data_path=tmp_path) as client:
        assert client.predict(x=2) == 8.0


def test_the_client_is_closed_and_the_server_gone_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), served(Scale, data_path=tmp_path) as client:
        raise ZeroDivisionError
    with pytest.raises(Unavailable), AIClient(client.address, timeout=0.2) as late:
        late.predict(x=1)


def test_the_environment_of_the_developer_does_not_choose_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("AIPOD_LISTEN_PORT", str(taken.getsockname()[1]))
        with served(Scale) as client:
            client.train(factor=1.0)
            assert client.predict(x=1) == 1.0


def test_errors_are_those_that_a_caller_would_get() -> None:
    with served(Scale) as client:
        client.train(factor=1.0)
        with pytest.raises(InvalidArgument, match="unexpected keyword argument 'y'"):
            client.predict(y=1)


@pytest.mark.parametrize(
    ("model", "settings", "problem"),
    [
        (Scale, {"model_pool_sise": 2}, "there is no setting 'model_pool_sise'; the nearest is model_pool_size"),
        (Scale, {"model_pool_size": -1}, "model_pool_size is -1"),
        (dict, {}, "is no subclass of AIModelBase"),
    ],
)
def test_what_cannot_be_served_is_refused_and_leaves_nothing(
    model: Any, settings: dict[str, Any], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ConfigError, match=problem), served(model, **settings):
        pass
    assert list(tmp_path.iterdir()) == []


def test_asyncio_has_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def session() -> list[float]:
        async with served_async(Scale, version="v1") as client:
            await client.train(factor=10.0)
            return [float(one) for one in await asyncio.gather(*(client.predict(x=i) for i in range(5)))]

    assert asyncio.run(session()) == [0.0, 10.0, 20.0, 30.0, 40.0]
    assert list(tmp_path.iterdir()) == []

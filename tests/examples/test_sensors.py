"""The sensors example: the model in place, the fleet, and the whole as a stranger runs it."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from aipod.errors import InvalidArgument

pytest.importorskip("nats")

ROOT = Path(__file__).parents[2]
HERE = ROOT / "examples" / "sensors"


@pytest.fixture(scope="module")
def example() -> Iterator[list[Any]]:
    """The modules ``model`` and ``fleet``, which are in no package."""
    modules = [_module(name) for name in ("model", "fleet")]
    yield modules
    for module in modules:
        del sys.modules[module.__name__]


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"sensors_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # As an import would, for what looks a class up by the name of its module.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def trained(example: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    model, fleet = example
    anomalies = model.Anomalies("v1", tmp_path_factory.mktemp("data"))
    anomalies.initialize(size=32)
    anomalies.train(readings=fleet.Fleet().healthy(400))
    anomalies.load()
    return anomalies


def test_healthy_windows_are_no_anomalies_and_a_spike_is_one(example: list[Any], trained: Any) -> None:
    temperature, vibration = example[1].Fleet(size=1, seed=9).healthy(32)[0].T
    healthy = trained.predict(temperature=temperature, vibration=vibration)
    assert healthy["score"] < 1
    assert not healthy["anomalous"]
    temperature[20] += 12
    spike = trained.predict(temperature=temperature.tolist(), vibration=vibration.tolist(), window={"key": "pump-01"})
    assert spike["score"] > 1
    assert spike["anomalous"]


@pytest.mark.parametrize(
    ("temperature", "vibration"),
    [([1, 2, 3], [1, 2]), ([1, 2], [1, 2]), ([[1, 2, 3]], [[1, 2, 3]]), ("text", "text"), ([1, 2, np.nan], [1, 2, 3])],
)
def test_what_is_no_window_of_readings_is_refused(trained: Any, temperature: Any, vibration: Any) -> None:
    with pytest.raises(InvalidArgument, match="temperature and vibration must be"):
        trained.predict(temperature=temperature, vibration=vibration)


@pytest.mark.parametrize("shape", [(400, 2), (3, 31, 2), (3, 400, 3)])
def test_what_is_nothing_to_learn_from_is_refused(example: list[Any], tmp_path: Path, shape: tuple[int, ...]) -> None:
    anomalies = example[0].Anomalies("v1", tmp_path)
    anomalies.initialize(size=32)
    with pytest.raises(InvalidArgument, match=r"it must be \(pumps, 32 or more, 2\)"):
        anomalies.train(readings=np.zeros(shape))


def test_the_same_seed_makes_the_same_fleet_with_the_same_faults(example: list[Any]) -> None:
    (readings, faults), (again, same), (other, _) = (example[1].Fleet(seed=seed).faulty(200) for seed in (1, 1, 2))
    assert (readings == again).all()
    assert faults == same
    assert (readings != other).any()
    assert {fault.kind for fault in faults} == {"spike", "drift", "stuck", "worn"}


def test_what_was_injected_is_found_and_nothing_else(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "AIPOD_LISTEN_PORT": "1"}
    command = [sys.executable, "-W", "error", str(HERE / "run.py")]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = done.stdout
    assert "5,760 readings published" in report
    assert re.search(r"^stream +684 windows judged, \d+ of them anomalous$", report, re.MULTILINE)
    assert (
        len(re.findall(r"^pump-\d\d +(?:spike|drift|stuck|worn ) .*: found in \d+ windows", report, re.MULTILINE)) == 6
    )
    assert "faults: 6, missed: 0, false alarms: 0" in report.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []

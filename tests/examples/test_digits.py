"""The digits example: the model in place, and the demo as a stranger runs it."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aipod.errors import InvalidArgument, NotInitialized
from aipod.testing import served

sklearn_datasets = pytest.importorskip("sklearn.datasets")

ROOT = Path(__file__).parents[2]
HERE = ROOT / "examples" / "digits"


@pytest.fixture(scope="module")
def example() -> Iterator[Any]:
    """The module ``model.py``, which is in no package."""
    spec = importlib.util.spec_from_file_location("digits_example", HERE / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # As an import would, for what looks a class up by the name of its module.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def held_out(example: Any) -> tuple[Any, Any]:
    images, labels = sklearn_datasets.load_digits(return_X_y=True)
    return images[example.HELD_OUT :], labels[example.HELD_OUT :]


def test_the_model_learns_and_reads_in_place_without_a_server(example: Any, tmp_path: Path) -> None:
    model = example.Digits("v1", tmp_path)
    model.initialize(layers=[32], seed=1)
    assert model.train(epochs=8)["accuracy"] > 0.8

    records = model.log()
    assert [record["data"]["epoch"] for record in records] == list(range(1, 9))
    assert records[-1]["progress"] == 100

    again = example.Digits("v1", tmp_path)
    again.load()
    images, labels = held_out(example)
    answer = again.predict(images=images)
    assert (answer["digits"] == labels).mean() > 0.8
    assert answer["probabilities"].shape == (len(labels), 10)
    assert np.allclose(answer["probabilities"].sum(axis=1), 1)
    assert (again.predict(images=images.reshape(-1, 8, 8))["digits"] == answer["digits"]).all()
    assert again.predict(images=images[:0])["digits"].shape == (0,)


def test_what_it_wrote_needs_no_pickle(example: Any, tmp_path: Path) -> None:
    model = example.Digits("v1", tmp_path)
    model.initialize(layers=[16, 8])
    model.train(epochs=1)
    with np.load(model.model_dir() / "network.npz", allow_pickle=False) as file:
        assert [file[f"weights_{i}"].shape for i in range(3)] == [(64, 16), (16, 8), (8, 10)]


def test_its_parameters_count(example: Any, tmp_path: Path) -> None:
    weights = []
    for seed in (1, 1, 2):
        model = example.Digits("v1", tmp_path)
        model.initialize(layers=[4], seed=seed, alpha=0.1)
        model.train(epochs=1)
        model.load()
        weights.append(model.layers[0][0])
    assert (weights[0] == weights[1]).all()
    assert (weights[0] != weights[2]).any()


def test_a_training_before_initialize_is_refused(example: Any, tmp_path: Path) -> None:
    with pytest.raises(NotInitialized):
        example.Digits("v1", tmp_path).train()


@pytest.mark.parametrize("images", [np.zeros((3, 5)), np.zeros(64), np.zeros((1, 64, 1)), "text", [[1], [1, 2]], None])
def test_what_is_no_image_is_refused(example: Any, images: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"images.*\(n, 8, 8\)"):
        example.pixels(images)


def test_it_is_served_with_numpy_in_and_out(example: Any) -> None:
    images, labels = held_out(example)
    with served(example.Digits, version="v1") as client:
        client.initialize(layers=[32])
        client.train(epochs=8)
        answer = client.predict(images=images)
        assert (answer["digits"] == labels).mean() > 0.8
        assert answer["probabilities"].dtype == np.float64
        assert answer["epochs"] == 8
        with pytest.raises(InvalidArgument, match="shape"):
            client.predict(images=images[:, :5])


def run_demo(*options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "AIPOD_LISTEN_PORT": "1"}
    command = [sys.executable, "-W", "error", *options, str(HERE / "demo.py")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110, check=False)


def test_the_demo_keeps_every_promise_and_says_so() -> None:
    done = run_demo()
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    report = done.stdout
    assert re.search(r"^server +ready in \d+\.\d s", report)
    assert re.search(r"^small +initialised with .*\n( +\[#* *\] +\d+%  epoch +\d+, .*\n)+large", report, re.MULTILINE)
    assert report.count("100%") == 2
    [(small, large)] = re.findall(r"accuracy +small (0\.\d+), large (0\.\d+)", report)
    assert 0.5 < float(small) < float(large)
    assert re.search(r"latency +\d+\.\d\d ms", report)
    assert re.search(r"calls: \d+, failed calls: 0$", report, re.MULTILINE)
    assert re.search(r"by revision 2: \d+, by revision 3: \d+, by anything else: 0$", report, re.MULTILINE)
    assert "loads: 10, evictions: 10" in report
    assert f"small is revision 2 again, accuracy {small}" in report
    assert "cancelled after its first epoch: the job is cancelled" in report
    assert re.search(r"^SIGKILL +the process that trains is gone after epoch \d+; the job is failed:$", report, re.M)
    assert re.search(r"^ +its process [^\n]*SIGKILL; its last record: progress [\d.]+, stage fitting$", report, re.M)
    assert re.search(r"by revision 2: \d+, by anything else: 0$", report, re.MULTILINE)
    assert len(re.findall(r"calls: \d+, failed calls: 0$", report, re.MULTILINE)) == 2
    assert "InvalidArgument: images has the shape (3, 5)" in report
    assert re.search(r"SIGTERM +drained and gone in \d+\.\d s, exit code 0", report)
    assert "every promise kept" in report.splitlines()[-1]
    assert "\x1b" not in report
    assert "\r" not in report

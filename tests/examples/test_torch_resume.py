"""The example of a training that survives the SIGKILL of its server; with numpy where there is no torch."""

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

from aipod.errors import InvalidArgument

ROOT = Path(__file__).parents[2]
HERE = ROOT / "examples" / "torch_resume"
NUMPY = f"{Path(__file__).parent / 'resuming_numpy.py'}:Steps"

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")


@pytest.mark.parametrize("target", [pytest.param([], id="torch", marks=needs_torch), pytest.param([NUMPY], id="numpy")])
def test_a_training_goes_on_where_the_sigkill_of_its_server_has_interrupted_it(
    target: list[str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(HERE / "run.py"), *target],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "AIPOD_LISTEN_PORT": "1"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    report = done.stdout
    assert done.returncode == 0, report + done.stderr
    assert re.search(r"^SIGKILL +the server is gone, .* after epoch 10$", report, re.MULTILINE)
    [resumed] = re.findall(r"^job +succeeded under the same id, resumed after epoch (\d+) of 40$", report, re.MULTILINE)
    assert 10 <= int(resumed) < 40
    assert re.search(r"^epochs +(39|40) in the log, 0 of them trained twice$", report, re.MULTILINE), report
    assert float(re.findall(r"^accuracy +([\d.]+)", report, re.MULTILINE)[0]) > 0.9
    assert report.endswith("every promise kept\n")
    # What is out of sight is said once, and nothing else.
    assert re.fullmatch(r"(job '[^']+' is out of sight; [^\n]+\n){0,2}", done.stderr), done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def spirals(tmp_path: Path) -> Iterator[Any]:
    """The torch model, in place, and its module."""
    torch = pytest.importorskip("torch")
    # Batches as small as these are slower when several cores share one.
    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("torch_resume_example", HERE / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    model = module.Spirals("v1", tmp_path)
    model.initialize(seed=1)
    yield model, module
    del sys.modules[spec.name]


def test_the_torch_model_learns_and_reads_in_place_without_a_server(spirals: Any) -> None:
    model, module = spirals
    assert model.train(epochs=40)["accuracy"] > 0.9
    model.load()
    points, labels = module.spirals(200)
    answer = model.predict(points.numpy())
    assert answer.dtype == np.int64
    assert (answer == labels.numpy().ravel()).mean() > 0.9
    with pytest.raises(InvalidArgument, match=r"it must be \(n, 2\)"):
        model.predict(np.zeros(3))
    assert not (model.model_dir() / "checkpoint.pt").exists()

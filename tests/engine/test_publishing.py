"""``initialize`` and ``train`` through the engine: what they see, what they leave, and who may run beside them."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path

import pytest
from waiting import BOUND, eventually

from aipod.errors import (
    Conflict,
    DeadlineExceeded,
    InvalidArgument,
    ModelError,
    NotInitialized,
    StorageError,
    TrainingInProgress,
    VersionNotFound,
)
from aipod.model import AIModelBase, current_call


class Model(AIModelBase):
    gate: threading.Event | None = None

    def initialize(self, binary_data: bytes = b"", **kwargs: object) -> object:
        result = super().initialize(**kwargs)
        (self.model_dir() / "blob").write_bytes(binary_data)
        return result

    def train(self, epochs: int = 1, fail: bool = False) -> dict[str, object]:
        (self.model_dir() / "half").write_text("written")
        for epoch in range(epochs):
            self.training_log.append(progress=100 * (epoch + 1) / epochs, message=f"轮 {epoch}", data={"epoch": epoch})
        if type(self).gate is not None:
            assert type(self).gate.wait(BOUND)
        if fail:
            raise RuntimeError("diverged")
        return {"epochs": epochs, "info": dict(self.model_info)}

    def predict(self) -> dict[str, object]:
        return {"info": dict(self.model_info), "trained": (self.model_dir() / "half").exists()}


@pytest.fixture
def model() -> type[Model]:
    return type("Model", (Model,), {})


def test_initialize_publishes_parameters_and_what_the_model_wrote(engine_of, model, tmp_path: Path):
    engine = engine_of(model)
    answer = engine.initialize("v", layers=[64, 10], name="模型", binary_data=b"blob")
    assert answer == {"result": True, "model_info": {"layers": [64, 10], "name": "模型"}}
    live = tmp_path / "data" / "models" / "v"
    assert live.is_symlink()
    assert json.loads((live / "model.json").read_text("utf-8")) == {"layers": [64, 10], "name": "模型"}
    assert (live / "blob").read_bytes() == b"blob"
    assert engine.predict("v") == {"info": {"layers": [64, 10], "name": "模型"}, "trained": False}


def test_an_initialize_that_raises_changes_nothing(engine_of, model, tmp_path: Path):
    model.initialize = lambda self, **kwargs: 1 / 0
    engine = engine_of(model)
    with pytest.raises(ModelError, match="ZeroDivisionError"):
        engine.initialize("v")
    assert engine.admin.versions() == []
    assert not any((tmp_path / "data" / "staging").iterdir())


def test_a_parameter_that_json_cannot_hold_is_named(engine_of, model):
    with pytest.raises(InvalidArgument, match="weights"):
        engine_of(model).initialize("v", weights={1, 2})


def test_train_works_on_a_copy_and_its_result_comes_back(engine_of, model):
    engine = engine_of(model)
    engine.initialize("v", rate=0.1)
    assert engine.train("v", epochs=3) == {"epochs": 3, "info": {"rate": 0.1}}
    assert engine.predict("v") == {"info": {"rate": 0.1}, "trained": True}
    records = engine.log("v")
    assert [record["data"]["epoch"] for record in records] == [0, 1, 2]
    assert records[0]["message"] == "轮 0"
    assert {"progress", "data", "message", "stage", "status", "timestamp"} <= records[0].keys()


def test_train_without_initialize_starts_from_nothing(engine_of, model):
    model.train = lambda self: list(self.model_dir().iterdir())
    assert engine_of(model).train("v") == []


def test_a_training_that_fails_leaves_the_live_revision_and_says_why(engine_of, model, tmp_path: Path):
    engine = engine_of(model)
    engine.initialize("v")
    with pytest.raises(ModelError, match="RuntimeError: diverged"):
        engine.train("v", fail=True)
    assert engine.predict("v")["trained"] is False
    assert not any((tmp_path / "data" / "staging").iterdir())
    (job,) = (json.loads(path.read_text()) for path in (tmp_path / "data" / "jobs").glob("*.json"))
    assert job["state"] == "failed"
    assert "diverged" in job["reason"]
    # Its records stay readable.
    assert len(engine.log("v")) == 1


def test_predictions_and_the_log_are_answered_while_a_training_runs(engine_of, model, background):
    model.gate = threading.Event()
    engine = engine_of(model, rpc_max_workers=1)
    engine.initialize("v")
    training = background(engine.train, "v", epochs=2)
    eventually(lambda: len(engine.log("v")) == 2)
    assert engine.predict("v")["trained"] is False
    model.gate.set()
    training.result(BOUND)
    assert engine.predict("v")["trained"] is True


def test_a_second_training_names_the_first(engine_of, model, background):
    model.gate = threading.Event()
    engine = engine_of(model)
    engine.initialize("v")
    engine.initialize("other")
    first = background(engine.train, "v")
    eventually(lambda: engine.log("v"))
    with pytest.raises(TrainingInProgress, match="is being trained by job 'v@") as error:
        engine.train("v")
    with pytest.raises(TrainingInProgress):
        engine.initialize("v")
    other = background(engine.train, "other")
    model.gate.set()
    first.result(BOUND)
    other.result(BOUND)
    assert error.value.job.startswith("v@")


def test_two_engines_on_one_data_path_stay_whole(engine_of, model, background):
    model.gate = threading.Event()
    one, two = engine_of(model), engine_of(model)
    one.initialize("v", number=1)
    training = background(one.train, "v")
    eventually(lambda: two.log("v"))
    with pytest.raises(TrainingInProgress):
        two.train("v")
    model.gate.set()
    training.result(BOUND)
    assert two.train("v", epochs=2) == {"epochs": 2, "info": {"number": 1}}
    assert [one.live for one in two.admin.versions()[0].revisions] == [False, False, True]


def test_twelve_initialize_at_once_have_a_clear_outcome_each(engine_of, model, background, tmp_path: Path):
    engine = engine_of(model)
    start = threading.Barrier(12)

    def initialize(number: int) -> object:
        start.wait()
        return engine.initialize("v", number=number)

    calls = [background(initialize, number) for number in range(12)]
    outcomes = [call.exception(BOUND) or call.result() for call in calls]
    winners = [one["model_info"]["number"] for one in outcomes if isinstance(one, dict)]
    assert winners
    assert all(isinstance(one, (dict, Conflict)) for one in outcomes)
    assert engine.predict("v")["info"]["number"] in winners
    (version,) = engine.admin.versions()
    assert [revision.live for revision in version.revisions].count(True) == 1


def test_old_revisions_are_collected_but_never_the_live_one(engine_of, model):
    engine = engine_of(model, keep_revisions=2)
    for number in range(5):
        engine.initialize("v", number=number)
        engine.predict("v")
    engine.admin.rollback("v")
    engine.initialize("v", number=5)
    (version,) = engine.admin.versions()
    assert version.revision in {revision.number for revision in version.revisions}
    assert len(version.revisions) <= 3


def test_a_revision_travels_as_one_file(engine_of, model):
    engine = engine_of(model, model_pool_size=2)
    engine.initialize("v", number=1)
    engine.train("v")
    package = io.BytesIO()
    engine.admin.export("v", None, package)
    package.seek(0)
    assert engine.admin.import_zip("copy", package) == 1
    assert engine.predict("copy") == {"info": {"number": 1}, "trained": True}


def test_a_deleted_version_is_gone_from_pool_and_disk(engine_of, model, tmp_path: Path):
    engine = engine_of(model)
    engine.initialize("v")
    engine.predict("v")
    engine.admin.set_alias("live", "v")
    with pytest.raises(InvalidArgument, match="alias"):
        engine.admin.delete("live")
    with pytest.raises(InvalidArgument, match="the alias 'live' names version 'v'; drop the alias first"):
        engine.admin.delete("v")
    engine.admin.drop_alias("live")
    engine.admin.delete("v", BOUND)
    assert engine.admin.versions() == []
    assert not (tmp_path / "data" / "models" / "v").exists()
    assert not (tmp_path / "data" / "revisions" / "v").exists()
    with pytest.raises(VersionNotFound):
        engine.admin.delete("v")


def test_model_info_of_a_version_without_data_says_what_to_do(engine_of, model):
    with pytest.raises(NotInitialized, match=r"call initialize\(\) or train\(\) on it first"):
        engine_of(model).predict("v")


def test_a_training_outlives_its_caller(engine_of, model, background):
    seen = []

    def train(self: AIModelBase) -> None:
        assert model.gate.wait(BOUND)
        current_call().check()
        seen.append(current_call().method)

    model.gate = threading.Event()
    model.train = train
    engine = engine_of(model)
    engine.initialize("v")
    with pytest.raises(DeadlineExceeded):
        engine.call("train", "v", {}, timeout=0.05)
    model.gate.set()
    eventually(lambda: engine.admin.versions()[0].revision == 2)
    assert seen == ["train"]


def test_what_cannot_be_collected_costs_no_training(engine_of, model, monkeypatch, caplog):
    engine = engine_of(model)
    engine.initialize("v")

    def collect(version: str) -> None:
        raise StorageError("collecting", "the disk is tired")

    monkeypatch.setattr(engine._store, "collect", collect)
    assert engine.train("v")["epochs"] == 1
    assert "old revisions of version 'v' could not be removed" in caplog.text

"""The user's contract: the class alone, in place, and at every place that an engine gives it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest

from aipod.errors import (
    BadVersionName,
    InvalidArgument,
    LoadError,
    NotInitialized,
    NotSupportedError,
    StorageError,
    StorageFull,
)
from aipod.model import AIModelBase, disk, manifest
from aipod.model.place import Place, construct
from aipod.model.store import Store


def everything(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


# The class alone


def test_making_and_reading_makes_nothing(tmp_path: Path) -> None:
    model = AIModelBase("v1", tmp_path)
    assert model.log() == []
    assert model.model_dir(mkdir=False) == tmp_path / "models" / "v1"
    assert model.model_info_path == tmp_path / "models" / "v1" / "model.json"
    with pytest.raises(NotInitialized, match="'v1'"):
        _ = model.model_info
    assert everything(tmp_path) == []


@pytest.mark.parametrize("version", [None, ""])
def test_no_version_is_default(version: str | None) -> None:
    model = AIModelBase(version)
    assert (model.version, model.datapath) == ("default", Path("appdata/"))


def test_a_name_that_is_no_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadVersionName):
        AIModelBase("../../victim", tmp_path)
    model = AIModelBase("v1", tmp_path)
    model.version = "../../victim"
    with pytest.raises(BadVersionName):
        model.model_dir()


def test_initialize_keeps_its_parameters_in_model_json(tmp_path: Path) -> None:
    model = AIModelBase("v1", tmp_path)
    answer = model.initialize(
        binary_data=b"bytes", layers=[64, 10], 名="模型", rate=numpy.float32(0.5), n=numpy.int64(3)
    )
    info = {"layers": [64, 10], "名": "模型", "rate": 0.5, "n": 3}
    assert answer == {"result": True, "model_info": info}
    text = (tmp_path / "models" / "v1" / "model.json").read_text(encoding="utf-8")
    assert text == json.dumps(info, indent=4, ensure_ascii=False)
    assert AIModelBase("v1", tmp_path).model_info == info
    assert everything(tmp_path) == ["models", "models/v1", "models/v1/model.json"]


def test_model_json_is_utf8_whatever_the_locale(tmp_path: Path) -> None:
    code = (
        "import sys; from aipod.model import AIModelBase; AIModelBase('v1', sys.argv[1]).initialize(x='\\u6a21\\u578b')"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=True, timeout=60)
    assert AIModelBase("v1", tmp_path).model_info == {"x": "模型"}


def test_initialize_clears_what_was_there_as_in_1_0(tmp_path: Path) -> None:
    model = AIModelBase("v1", tmp_path)
    (model.model_dir("weights") / "w.bin").write_bytes(b"w")
    model.training_log.append(1)
    model.initialize()
    assert everything(tmp_path) == ["models", "models/v1", "models/v1/model.json"]


@pytest.mark.parametrize("value", [numpy.zeros(3), b"bytes", {1, 2}, object(), "\ud800"])
def test_a_parameter_that_cannot_be_kept_is_named_and_costs_nothing(tmp_path: Path, value: object) -> None:
    model = AIModelBase("v1", tmp_path)
    model.initialize(a=1)
    before = everything(tmp_path)
    with pytest.raises(InvalidArgument, match="parameter 'bad'"):
        model.initialize(good=1, bad=value)
    assert everything(tmp_path) == before
    assert AIModelBase("v1", tmp_path).model_info == {"a": 1}


def test_a_value_that_holds_itself_is_refused(tmp_path: Path) -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidArgument, match="parameter 'loop'"):
        AIModelBase("v1", tmp_path).initialize(loop=loop)


@pytest.mark.parametrize("content", [b"", b'{"x": ', b"\xff\xfe", b"[1]", b"[" * 100_000])
def test_a_model_json_that_cannot_be_read_says_so(tmp_path: Path, content: bytes) -> None:
    model = AIModelBase("v1", tmp_path)
    (model.model_dir() / "model.json").write_bytes(content)
    with pytest.raises(LoadError, match=r"'v1' does not load: its model\.json is no"):
        _ = model.model_info


def test_a_model_json_that_is_a_directory_says_so_without_a_path(tmp_path: Path) -> None:
    model = AIModelBase("v1", tmp_path)
    model.model_dir("model.json")
    with pytest.raises(LoadError, match="Is a directory") as caught:
        _ = model.model_info
    assert str(tmp_path) not in str(caught.value)


def test_what_a_class_does_not_have_is_not_supported(tmp_path: Path) -> None:
    model = AIModelBase("v1", tmp_path)
    for call in (model.train, model.predict, lambda: model.log(name="other")):
        with pytest.raises(NotSupportedError, match="AIModelBase has no"):
            call()


def test_dispose_says_so() -> None:
    model = AIModelBase()
    assert not model.disposed
    model.load()
    model.dispose()
    assert model.disposed


@pytest.mark.parametrize("names", [("..",), ("a", "../.."), ("/etc",), ("a\0b",), ("a", "b/../../..")])
def test_model_dir_never_leads_out(tmp_path: Path, names: tuple[str, ...]) -> None:
    model = AIModelBase("v1", tmp_path)
    with pytest.raises(InvalidArgument, match="leads out of"):
        model.model_dir(*names, clear=True)
    assert everything(tmp_path) == []


def test_model_dir_makes_and_clears_what_it_is_asked_for(tmp_path: Path) -> None:
    model = AIModelBase("v1", tmp_path)
    deep = model.model_dir("a", "b/c")
    assert deep == tmp_path / "models" / "v1" / "a" / "b" / "c"
    (deep / "file").write_bytes(b"")
    assert everything(model.model_dir("a", clear=True)) == []
    assert not model.model_dir("x", mkdir=False).exists()


def test_clearing_follows_no_link_out_of_the_directory(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"")
    model = AIModelBase("v1", tmp_path / "data")
    (model.model_dir() / "link").symlink_to(outside)
    model.model_dir(clear=True)
    assert everything(outside) == ["file"]


def test_a_full_disk_is_a_sentence_without_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(step: str) -> None:
        if step.startswith("fsync"):
            raise OSError(28, "No space left on device", "/secret/path")

    monkeypatch.setattr(disk, "failpoint", full)
    with pytest.raises(StorageFull, match="initializing version 'v1': no room") as caught:
        AIModelBase("v1", tmp_path).initialize()
    assert "/" not in str(caught.value)


# As 1.0 was used


class LoadsInInit(AIModelBase):
    """As 1.0's README has it: no load(), the weights are read where the instance is made."""

    def __init__(self, version: str | None = None, datapath: str | None = None) -> None:
        super().__init__(version, datapath)
        path = self.model_dir() / "weights.json"
        self.weights = json.loads(path.read_text()) if path.exists() else None

    def train(self, **kwargs: Any) -> Any:
        self.trainning_logger.append(progress=100, stage="done")
        (self.model_dir() / "weights.json").write_text(json.dumps(self.model_info["layers"]))
        return {"trained": True}

    def predict(self, binary_data: bytes | None = None, **kwargs: Any) -> Any:
        return self.weights


class TakesAnything(AIModelBase):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen = (args, kwargs)


class TakesNothing(AIModelBase):
    def __init__(self) -> None:
        super().__init__()


class TakesOtherThings(AIModelBase):
    def __init__(self, version: str, hidden: int = 3) -> None:
        super().__init__(version)
        self.hidden = hidden


class ForgetsSuper(AIModelBase):
    def __init__(self, version: str | None = None, datapath: str | None = None) -> None:
        self.data = self.model_dir(mkdir=False)


class TakesPositions(AIModelBase):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)


def test_a_model_of_1_0_works_alone(tmp_path: Path) -> None:
    model = LoadsInInit("v1", str(tmp_path))
    model.initialize(layers=[1, 2])
    assert model.train() == {"trained": True}
    assert [record["stage"] for record in model.log()] == ["done"]
    assert (tmp_path / "models" / "v1" / "trainning.log").is_file()
    assert LoadsInInit("v1", str(tmp_path)).predict() == [1, 2]


def test_a_model_may_keep_a_log_of_its_own(tmp_path: Path) -> None:
    from aipod.trainlog import TrainningLogger

    model = LoadsInInit("v1", str(tmp_path))
    model.trainning_logger = TrainningLogger(tmp_path / "elsewhere")
    model.training_log.append(1)
    assert len(model.log()) == 1
    assert (tmp_path / "elsewhere").is_file()


@pytest.mark.parametrize(
    "cls", [AIModelBase, TakesAnything, TakesNothing, TakesOtherThings, ForgetsSuper, TakesPositions]
)
def test_every_way_to_write_init_finds_the_data_where_it_lies(tmp_path: Path, cls: type[AIModelBase]) -> None:
    directory = tmp_path / "revisions" / "v1" / "4"
    directory.mkdir(parents=True)
    model = construct(cls, Place.revision(directory), "v1", tmp_path)
    assert model.model_dir() == directory


def test_versions_and_datapaths_are_given_by_name_as_in_1_0(tmp_path: Path) -> None:
    model = construct(TakesAnything, Place.in_place(tmp_path, "v1"), "v1", tmp_path)
    assert model.seen == ((), {"version": "v1", "datapath": str(tmp_path)})
    assert (model.version, model.datapath) == ("v1", tmp_path)


def test_a_class_that_forgets_super_has_its_version_all_the_same(tmp_path: Path) -> None:
    model = construct(ForgetsSuper, Place.in_place(tmp_path, "v1"), "v1", tmp_path)
    assert (model.version, model.disposed, model.data) == ("v1", False, tmp_path / "models" / "v1")


def test_an_init_that_wants_more_does_not_load(tmp_path: Path) -> None:
    class Demanding(AIModelBase):
        def __init__(self, hidden: int) -> None: ...

    with pytest.raises(LoadError, match=r"Demanding.__init__ .*'hidden'.*defaults"):
        construct(Demanding, Place.in_place(tmp_path, "v1"), "v1", tmp_path)


def test_what_init_raises_passes_unchanged(tmp_path: Path) -> None:
    class Broken(AIModelBase):
        def __init__(self, **kwargs: Any) -> None:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        construct(Broken, Place.in_place(tmp_path, "v1"), "v1", tmp_path)


# At the places of a store


def initialized(store: Store, cls: type[AIModelBase], **parameters: Any) -> int:
    with store.writer("v1", "initialize"), store.stage("v1") as staging:
        construct(cls, staging.place, "v1", store.root).initialize(**parameters)
        return store.publish(staging, origin="initialize", parameters=parameters)


def test_a_model_of_1_0_is_initialized_trained_and_read_in_revisions(store: Store) -> None:
    assert initialized(store, LoadsInInit, layers=[3]) == 1
    job = store.jobs.new_id("v1")
    with store.writer("v1", "train", job), store.lease("v1") as source:
        running = store.jobs.start(job)
        with store.stage("v1", job, source) as staging:
            construct(LoadsInInit, staging.place, "v1", store.root).train()
            assert store.publish(staging, origin="train", parent=1) == 2
        running.finish("succeeded", revision=2)
    with store.lease("v1") as lease:
        model = construct(LoadsInInit, lease.place, "v1", store.root)
        assert model.predict() == [3]
        assert model.model_dir() == store.root / "revisions" / "v1" / "2"
        assert [record["stage"] for record in model.log()] == ["done"]
    # A class alone finds them under the name that 1.0 gave them.
    assert LoadsInInit("v1", str(store.root)).predict() == [3]


def test_an_initialize_that_keeps_nothing_leaves_model_json_all_the_same(store: Store) -> None:
    class Silent(AIModelBase):
        def initialize(self, binary_data: bytes | None = None, **kwargs: Any) -> Any:
            (self.model_dir() / "data").write_bytes(binary_data or b"")

    parameters = {"layers": [1], "table": numpy.zeros(2), "binary_data": b"x"}
    initialized(store, Silent, **parameters)
    with store.lease("v1") as lease:
        model = construct(Silent, lease.place, "v1", store.root)
        assert model.model_info == {"layers": [1]}
        assert (lease.directory / "data").read_bytes() == b"x"


@pytest.mark.parametrize("alone", [False, True])
def test_what_was_published_is_never_cleared(store: Store, alone: bool) -> None:
    initialized(store, AIModelBase, layers=[3])
    with store.lease("v1") as lease:
        before = everything(lease.directory)
        model = AIModelBase("v1", store.root) if alone else construct(AIModelBase, lease.place, "v1", store.root)
        assert model.model_dir() == lease.directory
        for change in (lambda: model.model_dir(clear=True), lambda: model.initialize(layers=[4])):
            with pytest.raises(StorageError, match="published revision"):
                change()
        assert everything(lease.directory) == before


def test_a_class_alone_does_not_train_into_what_was_published(store: Store) -> None:
    initialized(store, LoadsInInit, layers=[3])
    with store.lease("v1") as lease:
        before = everything(lease.directory)
        with pytest.raises(StorageError, match=r"training log of version 'v1': it belongs to a published revision"):
            LoadsInInit("v1", str(store.root)).train()
        assert everything(lease.directory) == before
        # A loaded instance writes to the log that its server gave it.
        construct(LoadsInInit, lease.place, "v1", store.root).training_log.append(1)
        assert manifest.damage(lease.directory) == []


def test_a_model_may_cache_in_a_revision_and_clear_its_cache(store: Store) -> None:
    initialized(store, AIModelBase, layers=[3])
    with store.lease("v1") as lease:
        model = construct(AIModelBase, lease.place, "v1", store.root)
        (model.model_dir("cache") / "file").write_bytes(b"")
        assert everything(model.model_dir("cache", clear=True)) == []


def test_an_instance_without_data_gets_a_directory_when_it_asks_and_loses_it(store: Store) -> None:
    scratch = store.scratch("v1")
    model = construct(AIModelBase, scratch.place, "v1", store.root)
    assert model.log() == []
    with pytest.raises(NotInitialized):
        _ = model.model_info
    assert everything(store.root / "staging") == []
    (model.model_dir("cache") / "file").write_bytes(b"")
    model.training_log.append(1)
    assert len(model.log()) == 1
    assert len(list((store.root / "staging").iterdir())) == 1
    scratch.close()
    scratch.close()
    assert everything(store.root / "staging") == []
    assert store.versions() == []

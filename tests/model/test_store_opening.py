"""Opening a data path: new ones, those of 1.0, those that cannot be used, and what a crash left."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
from store_world import litter, old_model, publish, said

from aipod.errors import InvalidArgument, StorageError, VersionNotFound
from aipod.model import AIModelBase, disk, leases, manifest, staging
from aipod.model.layout import Layout
from aipod.model.locks import Lock, try_acquire
from aipod.model.store import Store


@pytest.fixture(params=["renameat2", "journal"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "journal":
        monkeypatch.setattr(disk, "exchange", lambda first, second: False)


def opened(path: Path) -> Store:
    store = Store(path)
    store.open()
    return store


def test_a_new_path_gets_its_layout(tmp_path: Path) -> None:
    opened(tmp_path / "a" / "data").open()
    root = tmp_path / "a" / "data"
    assert sorted(path.name for path in root.iterdir()) == ["format.json", "jobs", "models", "revisions", "staging"]


@pytest.mark.usefixtures("_way")
def test_a_directory_of_1_0_becomes_revision_1(tmp_path: Path) -> None:
    old_model(tmp_path)
    store = opened(tmp_path)
    assert (store.versions(), store.current("v1"), said(store, "v1")) == (["v1"], 1, "old")
    assert os.readlink(tmp_path / "models" / "v1") == "../revisions/v1/1"
    (revision,) = store.revisions("v1")
    assert (revision.origin, revision.live, "manifest.json" in revision.manifest["files"]) == ("adopted", True, False)
    assert store.log_path("v1").read_text() == '{"progress": 100}\n'
    assert AIModelBase("v1", tmp_path).model_info == {"层": 2}
    assert litter(tmp_path) == []
    assert publish(store, "v1", "new", "train") == 2


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("use", ["current", "lease", "writer", "delete"])
def test_a_directory_that_comes_later_is_adopted_when_it_is_met(tmp_path: Path, use: str) -> None:
    store = opened(tmp_path)
    old_model(tmp_path)
    assert store.versions() == ["v1"]
    if use == "current":
        assert store.current("v1") == 1
    elif use == "lease":
        assert said(store, "v1") == "old"
    elif use == "writer":
        assert publish(store, "v1", "new") == 2
        assert store.rollback("v1") == 1
    else:
        store.delete("v1")
        assert store.versions() == []
    assert litter(tmp_path) == []


@pytest.mark.usefixtures("_way")
def test_a_directory_in_place_of_a_link_becomes_the_next_revision(tmp_path: Path) -> None:
    store = opened(tmp_path)
    publish(store, "v1", "served")
    (tmp_path / "models" / "v1").unlink()
    old_model(tmp_path, "v1", "copied in")
    assert store.current("v1") == 2
    assert said(store, "v1") == "copied in"
    assert store.rollback("v1") == 1
    assert said(store, "v1") == "served"


def test_a_reader_who_meets_the_gap_of_an_adoption_finishes_it(tmp_path: Path) -> None:
    store = opened(tmp_path)
    directory = old_model(tmp_path)
    (tmp_path / "revisions" / "v1").mkdir()
    (tmp_path / "revisions" / "v1" / ".adopting").write_text("1")
    directory.rename(tmp_path / "revisions" / "v1" / "1")
    with store.lease("v1") as lease:
        assert (lease.directory / "a.bin").read_text() == "old"
    assert litter(tmp_path) == []


def test_a_directory_whose_name_is_no_version_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old_model(tmp_path, "my model")
    with caplog.at_level(logging.WARNING, "aipod.store"):
        store = opened(tmp_path)
    assert [record.message for record in caplog.records if "my model" in record.message] != []
    assert store.versions() == []
    assert (tmp_path / "models" / "my model" / "a.bin").read_text() == "old"


def test_a_manifest_of_the_1_0_models_own_stays(tmp_path: Path) -> None:
    (old_model(tmp_path) / "manifest.json").write_text('["mine"]')
    store = opened(tmp_path)
    with store.lease("v1") as lease:
        assert (lease.directory / "manifest.json").read_text() == '["mine"]'
        assert "manifest.json" in (manifest.read(lease.directory) or {})["files"]


def test_a_newer_layout_is_refused_and_nothing_touched(tmp_path: Path) -> None:
    (tmp_path / "format.json").write_text('{"layout": 2}')
    with pytest.raises(StorageError, match="a newer AIPOD wrote it"):
        Store(tmp_path).open()
    assert [path.name for path in tmp_path.iterdir()] == ["format.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"layout": "x"}'])
def test_a_layout_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "format.json").write_text(text)
    with pytest.raises(StorageError, match="opening the data path"):
        Store(tmp_path).open()


@pytest.mark.parametrize("path", ["/proc/nope", "file", "file/below"])
def test_a_path_that_cannot_be_used_is_refused_without_being_named(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="opening the data path") as caught:
        Store(tmp_path / path).open()
    assert str(tmp_path) not in str(caught.value)
    assert "/proc" not in str(caught.value)


def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(tmp_path)
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and real(path, mode))
    with pytest.raises(StorageError, match="Permission denied"):
        store.open()


def test_one_version_that_cannot_be_recovered_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_model(tmp_path, "v1")
    old_model(tmp_path, "v2")

    def refuse(step: str) -> None:
        if "models/v1/" in step:
            raise PermissionError(13, "Permission denied", "/secret")

    monkeypatch.setattr(disk, "failpoint", refuse)
    store = opened(tmp_path)
    assert said(store, "v2") == "old"
    with pytest.raises(StorageError, match="finding version 'v1': Permission denied") as caught:
        store.current("v1")
    assert "secret" not in str(caught.value)
    monkeypatch.undo()
    assert said(store, "v1") == "old"


def test_what_dead_processes_left_is_removed_and_what_is_alive_stays(store: Store) -> None:
    publish(store, "v1", "one")
    dead = store.root / "staging" / "v1@dead"
    (dead / "deep").mkdir(parents=True)
    (dead / "deep" / "file").write_text("")
    dead.chmod(0o500)
    (store.root / "models" / ".v1").symlink_to("../revisions/v1/7")
    (store.root / "models" / ".keep").write_text("the user's")
    (store.root / "models" / ".link").symlink_to("/elsewhere")
    (store.root / "revisions" / "v9").mkdir()
    with store.writer("v2", "initialize"), store.stage("v2") as private, store.scratch("v3") as scratch:
        scratch.place.prepare()
        Store(store.root).open()
        assert private.directory.is_dir()
        assert scratch.place.directory().is_dir()
        assert not dead.exists()
        store.publish(private, origin="initialize")
    assert store.versions() == ["v1", "v2"]
    assert sorted(path.name for path in (store.root / "models").iterdir()) == [".keep", ".link", "v1", "v2"]
    assert not (store.root / "revisions" / "v9").exists()


def test_nobody_sweeps_between_the_making_of_a_private_directory_and_its_lock(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[bool] = []

    def look(path: Path, *, exclusive: bool) -> Lock | None:
        looks.append(path.is_dir() and try_acquire(store.root / "staging", exclusive=True) is None)
        return try_acquire(path, exclusive=exclusive)

    monkeypatch.setattr(staging, "try_acquire", look)
    with store.writer("v1", "initialize"), store.stage("v1"):
        assert looks == [True]


def test_a_deletion_that_was_begun_is_finished(store: Store) -> None:
    publish(store, "v1", "one")
    (store.root / "revisions" / "v1" / ".deleting").write_bytes(b"")
    assert store.versions() == []
    Store(store.root).open()
    assert litter(store.root) == []
    assert list((store.root / "revisions").iterdir()) == []
    assert publish(store, "v1", "two") == 1


def test_a_version_that_is_going_away_is_not_leased(store: Store) -> None:
    publish(store, "v1", "one")
    layout = Layout(store.root)
    # Between the look at what is unfinished and the lock another process has begun to delete it, and died.
    layout.deleting("v1").write_bytes(b"")
    with pytest.raises(VersionNotFound):
        leases.lease(layout, "v1", None, lambda: layout.root)


def test_a_writer_finishes_a_deletion_before_it_begins(store: Store) -> None:
    publish(store, "v1", "one")
    (store.root / "revisions" / "v1" / ".deleting").write_bytes(b"")
    assert publish(store, "v1", "two") == 1
    assert said(store, "v1") == "two"


def test_format_json_says_which_layout_it_is(store: Store) -> None:
    assert json.loads((store.root / "format.json").read_text()) == {"layout": 1}


def test_an_alias_and_a_version_never_share_a_name(store: Store) -> None:
    publish(store, "v1", "one")
    store.set_alias("prod", "v1")
    with pytest.raises(InvalidArgument, match="alias of version 'v1'"):
        store.writer("prod", "initialize")
    with pytest.raises(InvalidArgument, match="is a version"):
        store.set_alias("v1", "v1")

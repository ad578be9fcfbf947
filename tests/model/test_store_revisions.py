"""Publishing, leasing, rolling back, collecting and deleting, in one process."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

import pytest
from store_world import litter, publish, said, write_files

from aipod.errors import BadVersionName, Conflict, InvalidArgument, StorageError, TrainingInProgress, VersionNotFound
from aipod.model import disk, manifest
from aipod.model.store import Store


def test_making_a_store_touches_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    assert store.versions() == []
    assert store.current("v1") is None
    assert store.aliases() == {}
    with pytest.raises(VersionNotFound):
        store.lease("v1")
    assert list(tmp_path.iterdir()) == []


def test_a_published_revision_is_live_and_linked(store: Store) -> None:
    assert publish(store, "v1", "one") == 1
    assert publish(store, "v1", "two") == 2
    assert (store.current("v1"), store.versions(), said(store, "v1")) == (2, ["v1"], "two")
    assert os.readlink(store.root / "models" / "v1") == "../revisions/v1/2"
    assert (store.root / "models" / "v1" / "a.bin").read_text() == "two"
    assert litter(store.root) == []


def test_a_training_starts_with_what_was_live_and_its_own_manifest(store: Store) -> None:
    publish(store, "v1", "one")
    with store.lease("v1") as lease:
        (lease.directory / "weights" / "kept").write_text("kept")
        (lease.directory / "link").symlink_to("a.bin")
    assert publish(store, "v1", "two", "train") == 2
    with store.lease("v1") as lease:
        assert (lease.directory / "weights" / "kept").read_text() == "kept"
        assert os.readlink(lease.directory / "link") == "a.bin"
        entry = manifest.read(lease.directory)
    assert entry is not None
    assert (entry["revision"], entry["parent"], entry["origin"], entry["result"]) == (2, 1, "train", "two")
    assert entry["job"] == store.jobs.of("v1")[0].id
    assert sorted(entry["files"]) == [
        "a.bin",
        "link",
        "model.json",
        "weights/b.bin",
        "weights/kept",
        "weights/模型.bin",
    ]


def test_revisions_tell_what_they_are(store: Store) -> None:
    publish(store, "v1", "one")
    publish(store, "v1", "seven!!", "train")
    first, second = store.revisions("v1")
    assert (first.number, first.live, first.origin) == (1, False, "initialize")
    assert (second.number, second.live, second.origin) == (2, True, "train")
    assert first.manifest["parameters"] == {"value": "one"}
    assert second.size_bytes == 3 * 7 + len(json.dumps({"value": "one"}, indent=4))
    assert first.created < second.created


def test_a_model_may_have_a_manifest_of_its_own(store: Store) -> None:
    with store.writer("v1", "initialize"), store.stage("v1") as staging:
        (staging.directory / "manifest.json").write_text('{"name": "mine"}')
        store.publish(staging, origin="initialize")
    with store.writer("v1", "train"), store.lease("v1") as source, store.stage("v1", source=source) as staging:
        assert sorted(path.name for path in staging.directory.iterdir()) == ["manifest.json", "model.json"]
        store.publish(staging, origin="train")
    with store.lease("v1") as lease:
        assert json.loads((lease.directory / "manifest.json").read_text()) == {"name": "mine"}
        assert manifest.damage(lease.directory) == []
        entry = manifest.read(lease.directory)
        assert entry is not None
        assert (entry["revision"], "manifest.json" in entry["files"]) == (2, True)


def test_a_result_that_cannot_be_kept_is_left_out(store: Store) -> None:
    for result in ({"a": object()}, "x" * 100_000):
        with store.writer("v1", "train"), store.stage("v1") as staging:
            store.publish(staging, origin="train", result=result)
        assert store.revisions("v1")[-1].manifest["result"] is None


def test_damage_is_found(store: Store) -> None:
    publish(store, "v1", "one")
    with store.lease("v1") as lease:
        (lease.directory / "added").write_text("by the model")
        assert manifest.damage(lease.directory) == []
        (lease.directory / "a.bin").write_text("eno")
        (lease.directory / "weights" / "b.bin").unlink()
        assert manifest.damage(lease.directory) == ["a.bin is not what was published", "weights/b.bin cannot be read"]


def test_what_is_not_published_leaves_nothing(store: Store) -> None:
    with pytest.raises(KeyError), store.writer("v1", "initialize"), store.stage("v1") as staging:
        write_files(staging.directory, "one")
        raise KeyError
    assert litter(store.root) == []
    assert list((store.root / "revisions").iterdir()) == []
    assert store.current("v1") is None


def test_a_failed_publication_leaves_the_old_revision(store: Store) -> None:
    publish(store, "v1", "one")
    with pytest.raises(StorageError, match="gone"), store.writer("v1", "train"), store.stage("v1") as staging:
        shutil.rmtree(staging.directory)
        store.publish(staging, origin="train")
    assert said(store, "v1") == "one"


def test_a_staging_directory_is_published_once(store: Store) -> None:
    with store.writer("v1", "initialize"), store.stage("v1") as staging:
        store.publish(staging, origin="initialize")
        with pytest.raises(StorageError, match="gone"):
            store.publish(staging, origin="initialize")
    assert store.current("v1") == 1


def test_one_writer_at_a_time_and_others_are_told_who(store: Store) -> None:
    with store.writer("v1", "initialize"):
        with pytest.raises(Conflict, match="another initialize of it is running"), store.writer("v1", "train", "job"):
            raise AssertionError
        with store.writer("v2", "initialize"):
            pass
    with store.writer("v1", "train", "v1@job"):
        with pytest.raises(TrainingInProgress) as caught, store.writer("v1", "initialize"):
            raise AssertionError
        assert caught.value.job == "v1@job"
    with store.writer("v1", "initialize"):
        pass


def test_readers_are_served_while_a_writer_works(store: Store) -> None:
    publish(store, "v1", "one")
    with store.writer("v1", "train", "job"):
        assert said(store, "v1") == "one"
        publish(store, "v2", "other")
        assert store.rollback("v1", 1) == 1


def test_rollback_goes_to_the_newest_before_the_live_one_or_to_the_one_that_is_named(store: Store) -> None:
    for value in ("one", "two", "three"):
        publish(store, "v1", value)
    assert (store.rollback("v1"), said(store, "v1")) == (2, "two")
    assert (store.rollback("v1", 3), said(store, "v1")) == (3, "three")
    assert store.rollback("v1", 3) == 3
    assert (store.rollback("v1", 1), said(store, "v1")) == (1, "one")
    with pytest.raises(InvalidArgument, match="no revision before 1"):
        store.rollback("v1")
    with pytest.raises(VersionNotFound, match="revision 9"):
        store.rollback("v1", 9)
    with pytest.raises(VersionNotFound):
        store.rollback("v2")
    assert publish(store, "v1", "four") == 4


def test_collection_keeps_the_newest_the_live_and_the_leased(tmp_path: Path) -> None:
    store = Store(tmp_path, keep_revisions=2)
    store.open()
    for value in "abcdef":
        publish(store, "v1", value)
    store.rollback("v1", 2)
    with store.lease("v1", 3) as lease:
        assert store.collect("v1") == [1, 4]
        assert manifest.damage(lease.directory) == []
    assert store.collect("v1") == [3]
    assert [revision.number for revision in store.revisions("v1")] == [2, 5, 6]
    assert store.collect("v1") == store.collect("never") == []
    assert litter(tmp_path) == []


def test_a_number_is_never_given_twice(tmp_path: Path) -> None:
    store = Store(tmp_path, keep_revisions=1)
    store.open()
    publish(store, "v1", "one")
    publish(store, "v1", "two")
    store.rollback("v1", 1)
    store.collect("v1")
    assert publish(store, "v1", "three") == 3


def test_a_lease_is_of_the_live_revision_or_of_the_one_that_is_named(store: Store) -> None:
    publish(store, "v1", "one")
    publish(store, "v1", "two")
    with store.lease("v1") as live, store.lease("v1", 1) as old:
        assert (live.number, old.number) == (2, 1)
        assert old.directory == store.root / "revisions" / "v1" / "1"
    with pytest.raises(VersionNotFound):
        store.lease("v1", 3)
    old.close()


def test_a_version_is_deleted_whole_and_can_be_made_anew(store: Store) -> None:
    publish(store, "v1", "one")
    publish(store, "v1", "two", "train")
    publish(store, "v10", "other", "initialize")
    store.delete("v1")
    assert store.versions() == ["v10"]
    assert sorted(path.name for path in (store.root / "revisions").iterdir()) == ["v10"]
    assert store.jobs.of("v1") == []
    assert litter(store.root) == []
    with pytest.raises(VersionNotFound):
        store.delete("v1")
    assert publish(store, "v1", "three") == 1


def test_a_version_in_use_is_not_deleted(store: Store) -> None:
    publish(store, "v1", "one")
    publish(store, "v1", "two")
    with store.lease("v1", 1), pytest.raises(Conflict, match="in use"):
        store.delete("v1")
    with store.writer("v1", "initialize"), pytest.raises(Conflict, match="initialize"):
        store.delete("v1")
    with store.writer("v1", "train", "job"), pytest.raises(TrainingInProgress):
        store.delete("v1")
    store.set_alias("prod", "v1")
    with pytest.raises(InvalidArgument, match="the alias 'prod' names version 'v1'; drop the alias first"):
        store.delete("v1")
    assert said(store, "v1") == "two"


def test_a_link_that_leads_elsewhere_is_refused_and_never_followed(store: Store, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    publish(store, "v2", "two")
    for text in (str(outside), "../revisions/v2/1", "../revisions/../../outside/1", "v2"):
        link = store.root / "models" / "v1"
        link.unlink(missing_ok=True)
        link.symlink_to(text)
        for use in (store.current, store.lease, store.delete, store.rollback):
            with pytest.raises(StorageError, match="leads elsewhere") as caught:
                use("v1")
            assert str(tmp_path) not in str(caught.value)
        assert store.versions() == ["v2"]
    assert (outside / "file").read_text() == "precious"
    assert said(store, "v2") == "two"


def test_a_link_to_a_revision_that_is_gone_is_no_version(store: Store) -> None:
    publish(store, "v1", "one")
    shutil.rmtree(store.root / "revisions" / "v1" / "1")
    assert store.current("v1") is None
    assert store.versions() == []
    with pytest.raises(VersionNotFound):
        store.lease("v1")


def test_every_door_checks_the_name(store: Store) -> None:
    doors = (
        store.current,
        store.lease,
        store.revisions,
        store.rollback,
        store.delete,
        store.collect,
        store.scratch,
        store.stage,
        store.log_path,
        lambda name: store.writer(name, "initialize"),
        lambda name: store.set_alias(name, "v1"),
        lambda name: store.set_alias("v1", name),
    )
    for door in doors:
        with pytest.raises(BadVersionName):
            door("../victim")


def test_a_reader_during_many_swaps_and_collections_always_gets_a_whole_revision(tmp_path: Path) -> None:
    store = Store(tmp_path, keep_revisions=1)
    store.open()
    publish(store, "v1", "0")
    done = threading.Event()
    seen: list[int] = []
    errors: list[BaseException] = []

    def read() -> None:
        try:
            while not done.is_set() or not seen:
                seen.append(int(said(store, "v1")))
        except BaseException as error:
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(1, 40):
        publish(store, "v1", str(number))
        store.collect("v1")
    done.set()
    for reader in readers:
        reader.join()
    assert errors == []
    assert set(seen) <= set(range(40))


def test_steps_have_names_that_a_test_can_find(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    monkeypatch.setattr(disk, "failpoint", steps.append)
    publish(store, "v1", "one")
    order = [
        steps.index(step) for step in ("rename revisions/v1/1", "fsync data/revisions/v1", "rename data/models/v1")
    ]
    assert order == sorted(order)
    assert steps[-1] == f"fsync {'/'.join((store.root / 'models').parts[-3:])}"
    for name in ("a.bin", "weights/b.bin", "model.json"):
        assert any(step.startswith("fsync") and step.endswith(name) for step in steps[: order[0]]), name

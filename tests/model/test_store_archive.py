"""One revision as one zip file, and what is not let in."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from store_world import litter, old_model, publish, said

from aipod.errors import Conflict, InvalidArgument, StorageError, StorageFull, VersionNotFound
from aipod.model import manifest
from aipod.model.store import Store

Files = dict[str, bytes]


def exported(store: Store, version: str = "v1", revision: int | None = None) -> bytes:
    target = io.BytesIO()
    store.export(version, revision, target)
    return target.getvalue()


def zipped(files: Files) -> io.BytesIO:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as package:
        for name, data in files.items():
            package.writestr(name, data)
    return target


def unzipped(content: bytes) -> Files:
    with zipfile.ZipFile(io.BytesIO(content)) as package:
        return {name: package.read(name) for name in package.namelist()}


def test_what_is_exported_is_imported_as_a_new_revision(store: Store, tmp_path: Path) -> None:
    publish(store, "v1", "one")
    publish(store, "v1", "two", "train")
    with store.lease("v1") as lease:
        (lease.directory / "cache").write_text("not published")
    store.export("v1", None, tmp_path / "v1.zip")
    store.export("v1", 1, tmp_path / "old.zip")
    assert sorted(path.name for path in tmp_path.glob("*")) == ["data", "old.zip", "v1.zip"]

    other = Store(tmp_path / "other")
    other.open()
    assert other.import_zip("新", tmp_path / "v1.zip") == 1
    assert other.import_zip("新", tmp_path / "old.zip") == 2
    assert said(other, "新") == "one"
    assert other.rollback("新") == 1
    assert said(other, "新") == "two"
    first, second = other.revisions("新")
    assert (first.origin, second.manifest["parameters"]) == ("imported", {"value": "one"})
    with other.lease("新", 1) as lease:
        assert not (lease.directory / "cache").exists()


def test_the_archive_is_readable_without_aipod(store: Store) -> None:
    publish(store, "v1", "one")
    files = unzipped(exported(store))
    assert sorted(files) == [
        "files/a.bin",
        "files/model.json",
        "files/weights/b.bin",
        "files/weights/模型.bin",
        "manifest.json",
    ]
    assert json.loads(files["manifest.json"])["revision"] == 1


def test_an_adopted_revision_is_exported_with_digests(tmp_path: Path) -> None:
    old_model(tmp_path)
    store = Store(tmp_path)
    store.open()
    store.import_zip("v2", io.BytesIO(exported(store)))
    assert said(store, "v2") == "old"


def test_a_link_within_a_revision_becomes_a_file_and_others_are_refused(store: Store, tmp_path: Path) -> None:
    def linking(text: str) -> None:
        with store.writer("v1", "initialize"), store.stage("v1") as staging:
            (staging.directory / "file").write_text("content")
            (staging.directory / "link").symlink_to(text)
            store.publish(staging, origin="initialize")

    linking("file")
    assert unzipped(exported(store))["files/link"] == b"content"
    (tmp_path / "secret").write_text("secret")
    for text in (str(tmp_path / "secret"), "../../../../secret", "nowhere", "."):
        linking(text)
        with pytest.raises(StorageError, match="link link does not lead"):
            exported(store)


def test_a_name_that_no_zip_file_can_hold_is_said(store: Store) -> None:
    with store.writer("v1", "initialize"), store.stage("v1") as staging:
        (staging.directory / os.fsdecode(b"\xff.bin")).write_text("content")
        store.publish(staging, origin="initialize")
    with store.lease("v1") as lease:
        assert manifest.damage(lease.directory) == []
    with pytest.raises(StorageError, match="no UTF-8"):
        exported(store)


def test_a_damaged_revision_is_not_exported(store: Store, tmp_path: Path) -> None:
    publish(store, "v1", "one")
    with store.lease("v1") as lease:
        (lease.directory / "a.bin").write_text("eno")
    with pytest.raises(StorageError, match=r"a\.bin is not what was published"):
        store.export("v1", None, tmp_path / "v1.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    with pytest.raises(VersionNotFound):
        store.export("v2", None, tmp_path / "v2.zip")


def edit(change: Callable[[dict[str, Any], Files], None]) -> Callable[[Files], io.BytesIO]:
    def edited(files: Files) -> io.BytesIO:
        entry = json.loads(files["manifest.json"])
        change(entry, files)
        return zipped({**files, "manifest.json": json.dumps(entry).encode()})

    return edited


def rename_to(name: str) -> Callable[[Files], io.BytesIO]:
    def change(entry: dict[str, Any], files: Files) -> None:
        entry["files"][name] = entry["files"].pop("a.bin")
        files[f"files/{name}"] = files.pop("files/a.bin")

    return edit(change)


def link_member(files: Files) -> io.BytesIO:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as package:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = ((stat.S_IFLNK if name == "files/a.bin" else stat.S_IFREG) | 0o644) << 16
            package.writestr(info, data)
    return target


def twice(files: Files) -> io.BytesIO:
    target = zipped(files)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(target, "a") as package:
        package.writestr("files/a.bin", b"other")
    return target


def broken(files: Files) -> io.BytesIO:
    content = bytearray(zipped(files).getvalue())
    place = content.index(b"one")
    content[place : place + 3] = b"eno"
    return io.BytesIO(bytes(content))


HOSTILE: dict[str, Callable[[Files], io.BytesIO]] = {
    "no zip": lambda files: io.BytesIO(b"no zip"),
    "cut short": lambda files: io.BytesIO(zipped(files).getvalue()[:-40]),
    "empty": lambda files: zipped({}),
    "no manifest": lambda files: zipped({k: v for k, v in files.items() if k != "manifest.json"}),
    "manifest of another": lambda files: zipped({**files, "manifest.json": b'{"files": {}}'}),
    "manifest is no JSON": lambda files: zipped({**files, "manifest.json": b"\xff"}),
    "manifest too deep": lambda files: zipped({**files, "manifest.json": b"[" * 100_000}),
    "manifest without entries": edit(lambda entry, files: entry.update(files={"a.bin": 3})),
    "parameters are no object": edit(lambda entry, files: entry.update(parameters=[1])),
    "a member too many": lambda files: zipped({**files, "files/extra": b""}),
    "a member beside": lambda files: zipped({**files, "extra": b""}),
    "a member missing": lambda files: zipped({k: v for k, v in files.items() if k != "files/a.bin"}),
    "a directory": lambda files: zipped({**files, "files/dir/": b""}),
    "a link": link_member,
    "twice": twice,
    "parent": rename_to("../../../../victim"),
    "absolute": rename_to("/tmp/victim"),
    "backslash": rename_to("..\\victim"),
    "not normal": rename_to("x//a"),
    "dot": rename_to("./a"),
    "nothing": rename_to(""),
    "file and directory": rename_to("weights"),
    "size": edit(lambda entry, files: entry["files"]["a.bin"].update(bytes=2)),
    "size is no number": edit(lambda entry, files: entry["files"]["a.bin"].update(bytes="3")),
    "digest": edit(lambda entry, files: entry["files"]["a.bin"].update(sha256="0" * 64)),
    "no digest": edit(lambda entry, files: entry["files"]["a.bin"].pop("sha256")),
    "content": broken,
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", HOSTILE)
def test_an_archive_that_lies_is_refused_and_changes_nothing(store: Store, tmp_path: Path, kind: str) -> None:
    publish(store, "v1", "one")
    source = HOSTILE[kind](unzipped(exported(store)))
    source.seek(0)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InvalidArgument, match="the archive") as caught:
        store.import_zip("v1", source)
    assert str(tmp_path) not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
    assert (store.current("v1"), litter(store.root)) == (1, [])


def test_an_archive_that_would_not_fit_is_refused_before_it_is_unpacked(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store, "v1", "one")
    content = exported(store)
    usage = shutil.disk_usage(store.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5))
    with pytest.raises(StorageFull) as caught:
        store.import_zip("v1", io.BytesIO(content))
    assert caught.value.missing_bytes == store.revisions("v1")[0].size_bytes - 5
    assert litter(store.root) == []


def test_an_import_is_a_writer(store: Store) -> None:
    publish(store, "v1", "one")
    content = exported(store)
    with store.writer("v1", "initialize"), pytest.raises(Conflict):
        store.import_zip("v1", io.BytesIO(content))
    with pytest.raises(StorageError, match="No such file"):
        store.import_zip("v1", Path("/nowhere/x.zip"))
    assert len(manifest.read(store.root / "revisions" / "v1" / "1") or {}) > 0

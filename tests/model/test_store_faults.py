"""A disk that refuses: every step of every operation fails once, for want of room, and nothing is lost."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from store_world import litter, old_model, publish, said

from aipod.errors import StorageFull
from aipod.model import disk
from aipod.model.store import Store


def initialize(store: Store) -> None:
    publish(store, "v1", "new")


def train(store: Store) -> None:
    publish(store, "v1", "new", "train")


def rollback(store: Store) -> None:
    store.rollback("v1", 1)


def delete(store: Store) -> None:
    store.delete("v2")


def collect(store: Store) -> None:
    store.collect("v1")


def alias(store: Store) -> None:
    store.set_alias("prod", "v1")


class FullAt:
    """A disk that has no room left at one step, and room again after it."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.steps = 0

    def __call__(self, name: str) -> None:
        self.steps += 1
        if self.steps == self.step:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"/secret/{name}")


@pytest.mark.parametrize("operation", [initialize, train, rollback, delete, collect, alias])
def test_a_full_disk_at_any_step_is_said_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: Callable[[Store], None]
) -> None:
    template = Store(tmp_path / "template")
    template.open()
    publish(template, "v1", "older")
    publish(template, "v1", "old")
    publish(template, "v2", "other")
    step = 0
    while True:
        step += 1
        shutil.copytree(template.root, tmp_path / str(step), symlinks=True)
        store = Store(tmp_path / str(step), keep_revisions=1)
        store.open()
        point = FullAt(step)
        monkeypatch.setattr(disk, "failpoint", point)
        try:
            operation(store)
        except StorageFull as error:
            assert "/" not in str(error)
        finally:
            monkeypatch.undo()
        store.open()
        assert said(store, "v1") in ("old", "new", "older")
        assert litter(store.root) == []
        assert publish(store, "v1", "next") > 2
        assert said(store, "v1") == "next"
        if point.steps < point.step:
            assert step > 3, "the operation announced no steps"
            return


def test_an_adoption_that_fails_is_done_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.open()
    old_model(tmp_path)
    for step in range(1, 5):
        monkeypatch.setattr(disk, "failpoint", FullAt(step))
        with pytest.raises(StorageFull):
            store.current("v1")
        monkeypatch.undo()
        assert (tmp_path / "models" / "v1" / "a.bin").read_text() == "old"
    assert said(store, "v1") == "old"
    assert litter(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    path = tmp_path / "small"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small disk needs rights that this user has not")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_disk_that_is_really_full_keeps_the_old_revision_and_says_how_much_is_missing(small_disk: Path) -> None:
    store = Store(small_disk)
    store.open()
    with store.writer("v1", "initialize"), store.stage("v1") as staging:
        (staging.directory / "a.bin").write_bytes(b"x" * 600_000)
        store.publish(staging, origin="initialize")
    with (
        pytest.raises(StorageFull, match=r"at least [0-9]+ more bytes") as caught,
        store.writer("v1", "train"),
        store.lease("v1") as source,
    ):
        store.stage("v1", source=source)
    assert 100_000 < caught.value.missing_bytes < 600_000
    assert litter(small_disk) == []
    with store.lease("v1") as lease:
        assert (lease.directory / "a.bin").stat().st_size == 600_000
    (small_disk / "ballast").write_bytes(b"x" * 300_000)
    with pytest.raises(OSError, match="No space"):
        (small_disk / "more").write_bytes(b"x" * 400_000)
    with pytest.raises(StorageFull), store.writer("v2", "initialize"), store.stage("v2") as staging:
        store.publish(staging, origin="initialize", parameters={"text": "x" * 100_000})
    store.open()
    assert store.versions() == ["v1"]
    store.delete("v1")
    assert store.versions() == []

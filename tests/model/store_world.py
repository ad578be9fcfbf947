"""How the tests of the store write revisions and look at them; also used by processes that end on the way."""

from __future__ import annotations

import os
from pathlib import Path

import aipod
from aipod.model import manifest
from aipod.model.store import Store

# For a process of a test's own, which shall find this aipod and this module from wherever it is started.
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(Path(aipod.__file__).parents[1]), str(Path(__file__).parent)]),
}


def publish(store: Store, version: str, value: str, origin: str = "initialize") -> int:
    """Publish a revision whose files all say ``value``; ``train`` starts with a copy of the live one."""
    if origin == "initialize":
        with store.writer(version, "initialize"), store.stage(version) as staging:
            write_files(staging.directory, value)
            return store.publish(staging, origin=origin, parameters={"value": value})
    job = store.jobs.new_id(version)
    with store.writer(version, "train", job), store.lease(version) as source:
        running = store.jobs.start(job)
        with store.stage(version, job, source) as staging:
            write_files(staging.directory, value)
            number = store.publish(staging, origin=origin, parent=source.number, result=value)
        running.finish("succeeded", revision=number)
        return number


def write_files(directory: Path, value: str) -> None:
    (directory / "weights").mkdir(exist_ok=True)
    for name in ("a.bin", "weights/b.bin", "weights/模型.bin"):
        (directory / name).write_text(value, encoding="utf-8")


def said(store: Store, version: str) -> str:
    """What the live revision says; fails if its files disagree, or are not as they were published."""
    with store.lease(version) as lease:
        values = {path.read_text(encoding="utf-8") for path in sorted(lease.directory.rglob("*.bin"))}
        assert len(values) == 1, f"a mixture: {values}"
        assert manifest.damage(lease.directory) == []
        return values.pop()


def litter(root: Path) -> list[str]:
    """What a crash may leave and a recovered data path does not hold."""
    found = [f"staging/{name}" for name in os.listdir(root / "staging")]
    for directory in (
        root,
        root / "models",
        root / "jobs",
        *(root / "revisions").glob("*"),
        *(root / "revisions").glob("*/*"),
    ):
        found += [str(path.relative_to(root)) for path in directory.glob(".*") if path.name != ".writer"]
    found += [str(path.relative_to(root)) for path in (root / "revisions").glob("*/*") if path.is_symlink()]
    return found


def old_model(datapath: Path, version: str = "v1", value: str = "old") -> Path:
    """A directory as 1.0 left it."""
    directory = datapath / "models" / version
    directory.mkdir(parents=True)
    write_files(directory, value)
    (directory / "model.json").write_text('{\n    "层": 2\n}', encoding="utf-8")
    (directory / "trainning.log").write_text('{"progress": 100}\n', encoding="utf-8")
    return directory

"""Revisions that another program puts in place are served once they are whole."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from trained import Trained
from waiting import BOUND, eventually

from aipod.engine.resident import Resident
from aipod.model import AIModelBase
from aipod.model.store import Store

SOON = 0.02


class Valued(AIModelBase):
    def predict(self) -> str:
        return (self.model_dir() / "value").read_text()


@pytest.fixture
def model() -> type[Valued]:
    return type("Valued", (Valued,), {})


@pytest.fixture
def elsewhere(tmp_path: Path) -> Store:
    """Another program's view of the same volume."""
    store = Store(tmp_path / "data")
    store.open()
    return store


def publish(store: Store, value: str, version: str = "v") -> int:
    with store.writer(version, "import"), store.stage(version) as staging:
        (staging.directory / "value").write_text(value)
        (staging.directory / "more").write_text(value * 100)
        return store.publish(staging, origin="imported")


def sync(store: Store, number: int, value: str, files: tuple[str, ...] = ("value", "more", "manifest.json")) -> Path:
    """Put a revision in place as a program does that knows of files alone: whole, or some of its files at first."""
    source = store.root / "staging-elsewhere" / str(number)
    other = Store(store.root / "elsewhere")
    other.open()
    shutil.copytree(other.root / "revisions" / "v" / str(publish(other, value)), source)
    target = store.root / "revisions" / "v" / str(number)
    target.mkdir()
    for name in files:
        shutil.copy2(source / name, target / name)
    temporary = store.root / "models" / ".link"
    temporary.symlink_to(f"../revisions/v/{number}")
    os.replace(temporary, store.root / "models" / "v")
    return source


def test_what_another_process_publishes_is_served(engine_of: Any, model: type[Valued], elsewhere: Store) -> None:
    publish(elsewhere, "one")
    engine = engine_of(model, watch_seconds=SOON)
    assert engine.predict("v") == "one"
    publish(elsewhere, "two")
    eventually(lambda: engine.predict("v") == "two")
    elsewhere.rollback("v")
    eventually(lambda: engine.predict("v") == "one")


def test_two_servers_on_one_data_path_see_what_the_other_one_trains(engine_of: Any, tmp_path: Path) -> None:
    one, two = (engine_of(Trained, watch_seconds=SOON) for _ in range(2))
    one.train("v", value="first")
    assert two.predict("v") == {"value": "first"}
    one.train("v", value="second")
    eventually(lambda: two.predict("v") == {"value": "second"})


def test_with_zero_nobody_looks(engine_of: Any, model: type[Valued], elsewhere: Store) -> None:
    publish(elsewhere, "one")
    engine = engine_of(model, watch_seconds=0)
    other = engine_of(model, watch_seconds=SOON)
    assert engine.predict("v") == other.predict("v") == "one"
    publish(elsewhere, "two")
    eventually(lambda: other.predict("v") == "two")
    assert engine.predict("v") == "one"


def test_a_revision_that_is_not_whole_is_not_served_until_it_is(
    engine_of: Any, model: type[Valued], elsewhere: Store, caplog: pytest.LogCaptureFixture
) -> None:
    publish(elsewhere, "one")
    engine = engine_of(model, watch_seconds=SOON)
    assert engine.predict("v") == "one"
    source = sync(elsewhere, 2, "two", files=("value", "manifest.json"))
    eventually(lambda: "revision 2 of version 'v' was put in place and is not whole" in caplog.text)
    assert engine.predict("v") == "one"
    target = elsewhere.root / "revisions" / "v" / "2"
    # Its size is right, and its content is not.
    (target / "more").write_text("x" * 300)
    eventually(lambda: engine._watch._unfinished["v"][1] and len(engine._watch._unfinished["v"][1]) == 3)
    assert engine.predict("v") == "one"
    shutil.copy2(source / "more", target / "more")
    eventually(lambda: engine.predict("v") == "two")
    assert caplog.text.count("is not whole") == 1
    assert engine._watch._unfinished == {}


def test_a_link_may_come_before_what_it_names(engine_of: Any, model: type[Valued], elsewhere: Store) -> None:
    publish(elsewhere, "one")
    engine = engine_of(model, watch_seconds=SOON)
    assert engine.predict("v") == "one"
    home = elsewhere.root / "revisions" / "v"
    sync(elsewhere, 2, "two")
    (home / "2").rename(home / "late")
    eventually(lambda: "v" in engine._watch._unfinished or engine.predict("v") == "two")
    (home / "late").rename(home / "2")
    eventually(lambda: engine.predict("v") == "two")


def test_a_revision_that_does_not_load_leaves_the_old_one(
    engine_of: Any, model: type[Valued], elsewhere: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def load(self: AIModelBase) -> None:
        if (self.model_dir() / "value").read_text() == "bad":
            raise ValueError("no good")

    model.load = load
    publish(elsewhere, "one")
    engine = engine_of(model, watch_seconds=SOON)
    assert engine.predict("v") == "one"
    publish(elsewhere, "bad")
    eventually(lambda: "what is live of version 'v' now is not served" in caplog.text)
    assert engine.predict("v") == "one"
    publish(elsewhere, "three")
    eventually(lambda: engine.predict("v") == "three")


def test_nothing_is_read_where_nothing_has_moved(
    engine_of: Any, model: type[Valued], elsewhere: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(elsewhere, "one")
    engine = engine_of(model, watch_seconds=SOON)
    assert engine.predict("v") == "one"
    # What has just changed is looked at until the clock of files has moved on.
    eventually(lambda: engine._watch._seen != -1, BOUND)
    looks: list[str] = []
    monkeypatch.setattr(engine._watch, "_follow", lambda version, loaded: looks.append(version))
    ticks: list[int] = []
    tick = engine._watch._tick
    monkeypatch.setattr(engine._watch, "_tick", lambda: (ticks.append(1), tick()))
    eventually(lambda: len(ticks) > 3)
    assert looks == []


def test_a_version_that_is_not_loaded_is_not_loaded_for_it(
    engine_of: Any, model: type[Valued], elsewhere: Store
) -> None:
    publish(elsewhere, "one")
    publish(elsewhere, "other", "w")
    engine = engine_of(model, watch_seconds=SOON)
    assert engine.predict("v") == "one"
    publish(elsewhere, "another", "w")
    publish(elsewhere, "two")
    eventually(lambda: engine.predict("v") == "two")
    residents: list[Resident] = engine._pool.residents()
    assert {one.version for one in residents} == {"v"}

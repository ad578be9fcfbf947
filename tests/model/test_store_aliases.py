"""Other names for versions."""

from __future__ import annotations

from pathlib import Path

import pytest
from store_world import publish

from aipod.errors import InvalidArgument, StorageError, VersionNotFound
from aipod.model.aliases import Aliases
from aipod.model.layout import Layout
from aipod.model.store import Store


def test_an_alias_names_a_version_until_it_is_changed_or_dropped(store: Store) -> None:
    publish(store, "v1", "one")
    publish(store, "v2", "two")
    store.set_alias("prod", "v1")
    assert (store.resolve("prod"), store.resolve("v1"), store.resolve("none")) == ("v1", "v1", "none")
    store.set_alias("prod", "v2")
    assert (store.resolve("prod"), store.aliases()) == ("v2", {"prod": "v2"})
    store.drop_alias("prod")
    assert store.resolve("prod") == "prod"
    with pytest.raises(InvalidArgument, match="no alias 'prod'"):
        store.drop_alias("prod")


def test_an_alias_of_nothing_is_refused(store: Store) -> None:
    with pytest.raises(VersionNotFound):
        store.set_alias("prod", "v1")
    assert store.aliases() == {}


def test_a_change_by_another_process_is_seen_after_one_look(store: Store) -> None:
    publish(store, "v1", "one")
    publish(store, "v2", "two")
    reader = Aliases(Layout(store.root), refresh=0.0)
    assert reader.resolve("prod") == "prod"
    store.set_alias("prod", "v1")
    assert reader.resolve("prod") == "v1"
    store.set_alias("prod", "v2")
    assert reader.resolve("prod") == "v2"
    store.drop_alias("prod")
    assert reader.resolve("prod") == "prod"


def test_a_resolved_name_costs_no_look_at_the_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(store, "v1", "one")
    store.set_alias("prod", "v1")
    aliases = Aliases(Layout(store.root), refresh=1e9)
    assert aliases.resolve("prod") == "v1"

    def look(path: Path) -> None:
        raise AssertionError("looked at the disk")

    monkeypatch.setattr(Path, "stat", look)
    assert aliases.resolve("prod") == "v1"


@pytest.mark.parametrize("text", ["", "[]", '{"../x": "v1"}', '{"prod": 3}', '{"prod": {}}', "[" * 100_000])
def test_a_typo_in_the_file_costs_no_alias(store: Store, text: str, caplog: pytest.LogCaptureFixture) -> None:
    publish(store, "v1", "one")
    store.set_alias("prod", "v1")
    file = store.root / "aliases.json"
    good = file.read_text()
    aliases = Aliases(Layout(store.root), refresh=0.0)
    file.write_text(text)
    for _ in range(2):
        for ask in (aliases.table, lambda: aliases.set("next", "v1"), lambda: aliases.drop("prod")):
            with pytest.raises(StorageError, match=r"aliases\.json .*mend it"):
                ask()
        assert file.read_text() == text
    assert [record.name for record in caplog.records] == ["aipod.store"]
    file.write_text(good)
    aliases.set("next", "v1")
    assert aliases.table() == {"prod": "v1", "next": "v1"}


def test_callers_do_not_notice_that_the_file_is_broken(store: Store) -> None:
    publish(store, "v1", "one")
    store.set_alias("prod", "v1")
    aliases = Aliases(Layout(store.root), refresh=0.0)
    assert aliases.resolve("prod") == "v1"
    (store.root / "aliases.json").write_text("{")
    assert [aliases.resolve("prod") for _ in range(3)] == ["v1"] * 3


def test_a_data_path_whose_aliases_cannot_be_read_is_not_opened(store: Store) -> None:
    (store.root / "aliases.json").write_text('{"prod": "v1",}')
    with pytest.raises(StorageError, match=r"aliases\.json .*line 1 column 1[45].*mend it"):
        Store(store.root).open()
    (store.root / "aliases.json").write_text('{"prod": "v1"}')
    reader = Store(store.root)
    reader.open()
    assert reader.resolve("prod") == "v1"

"""A data path of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from aipod.model.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "data")
    store.open()
    return store

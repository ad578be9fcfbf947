"""Several processes on one data path."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from store_world import ENVIRONMENT, litter, publish, said

from aipod.errors import AipodError, Conflict, TrainingInProgress
from aipod.model.store import Store

_TIMEOUT = 60


@contextmanager
def other_process(store: Store, body: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``body`` with ``store`` in another process; it says ``ready()`` and then waits until this block ends."""
    code = (
        "import sys\n"
        "from store_world import *\n"
        "store = Store(sys.argv[1])\n"
        "def ready():\n    print('ready', flush=True)\n    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code + body, str(store.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
            process.communicate("", timeout=_TIMEOUT)
        finally:
            process.kill()


def test_a_revision_that_another_process_has_leased_is_neither_collected_nor_deleted(tmp_path: Path) -> None:
    store = Store(tmp_path, keep_revisions=1)
    store.open()
    publish(store, "v1", "one")
    with other_process(store, "with store.lease('v1') as lease: ready()"):
        publish(store, "v1", "two")
        assert store.collect("v1") == []
        with pytest.raises(Conflict, match="in use"):
            store.delete("v1")
        assert (tmp_path / "revisions" / "v1" / "1" / "a.bin").read_text() == "one"
    assert store.collect("v1") == [1]
    store.delete("v1")


def test_a_training_in_another_process_is_named(store: Store) -> None:
    with other_process(store, "with store.writer('v1', 'train', 'v1@job'): ready()"):
        with pytest.raises(TrainingInProgress) as caught, store.writer("v1", "train"):
            raise AssertionError
        assert caught.value.job == "v1@job"
    with store.writer("v1", "train"):
        pass


def test_what_a_killed_process_held_is_free(store: Store) -> None:
    publish(store, "v1", "one")
    body = (
        "job = store.jobs.new_id('v1')\n"
        "scratch = store.scratch('v1')\n"
        "scratch.place.prepare()\n"
        "with store.writer('v1', 'train', job), store.stage('v1') as staging, store.lease('v1'):\n"
        "    store.jobs.start(job)\n"
        "    write_files(staging.directory, 'half')\n"
        "    ready()\n"
    )
    with other_process(store, body) as process:
        Store(store.root).open()
        assert len(list((store.root / "staging").iterdir())) == 2
        assert [job.state for job in store.jobs.of("v1")] == ["running"]
        process.kill()
        process.wait()
        Store(store.root).open()
        assert [job.state for job in store.jobs.of("v1")] == ["interrupted"]
    assert litter(store.root) == []
    assert publish(store, "v1", "two") == 2


def test_a_new_revision_is_seen_by_the_other_process(store: Store) -> None:
    publish(store, "v1", "one")
    with other_process(store, "publish(store, 'v1', 'two'); store.set_alias('prod', 'v1'); ready()"):
        assert (store.current("v1"), said(store, "v1"), store.aliases()) == (2, "two", {"prod": "v1"})


def test_twelve_initialize_at_once_have_a_clear_outcome_each(store: Store) -> None:
    start = threading.Barrier(12)
    outcomes: list[int | AipodError] = []

    def initialize(value: str) -> None:
        start.wait(_TIMEOUT)
        try:
            outcomes.append(publish(store, "v1", value))
        except AipodError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=initialize, args=(str(number),)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    published = sorted(outcome for outcome in outcomes if isinstance(outcome, int))
    assert published == list(range(1, len(published) + 1))
    assert len(published) >= 1
    assert all(isinstance(outcome, Conflict) for outcome in outcomes if not isinstance(outcome, int))
    assert store.current("v1") == len(published)
    assert said(store, "v1") in {str(number) for number in range(12)}
    assert litter(store.root) == []


def test_twelve_processes_that_initialize_at_once_tear_nothing(store: Store) -> None:
    code = (
        "import sys\n"
        "from store_world import *\n"
        "from aipod.errors import Conflict\n"
        "store = Store(sys.argv[1])\n"
        "store.open()\n"
        "try:\n    print(publish(store, 'v1', sys.argv[2]))\n"
        "except Conflict:\n    print('conflict')\n"
    )
    arguments = [sys.executable, "-c", code, str(store.root)]
    processes = [
        subprocess.Popen([*arguments, str(n)], stdout=subprocess.PIPE, env=ENVIRONMENT, text=True) for n in range(12)
    ]
    outcomes = [process.communicate(timeout=_TIMEOUT)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0] * 12
    published = sorted(int(outcome) for outcome in outcomes if outcome != "conflict")
    assert published == list(range(1, len(published) + 1))
    assert len(published) >= 1
    assert said(store, "v1") in {str(number) for number in range(12)}
    store.open()
    assert litter(store.root) == []

"""What holds for every test: the developer's environment counts for nothing, and a test leaves nothing behind."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# A machine that is busy with something else is no failure, hence no deadline.
hypothesis.settings.register_profile("aipod", deadline=None, print_blob=True)
hypothesis.settings.load_profile("aipod")

_PATIENCE = 5.0


def pytest_collection_finish() -> None:
    """Spare the garbage collector thousands of tests and all modules: whenever a model is disposed of it has to run,
    and looking at those alone took it a quarter of a second."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Let a report pass from one process to another whatever a test has made a model say."""
    return _encodable((yield))


def _encodable(value: Any) -> Any:
    """Put what UTF-8 has no bytes for, lone surrogates, in words."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {key: _encodable(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encodable(one) for one in value]
    return value


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AIPOD_")]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> Iterator[None]:
    """Have what tests start obey SIGINT: shells ignore it for what they run in the background, and all inherit that."""
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def _no_data_in_the_working_directory() -> Iterator[None]:
    # The default data path is relative: a test that forgets its own would write where the developer keeps data.
    data = Path("appdata").absolute()
    before = data.exists()
    yield
    assert data.exists() == before, f"some test made {data}: give its server or model a data path under tmp_path"


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves threads of ours, threads that would keep a process alive, or child processes."""
    threads, children = _threads(), _children()
    yield
    # What was told to end may need a moment for it.
    left = _wait_until_empty(lambda: [thread.name for thread in _threads() - threads])
    assert not left, f"threads left behind: {left}"
    left = _wait_until_empty(lambda: sorted(_children() - children))
    assert not left, f"child processes left behind: {left}"


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not thread.daemon or thread.name.startswith("aipod")}


def _children() -> set[str]:
    """Name this process's children, those included that nobody waited for; on Linux only."""
    found: set[str] = set()
    for listing in Path("/proc/self/task").glob("*/children"):
        try:
            found.update(listing.read_text().split())
        except OSError:  # the thread has ended
            continue
    return found


def _wait_until_empty(look: Callable[[], list[str]]) -> list[str]:
    end = time.monotonic() + _PATIENCE
    while (left := look()) and time.monotonic() < end:
        time.sleep(0.01)
    return left

"""A lock protects what its path names, and nothing that it named before."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from aipod.model.locks import acquire, try_acquire


def test_exclusive_keeps_all_others_out_and_shared_only_the_exclusive(tmp_path: Path) -> None:
    with acquire(tmp_path, exclusive=True):
        assert try_acquire(tmp_path, exclusive=True) is None
        assert try_acquire(tmp_path, exclusive=False) is None
    with acquire(tmp_path, exclusive=False), acquire(tmp_path, exclusive=False):
        assert try_acquire(tmp_path, exclusive=True) is None
    with acquire(tmp_path, exclusive=True):
        pass


def test_who_waits_gets_it_when_it_is_free(tmp_path: Path) -> None:
    got = threading.Event()

    def wait() -> None:
        with acquire(tmp_path, exclusive=True):
            got.set()

    waiter = threading.Thread(target=wait)
    with acquire(tmp_path, exclusive=True):
        waiter.start()
        assert not got.is_set()
    assert got.wait(30)
    waiter.join()


def test_a_path_that_became_another_directory_is_locked_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "it"
    path.mkdir()
    real = fcntl.flock

    def swap_first(fd: int, mode: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        path.rename(tmp_path / "old")
        path.mkdir()
        real(fd, mode)

    monkeypatch.setattr(fcntl, "flock", swap_first)
    with acquire(path, exclusive=True) as lock:
        assert os.path.samestat(os.fstat(lock.fd), path.stat())
        assert try_acquire(path, exclusive=True) is None
    with acquire(tmp_path / "old", exclusive=True):
        pass


def test_a_path_that_is_gone_or_a_link_is_not_locked(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    open_files = len(os.listdir("/proc/self/fd"))
    for name in ("gone", "link"):
        with pytest.raises(OSError, match=r"No such file|Not a directory|symbolic links"):
            acquire(tmp_path / name, exclusive=True)
    assert len(os.listdir("/proc/self/fd")) == open_files


def test_a_released_lock_is_free_though_a_forked_process_would_hold_the_file(tmp_path: Path) -> None:
    lock = acquire(tmp_path, exclusive=True)
    inherited = os.dup(lock.fd)
    lock.release()
    lock.release()
    with acquire(tmp_path, exclusive=True):
        os.close(inherited)

"""Servers whose models live in processes: scripts that end in ``serve()``, memory that comes back, no process left."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from waiting import BOUND, eventually

from aipod.errors import ModelCrashed
from aipod.rpc.client import AIClient

UNGUARDED = """
    import ctypes
    import os
    import numpy as np
    from pathlib import Path
    from aipod.model import AIModelBase
    from aipod.rpc.server import serve

    class Kept(AIModelBase):
        def load(self):
            self.weights = np.ones(32 * 2**20, np.float32)

        def predict(self, value=None, die=False):
            if die:
                ctypes.string_at(0)
            return {"value": value, "pid": os.getpid()}

    serve(Kept)
    (Path(__file__).parent / "behind-serve").touch()
"""
MIB = 2**20


def children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        # Threads come and go.
        with suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, (task / "children").read_text().split())
    return found


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_script_that_ends_in_serve_serves_from_processes(process_of):
    server = process_of(UNGUARDED, AIPOD_REPLICAS="2")
    with AIClient(server.address) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: client.predict(value=n), range(64)))
    assert [answer["value"] for answer in answers] == list(range(64))
    assert {answer["pid"] for answer in answers} <= set(children(server.popen.pid))
    assert len(children(server.popen.pid)) == 2


def test_a_crash_reaches_the_caller_as_such_and_the_next_call_is_served(process_of):
    server = process_of(UNGUARDED, AIPOD_ISOLATION="process")
    with AIClient(server.address) as client:
        first = client.predict(value=1)["pid"]
        with pytest.raises(ModelCrashed, match="SIGSEGV; the call can have run"):
            client.predict(die=True)
        assert client.predict(value=2)["pid"] != first


def test_the_memory_of_what_is_unloaded_is_given_back(process_of):
    server = process_of(UNGUARDED, AIPOD_ISOLATION="process")
    with AIClient(server.address) as client:
        pid = client.predict()["pid"]
        tree = sum(map(resident, [server.popen.pid, *children(server.popen.pid)]))
        assert resident(pid) > 128 * MIB
        client.admin.unload("default")
        assert gone(pid)
        assert sum(map(resident, [server.popen.pid, *children(server.popen.pid)])) < tree - 128 * MIB


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_processes_end_with_their_server_however_that_ends(process_of, tmp_path, how):
    server = process_of(UNGUARDED, AIPOD_REPLICAS="2")
    with AIClient(server.address) as client:
        client.predict()
    pids = children(server.popen.pid)
    assert len(pids) == 2
    server.send(how)
    server.wait()
    for pid in pids:
        eventually(lambda pid=pid: gone(pid))
    # The server's own end comes behind serve(); that of a child does not.
    assert (tmp_path / "behind-serve").exists() == (how == signal.SIGTERM)


def test_a_copy_that_is_killed_under_load_fails_only_what_it_held(process_of):
    server = process_of(UNGUARDED, AIPOD_REPLICAS="2", AIPOD_MAX_CONCURRENCY="1")
    failed: list[BaseException] = []
    answered = threading.Semaphore(0)
    stop = threading.Event()

    def call(client: AIClient) -> None:
        while not stop.is_set():
            try:
                client.predict(value=1)
                answered.release()
            except ModelCrashed as error:
                failed.append(error)

    with AIClient(server.address) as client, ThreadPoolExecutor(4) as pool:
        callers = [pool.submit(call, client) for _ in range(4)]
        assert all(answered.acquire(timeout=BOUND) for _ in range(50))
        victim = children(server.popen.pid)[0]
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: len(children(server.popen.pid)) == 2 and victim not in children(server.popen.pid))
        assert all(answered.acquire(timeout=BOUND) for _ in range(50))
        stop.set()
        for caller in callers:
            caller.result(BOUND)
    assert len(failed) <= 1
    assert all("SIGKILL; the call can have run" in str(error) for error in failed)

"""Workers that end are started again, and none outlives its supervisor. Real processes, started by real ones."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from waiting import BOUND, eventually

from aipod.errors import ConfigError, Unavailable
from aipod.stream.pauses import Pauses
from aipod.stream.supervisor import Share, Supervisor

ROOT = Path(__file__).parents[2]

# A worker in ten lines: follows its supervisor, says that it serves, leaves a mark each time that it starts, and obeys.
WORKER = """
import os, pathlib, signal, sys
sys.path.insert(0, {root!r})
from aipod.process import Lifeline
number, how = sys.argv[1:]
lifeline = Lifeline()
lifeline.follow(lambda: os._exit(0))
signal.signal(signal.SIGTERM, signal.SIG_IGN if how == "stubborn" else lambda *_: os._exit(0))
with pathlib.Path(number).open("a") as marks:
    marks.write(f"{{os.getpid()}}\\n")
lifeline.tell(b"1")
if how == "done":
    os._exit(0)
if how == "failing":
    os._exit(1)
while True:
    signal.pause()
"""
SUPERVISOR = """
import asyncio, sys
sys.path.insert(0, {root!r})
from aipod.stream.supervisor import Supervisor
asyncio.run(Supervisor(lambda number: [sys.executable, "worker.py", str(number), "obeying"], 2).run())
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "worker.py").write_text(WORKER.format(root=str(ROOT)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def supervisor(workers: int = 1, how: str = "obeying", *, pause: float = 0.01, **options: object) -> Supervisor:
    def command(number: int) -> list[str]:
        return [sys.executable, "worker.py", str(number), how]

    return Supervisor(command, workers, pauses=lambda: Pauses(pause, 0.05), **options)  # type: ignore[arg-type]


async def until(condition: Callable[[], object]) -> None:
    async def look() -> None:
        while not condition():
            await asyncio.sleep(0.005)

    await asyncio.wait_for(look(), BOUND)


def starts(here: Path, number: int) -> list[int]:
    """The process ids that a worker had, one after the other."""
    marks = here / str(number)
    return [int(line) for line in marks.read_text().split()] if marks.exists() else []


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_worker_that_is_killed_is_started_again_and_the_others_notice_nothing(here: Path) -> None:
    async def scenario() -> None:
        both = supervisor(2)
        running = asyncio.ensure_future(both.run())
        await until(lambda: starts(here, 1) and starts(here, 2))
        os.kill(starts(here, 1)[0], signal.SIGKILL)
        await until(lambda: len(starts(here, 1)) == 2)
        assert len(starts(here, 2)) == 1
        assert set(both.pids) == {1, 2}
        both.stop()
        await asyncio.wait_for(running, BOUND)

    asyncio.run(scenario())


def test_a_worker_that_always_fails_is_started_again_and_again_and_said_to_be(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        failing = supervisor(how="failing")
        running = asyncio.ensure_future(failing.run())
        await until(lambda: len(starts(here, 1)) >= 4)
        failing.stop()
        await asyncio.wait_for(running, BOUND)

    asyncio.run(scenario())
    assert "worker 1 ended after" in caplog.text
    assert "(exit code 1); it is started again in" in caplog.text


def test_a_worker_that_cannot_even_start_is_tried_again(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        absent = Supervisor(lambda number: ["/nowhere/to/be/found"], 1, pauses=lambda: Pauses(0.001, 1.0))
        running = asyncio.ensure_future(absent.run())
        await until(lambda: caplog.text.count("No such file") >= 2)
        absent.stop()
        await asyncio.wait_for(running, BOUND)

    asyncio.run(scenario())


def test_once_a_worker_that_is_done_is_left_alone_and_the_supervisor_ends_with_the_last(here: Path) -> None:
    asyncio.run(asyncio.wait_for(supervisor(2, "done", once=True).run(), BOUND))
    assert [len(starts(here, number)) for number in (1, 2)] == [1, 1]


def test_once_a_worker_that_fails_is_not_started_again_and_the_failure_is_told(here: Path) -> None:
    # What stopped for good would go on with the next life: from one batch of dead letters to the next.
    with pytest.raises(Unavailable, match="of 2 workers these have failed, and said why: 1, 2"):
        asyncio.run(asyncio.wait_for(supervisor(2, "failing", once=True).run(), BOUND))
    assert [len(starts(here, number)) for number in (1, 2)] == [1, 1]


def test_once_a_worker_that_is_killed_is_started_again_all_the_same(here: Path) -> None:
    async def scenario() -> None:
        running = asyncio.ensure_future(supervisor(once=True).run())
        await until(lambda: starts(here, 1))
        os.kill(starts(here, 1)[0], signal.SIGKILL)
        await until(lambda: len(starts(here, 1)) == 2)
        os.kill(starts(here, 1)[1], signal.SIGTERM)
        await asyncio.wait_for(running, BOUND)

    asyncio.run(scenario())


def test_who_ends_with_0_unasked_is_started_again_if_it_is_not_for_once(here: Path) -> None:
    async def scenario() -> None:
        leaving = supervisor(how="done")
        running = asyncio.ensure_future(leaving.run())
        await until(lambda: len(starts(here, 1)) >= 2)
        leaving.stop()
        await asyncio.wait_for(running, BOUND)

    asyncio.run(scenario())


def test_who_does_not_obey_is_killed_when_the_grace_is_over(here: Path) -> None:
    async def scenario() -> None:
        stubborn = supervisor(how="stubborn", grace=0.2)
        running = asyncio.ensure_future(stubborn.run())
        await until(lambda: starts(here, 1))
        stubborn.stop()
        await asyncio.wait_for(running, BOUND)

    asyncio.run(scenario())
    assert not is_there(starts(here, 1)[0])


def test_a_stop_during_a_pause_does_not_wait_for_its_end(here: Path) -> None:
    async def scenario() -> None:
        failing = supervisor(how="failing", pause=3600.0)
        running = asyncio.ensure_future(failing.run())
        await until(lambda: starts(here, 1) and not failing.pids)
        failing.stop()
        await asyncio.wait_for(running, BOUND)

    asyncio.run(scenario())
    assert len(starts(here, 1)) == 1


def test_who_is_cancelled_leaves_no_worker(here: Path) -> None:
    async def scenario() -> None:
        running = asyncio.ensure_future(supervisor(2).run())
        await until(lambda: starts(here, 1) and starts(here, 2))
        running.cancel()
        await asyncio.wait([running], timeout=BOUND)

    asyncio.run(scenario())
    eventually(lambda: not any(is_there(pid) for number in (1, 2) for pid in starts(here, number)))


def test_it_is_healthy_while_all_workers_run_and_say_that_they_serve(here: Path) -> None:
    told: list[bool] = []

    async def scenario() -> None:
        both = supervisor(2, on_health=told.append)
        running = asyncio.ensure_future(both.run())
        await until(lambda: told == [True])
        os.kill(starts(here, 2)[0], signal.SIGKILL)
        await until(lambda: told == [True, False, True])
        both.stop()
        await asyncio.wait_for(running, BOUND)

    asyncio.run(scenario())
    assert told == [True, False, True, False]


@pytest.fixture
def apart(here: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A supervisor in a process of its own, with two workers."""
    with subprocess.Popen([sys.executable, "-c", SUPERVISOR.format(root=str(ROOT))]) as process:
        yield process
        process.kill()


def test_workers_end_when_their_supervisor_is_killed(here: Path, apart: subprocess.Popen[bytes]) -> None:
    eventually(lambda: starts(here, 1) and starts(here, 2))
    apart.kill()
    eventually(lambda: not any(is_there(pid) for number in (1, 2) for pid in starts(here, number)))


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "a/b", "1/2/3", "-1/2", "1/0"])
def test_a_share_that_is_none_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="write 1/4 for the first of four"):
        Share.parse(text)


def test_a_list_is_dealt_out_evenly_and_each_task_has_one_worker() -> None:
    shares = [Share(number, 3) for number in (1, 2, 3)]
    dealt = [[place for place in range(8) if share.has("x", 1, place)] for share in shares]
    assert dealt == [[0, 3, 6], [1, 4, 7], [2, 5]]


def test_each_task_of_a_changing_list_has_one_worker_by_its_name_alone() -> None:
    shares = [Share.parse(f"{number}/3") for number in (1, 2, 3)]
    dealt = [{name for name in map(str, range(60)) if share.has(name, 1)} for share in shares]
    assert all(dealt)
    assert sorted(name for names in dealt for name in names) == sorted(map(str, range(60)))


def test_a_partitioned_task_is_everybody_s() -> None:
    assert all(Share(number, 3).has("x", 2, place) for number in (1, 2, 3) for place in (None, 0, 1))

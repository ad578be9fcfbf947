"""A child process, and how the two learn of each other's end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import BOUND, eventually

from aipod.process import Child, Ended

ROOT = Path(__file__).parent.parent

SLEEPER = "import signal; signal.pause()"
STUBBORN = (
    "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.write(0, b'up')\nwhile True: signal.pause()"
)
# Follows its parent, and says so on its lifeline.
FOLLOWER = """
import os, sys, time
sys.path.insert(0, {root!r})
from aipod.process import Lifeline
lifeline = Lifeline()
lifeline.follow(lambda: os._exit(7))
lifeline.tell(b"up")
time.sleep(600)
"""
# Starts a follower, says its number, and waits to be killed.
PARENT = """
import sys, time
sys.path.insert(0, {root!r})
from aipod.process import Child
child = Child.start([sys.executable, "-c", {follower!r}])
child.lifeline.recv(2)
print(child.pid, flush=True)
time.sleep(600)
"""


def python(program: str, *arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-c", program, *arguments]


def follower() -> str:
    return FOLLOWER.format(root=str(ROOT))


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("code", [0, 3, 255])
def test_the_exit_code_of_a_child_reaches_whoever_waits(code: int) -> None:
    with Child.start(python(f"raise SystemExit({code})")) as child:
        ended = child.ended.result(BOUND)
    assert (ended.code, ended.signal, str(ended)) == (code, "", f"exit code {code}")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_signal_is_called_by_its_name(number: signal.Signals) -> None:
    with Child.start(python(f"import os; os.kill(os.getpid(), {int(number)})")) as child:
        ended = child.ended.result(BOUND)
    assert (ended.signal, str(ended)) == (number.name, f"ended by {number.name}")


def test_a_signal_without_a_name_has_a_number() -> None:
    assert Ended(-40).signal == "signal 40"


def test_an_end_can_be_waited_for_on_an_event_loop_and_giving_up_hurts_nobody() -> None:
    async def wait(child: Child) -> Ended:
        impatient = asyncio.ensure_future(asyncio.wrap_future(child.ended))
        await asyncio.sleep(0)
        impatient.cancel()
        patient = asyncio.wrap_future(child.ended)
        child.ask()
        return await asyncio.wait_for(patient, BOUND)

    with Child.start(python(SLEEPER)) as child:
        assert asyncio.run(wait(child)).signal == "SIGTERM"


def test_who_is_asked_and_goes_is_not_killed(tmp_path: Path) -> None:
    program = (
        "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(5));"
        "open('up', 'w').close(); signal.pause()"
    )
    child = Child.start(python(program), directory=tmp_path)
    eventually((tmp_path / "up").exists)
    assert child.end(grace=BOUND) == Ended(5)


def test_who_does_not_go_is_killed_after_the_grace() -> None:
    child = Child.start(python(STUBBORN))
    assert child.lifeline.recv(2) == b"up"
    assert child.end(grace=0.2).signal == "SIGKILL"


def test_to_ask_or_kill_what_has_ended_does_nothing() -> None:
    with Child.start(python("")) as child:
        child.ended.result(BOUND)
        child.ask()
        child.kill()
        assert child.ended.result() == Ended(0)
        assert "exit code 0" in repr(child)


def test_what_a_child_started_ends_with_it() -> None:
    started = f"import subprocess, sys, os; pid = subprocess.Popen([sys.executable, '-c', {SLEEPER!r}], "
    started += "stdout=subprocess.DEVNULL).pid; os.write(0, str(pid).encode())"
    with Child.start(python(started)) as child:
        grandchild = int(child.lifeline.recv(64))
        child.ended.result(BOUND)
    eventually(lambda: not is_there(grandchild))


def test_a_child_is_out_of_reach_of_what_is_typed_on_the_terminal() -> None:
    with Child.start(python(SLEEPER)) as child:
        assert os.getpgid(child.pid) != os.getpgid(0)


def test_a_program_that_is_not_there_is_an_error_and_leaves_nothing() -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError):
        Child.start(["/nowhere/to/be/found"])
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_child_hears_that_its_parent_was_killed() -> None:
    parent = subprocess.Popen(
        python(PARENT.format(root=str(ROOT), follower=follower())), stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    eventually(lambda: not is_there(pid))


def test_a_child_hears_that_it_was_let_go() -> None:
    child = Child.start(python(follower()))
    assert child.lifeline.recv(2) == b"up"
    child.close()
    assert child.ended.result(BOUND) == Ended(7)


def test_a_child_does_not_hold_up_the_lifelines_of_its_siblings() -> None:
    first = Child.start(python(follower()))
    with Child.start(python(follower())) as second:
        assert (first.lifeline.recv(2), second.lifeline.recv(2)) == (b"up", b"up")
        first.close()
        assert first.ended.result(BOUND) == Ended(7)
        assert not second.ended.done()


def test_who_was_started_by_something_else_has_no_lifeline() -> None:
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom aipod.process import Lifeline; Lifeline()"
    done = subprocess.run(python(program), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    assert "OSError" in done.stderr


def test_standard_input_is_empty_behind_a_lifeline() -> None:
    program = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from aipod.process import Lifeline
lifeline = Lifeline()
lifeline.tell(repr(sys.stdin.read()).encode())
"""
    with Child.start(python(program)) as child:
        assert child.lifeline.recv(64) == b"''"

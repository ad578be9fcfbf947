"""That ``make bench`` runs. What it measures is no test's business."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from waiting import eventually

from benchmarks import family, pictures, report, work
from benchmarks.findings import Finding, keep, kept
from benchmarks.harness import Comparison, Plan, Process, call, call_as_bytes
from benchmarks.order import Order
from benchmarks.peers import PEERS, Peer
from benchmarks.workloads import alone
from benchmarks.workloads.races import OURS, RACES, python, serving

ROOT = Path(__file__).parents[1]


def _case(side: Peer, asked: str) -> Any:
    """Sides that have environments of their own take their time, too."""
    slow = not (side.bare or side is OURS)
    return pytest.param(side, asked, marks=[pytest.mark.chaos] if slow else [], id=f"{side.name}, {asked}")


CASES = [_case(side, asked) for side in (OURS, *PEERS) for asked in side.works]
# As large as in any race: what a server lets through is a setting of most.
_ARRAY_BYTES = 16 * 1024 * 1024


def test_a_quick_look_at_one_workload_prints_its_lines_and_leaves_the_results_alone() -> None:
    results = ROOT / "benchmarks" / "RESULTS.md"
    before = results.read_bytes() if results.exists() else None
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "starting"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    question, *lines = run.stdout.splitlines()
    assert question.endswith("?")
    assert "import aipod.rpc.client" in lines[0]
    assert "server ready" in lines[1]
    assert (results.read_bytes() if results.exists() else None) == before


@pytest.mark.parametrize("name", ["ours", "fetch", "faststream"])
def test_every_pipeline_that_is_measured_does_all_of_the_work(name: str, tmp_path: Path) -> None:
    pytest.importorskip("nats")
    from benchmarks.broker import RESULTS, SOURCE, Broker
    from benchmarks.harness import Server
    from benchmarks.pipelines import FASTSTREAM, Pipelines

    if name == "faststream" and not FASTSTREAM.exists():
        pytest.skip("FastStream is not installed")

    async def publish() -> None:
        async with broker.connection() as connection:
            await connection.fresh(SOURCE)
            await connection.publish(SOURCE, [0] * 300)

    async def results() -> list[bytes]:
        async with broker.connection() as connection:
            return [payload async for _, payload in connection.stored(RESULTS)]

    with Broker() as broker, Server("benchmarks.models", "Mean") as model:
        asyncio.run(publish())
        pipelines = Pipelines(broker, model, tmp_path)
        side = pipelines.ours("count:100") if name == "ours" else pipelines.peer(name)
        observed = pipelines.observe(side, 300, 3)
        found = [json.loads(payload) for payload in asyncio.run(results())]
    assert observed.seconds > 0
    assert observed.cpu_seconds >= 0
    # Message n has the value n / 8.
    assert [one.get("result", one)["mean"] for one in found] == [50.5 / 8, 150.5 / 8, 250.5 / 8]


def test_a_message_of_the_streams_has_just_its_size() -> None:
    pytest.importorskip("nats")
    from benchmarks.broker import MESSAGE_BYTES, message

    payloads = [message(key, number) for key, number in ((0, 1), (9_999, 999_999))]
    assert [len(payload) for payload in payloads] == [MESSAGE_BYTES] * 2
    assert json.loads(payloads[1])["device"] == "device-09999"


def _order(side: Peer, address: str, asked: str, style: str, family_: str = "") -> Order:
    return Order(
        side.module,
        address,
        style,
        callers=2,
        seconds=0.2,
        warmup=0.0,
        work=asked,
        array_bytes=_ARRAY_BYTES,
        family=family_,
    )


@pytest.mark.parametrize(("side", "asked"), CASES)
def test_every_side_of_a_race_does_the_work_for_both_kinds_of_callers(side: Peer, asked: str) -> None:
    if not (side.bare or side is OURS or side.python.exists()):
        pytest.skip(f"{side.name} is not installed; make peers does it")
    with serving(side, asked) as server:
        for style in ("threads", "asyncio"):
            # The callers compare the first answer with what is right, and fail if it is not.
            measured = call(_order(side, server.address, asked, style, server.family), server, python(side))
            assert measured.rate > 0
            assert 0 < measured.p50 <= measured.p99
            assert measured.server_cpu >= 0
            assert measured.client_cpu >= 0
        assert family.members(server.family)
        if asked == "tiny":
            raw = call_as_bytes(_order(side, server.address, asked, "threads"), server, python(side))
            alone.check(server.address, raw)
    assert not family.members(server.family)


def test_callers_whose_server_does_not_answer_what_is_right_fail() -> None:
    order = _order(OURS, "", "sum", "threads")
    kwargs = order.question()
    total = kwargs["data"].sum()
    assert work.is_right("sum", kwargs, (kwargs["data"], total))
    assert not work.is_right("sum", kwargs, (kwargs["data"], 2 * total))
    assert not work.is_right("sum", kwargs, (kwargs["data"] + 1, total))
    assert not work.is_right("tiny", work.TINY, 2.5)
    with (
        serving(OURS, "tiny") as server,
        pytest.raises(RuntimeError, match="which is not right"),
    ):
        # The model returns its first value, and not all of them.
        call(_order(OURS, server.address, "echo", "threads"), server)


def test_callers_end_with_their_server() -> None:
    with (
        Process(sys.executable, "-c", "raise SystemExit(3)") as server,
        pytest.raises(RuntimeError, match="ended with 3"),
    ):
        call(_order(OURS, "127.0.0.1:1", "tiny", "threads"), server)


def test_a_family_is_all_that_a_process_has_started_and_ends_with_it() -> None:
    sleep = "import time; time.sleep(600)"
    # One child of which the parent has a session of its own, and one that hides its environment.
    program = (
        "import subprocess, sys; "
        f"subprocess.Popen([sys.executable, '-c', {sleep!r}], start_new_session=True); "
        f"subprocess.Popen([sys.executable, '-c', {sleep!r}], env={{}}).wait()"
    )
    with Process(sys.executable, "-c", program) as process:
        eventually(lambda: len(family.members(process.family)) == 3)
        members = family.members(process.family)
        assert family.cpu_seconds(members) > 0
        assert set(family.born(members)) == set(members)
        assert family.pss_bytes(members) > 0
    assert not family.born(members)


def test_every_goal_of_a_race_is_held_against_somebody_who_takes_part() -> None:
    names = {peer.name for peer in PEERS} | {"best peer"}
    assert {goal for race in RACES for goal in race.goals} <= names


def test_what_is_pinned_is_pinned_to_a_version() -> None:
    lines = [
        line
        for file in (ROOT / "benchmarks" / "peers" / "requirements").glob("*.txt")
        for line in file.read_text("utf-8").splitlines()
    ]
    assert lines
    assert all(re.fullmatch(r"[a-z-]+(\[[a-z]+\])?==[0-9.]+", line) for line in lines), lines


def test_the_report_has_the_cpu_beside_the_rates_and_a_picture_where_there_are_several_sides(tmp_path: Path) -> None:
    against = ["one", "two", "three"]
    comparisons = [
        Comparison("a race", "calls/s", [10.0, 12.0], [1.0, 2.0], name, 5.0, our_cpu=(0.1, 0.2), their_cpu=(0.3, 0.4))
        for name in against
    ]
    lonely = Comparison("no race", "ms", [1.0], [2.0], "one", at_most=True)
    names = pictures.draw([*comparisons, lonely], tmp_path)
    assert names == ["a-race.png"]
    assert (tmp_path / "a-race.png").read_bytes().startswith(b"\x89PNG")
    keep(tmp_path, "races", Finding("Who?", report.ran(Plan()), [*comparisons, lonely]))
    text = report.results(kept(tmp_path, ["never measured", "races"]), names)
    row = "| a race | 11 calls/s | one: 1.5 calls/s | 8.00 (6.00 to 10.00) | at least 5 | met"
    assert f"{row} | 0.100 + 0.200; 0.300 + 0.400 |" in text
    assert "![](a-race.png)" in text
    assert "## Who?" in text
    assert all(peer.name in text for peer in PEERS)

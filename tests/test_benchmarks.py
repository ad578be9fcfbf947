"""That ``make bench`` runs. What it measures is no test's business."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


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

"""Servers alone, under one and the same load generator, 32 calls at a time: what does each make of a tiny call?"""

from __future__ import annotations

import http.client
import os
import re
import resource
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import grpc

from benchmarks import family
from benchmarks.harness import Comparison, Plan, call_as_bytes
from benchmarks.order import Measured, Order
from benchmarks.peers import Peer, Raw
from benchmarks.workloads.races import OURS, available, cpu, python, serving

_CALLERS = 32
_WARMUP = 0.5
_GOALS = {"bare grpc.aio": 3.0, "mosec": 1.0}
# Where make peers unpacks it, if the system has none.
_UNPACKED = Path(__file__).parents[2] / ".venv-peers" / "h2load"
_FRAME_HEAD_BYTES = 5


def run(plan: Plan) -> Iterator[Comparison]:
    command, environment = _generator()
    if not command:
        print("  left out: there is no h2load, which is in nghttp2-client; make peers fetches it on Debian", flush=True)
        return
    found: dict[Peer, list[Measured]] = defaultdict(list)
    sides = [OURS, *(peer for peer in available() if "tiny" in peer.works)]
    out: set[Peer] = set()
    for _ in range(plan.races):
        for side in sides:
            if side in out:
                continue
            try:
                found[side].append(_measure(plan, side, command, environment))
            except RuntimeError as error:
                if side is OURS:
                    raise
                out.add(side)
                print(f"  {side.name} is left out: {error}", flush=True)
    ours = [one.rate for one in found[OURS]]
    for side in sides[1:]:
        if side not in out:
            theirs, goal = [one.rate for one in found[side]], _GOALS.get(side.name)
            what = f"tiny unary calls, {_CALLERS} at a time, h2load"
            cpus = cpu(found[OURS]), cpu(found[side])
            yield Comparison(what, "calls/s", ours, theirs, side.name, goal, our_cpu=cpus[0], their_cpu=cpus[1])


def _generator() -> tuple[str, dict[str, str]]:
    """Where ``h2load`` is, and the environment that it needs; ``""`` if there is none."""
    if found := shutil.which("h2load"):
        return found, dict(os.environ)
    unpacked = next(_UNPACKED.glob("usr/bin/h2load"), None)
    libraries = ":".join(str(one) for one in _UNPACKED.glob("usr/lib/*"))
    return str(unpacked or ""), {**os.environ, "LD_LIBRARY_PATH": libraries}


def _measure(plan: Plan, side: Peer, command: str, environment: dict[str, str]) -> Measured:
    with serving(side, "tiny") as server, tempfile.NamedTemporaryFile() as body:
        raw = call_as_bytes(Order(side.module, server.address, work="tiny"), server, python(side))
        check(server.address, raw)
        body.write(_framed(raw.body) if raw.grpc else raw.body)
        body.flush()
        arguments = [command, *_load(raw, body.name), f"http://{server.address}{raw.path}"]
        _generate(arguments, _WARMUP, environment)
        pids = family.members(server.family)
        before = family.cpu_seconds(pids), _generators_cpu()
        rate, calls = _generate(arguments, plan.seconds, environment)
        after = family.cpu_seconds(pids), _generators_cpu()
        server_cpu, client_cpu = ((now - then) * 1000 / calls for now, then in zip(after, before, strict=True))
        return Measured(rate, 0.0, 0.0, server_cpu, client_cpu)


def _framed(message: bytes) -> bytes:
    """As gRPC sends it: not compressed, so long."""
    return bytes(1) + len(message).to_bytes(_FRAME_HEAD_BYTES - 1, "big") + message


def _load(raw: Raw, body: str) -> list[str]:
    """One connection with so many streams; HTTP/1.1 needs a connection for each call at a time."""
    headers = {"content-type": "application/grpc", "te": "trailers"} if raw.grpc else raw.headers
    shape = ["-c1", f"-m{_CALLERS}"] if raw.grpc else ["--h1", f"-c{_CALLERS}"]
    return ["-d", body, *shape, *(f"-H{name}: {value}" for name, value in headers.items())]


def check(address: str, raw: Raw) -> None:
    """The generator does not look at what gRPC calls a status: see once that these bytes are a call."""
    if raw.grpc:
        with grpc.insecure_channel(address) as channel:
            try:
                channel.unary_unary(raw.path)(raw.body)
            except grpc.RpcError as error:
                raise RuntimeError(f"{raw.path} answers {error}") from None
        return
    connection = http.client.HTTPConnection(address)
    connection.request("POST", raw.path, raw.body, raw.headers)
    status = connection.getresponse().status
    connection.close()
    if status != http.client.OK:
        raise RuntimeError(f"{raw.path} answers {status}")


def _generate(arguments: list[str], seconds: float, environment: dict[str, str]) -> tuple[float, int]:
    """Calls per second, and how many.

    Raises:
        RuntimeError: Some failed.
    """
    # It knows no fractions.
    seconds = max(1, round(seconds))
    done = subprocess.run([*arguments, f"-D{seconds}"], env=environment, capture_output=True, text=True, check=False)
    match = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored", done.stdout)
    if match is None or any(int(bad) for bad in match.groups()[2:]) or not int(match.group(2)):
        raise RuntimeError(f"h2load: {match.group() if match else done.stdout + done.stderr}")
    return int(match.group(2)) / seconds, int(match.group(2))


def _generators_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime

"""What we are compared with, each in the least code that does the same work in the way that its project shows.

A module here is started as a server, ``python -m benchmarks.peers.NAME WORK PORT WORKERS``, and has its project's
callers: ``blocking``, ``awaiting`` (see :mod:`benchmarks.callers`) and ``raw``, which gives a call as bytes. All of it
runs in an environment of the peer's own, ``.venv-peers/NAME``, with the versions of ``requirements/NAME.txt``; only
what is bare runs in ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["PEERS", "Peer", "Raw", "environment", "pinned"]

_ENVIRONMENTS = Path(__file__).parents[2] / ".venv-peers"
_REQUIREMENTS = Path(__file__).with_name("requirements")
_EVERYTHING = ("tiny", "batch", "sum")


@dataclass(frozen=True)
class Peer:
    """One server to measure.

    Attributes:
        name: As the report has it.
        module: In this package.
        client: Through what its callers call it, from asyncio and from threads.
        workers: How many processes run the model.
        works: What it is asked; see :mod:`benchmarks.work`.
        bare: Whether it is no model server; its module's argument then.
    """

    name: str
    module: str
    client: str
    workers: int = 1
    works: tuple[str, ...] = _EVERYTHING
    bare: str = ""

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        return environment(self.module)

    @property
    def version(self) -> str:
        """What is pinned, as ``name version``."""
        return pinned(self.module)


@dataclass(frozen=True)
class Raw:
    """A call as bytes, for a load generator.

    Attributes:
        path: Of the HTTP request; that of a gRPC method.
        body: The message; for gRPC, without the five bytes before it.
        headers: Besides those that gRPC has anyway.
        grpc: Whether it goes by HTTP/2 as gRPC does it; else by HTTP/1.1.
    """

    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    grpc: bool = True


def environment(name: str) -> Path:
    """The interpreter of a peer's environment, which ``make peers`` makes."""
    return _ENVIRONMENTS / name / "bin" / "python"


def pinned(name: str) -> str:
    """The version in a peer's requirements."""
    return (_REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8").splitlines()[0].replace("==", " ")


_HTTP = "aiohttp, requests"
_STUBS = "its generated stubs, on grpc.aio and on grpc"

PEERS = (
    Peer("bare grpc.aio", "bare", "grpc.aio, grpc", works=("tiny", "sum"), bare="aio"),
    Peer("bare sync grpcio", "bare", "grpc.aio, grpc", works=("tiny", "sum"), bare="sync"),
    Peer("mosec", "mosec", _HTTP),
    # Two workers are two models, and twice the ideal where a model runs one batch at a time.
    Peer("mosec, 2 workers", "mosec", _HTTP, workers=2, works=("tiny", "sum")),
    Peer("LitServe", "litserve", _HTTP),
    Peer("BentoML", "bentoml", _HTTP),
    Peer("MLServer", "mlserver", _STUBS),
    Peer("KServe", "kserve", _STUBS),
    Peer("Ray Serve", "ray", _STUBS),
    Peer("pytriton", "pytriton", "its own, asyncio and blocking, by gRPC"),
    Peer("Aqueduct", "aqueduct", _HTTP),
)

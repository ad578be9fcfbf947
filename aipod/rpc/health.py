"""gRPC's health protocol on a port of its own, for processes that serve nothing else.

It answers from the event loop that does the work, so that a loop that is stuck is not called healthy.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from aipod.errors import Unavailable
from aipod.rpc.keepalive import SERVER_OPTIONS

__all__ = ["HealthServer"]

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

# Many probes and a few that watch; more is somebody who holds connections open.
_MAX_CALLS = 1000


class HealthServer:
    """Says which services serve. Belongs to the event loop that starts it.

    The service ``""`` is the process as a whole; until it is set it does not serve.

    Args:
        address: ``host:port`` to listen on; port 0 picks a free one.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._servicer = _Servicer()
        self._server: grpc.aio.Server | None = None
        self.port = 0

    def __repr__(self) -> str:
        serving = [name for name, state in self._servicer.states.items() if state == _SERVING]
        return f"<HealthServer on port {self.port}, serving {serving}>"

    async def __aenter__(self) -> HealthServer:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen.

        Raises:
            Unavailable: Nothing can listen there.
        """
        # Without so_reuseport=0 a second process on the same port would start, and each would get some of the probes.
        options = [("grpc.so_reuseport", 0), *SERVER_OPTIONS]
        server = grpc.aio.server(options=options, maximum_concurrent_rpcs=_MAX_CALLS)
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)
        _check_free(self._address)
        try:
            self.port = server.add_insecure_port(self._address)
        except RuntimeError:
            raise Unavailable(f"nothing can listen on {self._address!r}; choose another port for health") from None
        await server.start()
        self._server = server

    def set(self, service: str, serving: bool) -> None:
        """Say whether a service serves; whoever watches it is told."""
        self._servicer.set(service, _SERVING if serving else _NOT_SERVING)

    def drop(self, service: str) -> None:
        """Forget a service: it is unknown from now on."""
        self._servicer.set(service, None)

    async def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.stop(None)


def _check_free(address: str) -> None:
    """Ask the system before gRPC does, which does not say why it cannot."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    reason = "write host:port, with a port from 0 to 65535"
    if port.isdecimal() and int(port) <= 65535:
        try:
            host = host.strip("[]")
            # On all addresses of both kinds, where gRPC takes them so.
            both = host == "::" and socket.has_dualstack_ipv6()
            socket.create_server((host, int(port)), family=family, dualstack_ipv6=both).close()
            return
        except OSError as error:
            reason = f"{error.strerror}; choose another port for health"
    raise Unavailable(f"nothing can listen on {address!r}: {reason}")


class _Servicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Not grpcio's own, whose ``set`` waits for the slowest of those that watch."""

    def __init__(self) -> None:
        self.states: dict[str, int] = {"": _NOT_SERVING}
        self._watches: set[asyncio.Event] = set()

    def set(self, service: str, state: int | None) -> None:
        if state is None:
            self.states.pop(service, None)
        else:
            self.states[service] = state
        for changed in self._watches:
            changed.set()

    async def Check(self, request: Any, context: Any) -> Any:
        state = self.states.get(request.service)
        if state is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service here")
        return health_pb2.HealthCheckResponse(status=state)

    async def Watch(self, request: Any, context: Any) -> None:
        told = None
        with self._watch() as changed:
            while True:
                changed.clear()
                state = self.states.get(request.service, _UNKNOWN)
                if state != told:
                    told = state
                    await context.write(health_pb2.HealthCheckResponse(status=state))
                await changed.wait()

    @contextlib.contextmanager
    def _watch(self) -> Iterator[asyncio.Event]:
        changed = asyncio.Event()
        self._watches.add(changed)
        try:
            yield changed
        finally:
            self._watches.discard(changed)

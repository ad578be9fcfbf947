"""``grpc.health.v1.Health``: what load balancers and cluster managers ask before they send anybody.

``""`` is the server as a whole, and ``aipod.v1.Model`` says the same: SERVING until the drain begins. No thread is held
by those who watch, and one that does not read hears the latest when it does.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from google.protobuf.message import DecodeError

from aipod.rpc.front import RawCall, RawStream, StreamOpener
from aipod.rpc.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

__all__ = ["HealthService"]

_CHECK = "/grpc.health.v1.Health/Check"
_WATCH = "/grpc.health.v1.Health/Watch"
_SERVICES = frozenset({"", "aipod.v1.Model"})
_NO_REQUEST = "the request is no grpc.health.v1.HealthCheckRequest"
# For a caller that sends no request at all; the others have their answer at once.
_CHECK_SECONDS = 60.0


class HealthService:
    """Says that all is well, until :meth:`drain`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._serving = True
        self._watches: set[_Watch] = set()

    def __repr__(self) -> str:
        return f"<HealthService, {'serving' if self._serving else 'draining'}, {len(self._watches)} watch>"

    @property
    def methods(self) -> Mapping[str, float | None]:
        """The unary methods, with the timeout for callers that set none."""
        return {_CHECK: _CHECK_SECONDS}

    @property
    def streams(self) -> Mapping[str, StreamOpener]:
        return {_WATCH: self._watch}

    def __call__(self, raw: RawCall) -> None:
        service = _service(raw.message)
        if service is None:
            raw.fail("INVALID_ARGUMENT", _NO_REQUEST, ())
        elif service not in _SERVICES:
            raw.fail("NOT_FOUND", "there is no such service here", ())
        else:
            raw.reply(_message(self.status(service)))

    def status(self, service: str) -> HealthCheckResponse.ServingStatus:
        """What is said of a service now."""
        if service not in _SERVICES:
            return HealthCheckResponse.SERVICE_UNKNOWN
        return HealthCheckResponse.SERVING if self._serving else HealthCheckResponse.NOT_SERVING

    def drain(self) -> None:
        """Say that nothing serves from now on; whoever watches is told."""
        self._serving = False
        for watch in self._snapshot():
            watch.stream.wake()

    def close(self) -> None:
        """End all watches, so that a front that stops need not wait for them."""
        for watch in self._snapshot():
            watch.stream.finish("UNAVAILABLE", "the server was stopped")
            self.forget(watch)

    def forget(self, watch: _Watch) -> None:
        with self._lock:
            self._watches.discard(watch)

    def _watch(self, stream: RawStream) -> _Watch:
        watch = _Watch(self, stream)
        with self._lock:
            self._watches.add(watch)
        return watch

    def _snapshot(self) -> list[_Watch]:
        with self._lock:
            return list(self._watches)


class _Watch:
    """See :class:`~aipod.rpc.front.interface.StreamHandler`."""

    def __init__(self, health: HealthService, stream: RawStream) -> None:
        self._health = health
        self.stream = stream
        self._service: str | None = None
        self._told: HealthCheckResponse.ServingStatus | None = None

    def received(self, message: bytes) -> None:
        if self._service is not None:
            return
        self._service = _service(message)
        if self._service is None:
            self._refuse()
        else:
            self.stream.wake()

    def next_message(self) -> bytes | None:
        if self._service is None:
            return None
        status = self._health.status(self._service)
        if status == self._told:
            return None
        self._told = status
        return _message(status)

    def half_closed(self) -> None:
        if self._service is None:
            self._refuse()

    def gone(self) -> None:
        self._health.forget(self)

    def _refuse(self) -> None:
        self.stream.finish("INVALID_ARGUMENT", _NO_REQUEST)
        self._health.forget(self)


def _service(message: bytes) -> str | None:
    """The service that is asked about; None where the request is none."""
    try:
        service: str = HealthCheckRequest.FromString(message).service
    except DecodeError:
        return None
    return service


def _message(status: HealthCheckResponse.ServingStatus) -> bytes:
    return bytes(HealthCheckResponse(status=status).SerializeToString())

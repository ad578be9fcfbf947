"""The server: an engine behind a front.

``serve(Digits)`` at the end of a script blocks until the process is told to end; ``with Server(Digits, port=0) as
server`` is for programs and tests.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol

from aipod.config import Settings
from aipod.engine import Engine
from aipod.engine.child.origin import reached
from aipod.errors import AipodError, ConfigError, InternalError, Unavailable
from aipod.memory import reuse_freed_memory, settle_heap
from aipod.model.base import AIModelBase
from aipod.rpc.admin_service import AdminService
from aipod.rpc.front import Front, FrontOptions, RawCall, open_front
from aipod.rpc.health_service import HealthService
from aipod.rpc.jobs_service import JobsService
from aipod.rpc.legacy_service import LegacyService
from aipod.rpc.model_service import ModelService
from aipod.rpc.reflection_service import ReflectionService
from aipod.rpc.refusal import Refusals
from aipod.rpc.signals import Signals
from aipod.rpc.trunk_service import TrunkService

__all__ = ["Server", "serve"]

# For answers that are on their way when the last call is done, or was told that its time is over.
_LAST_ANSWERS_SECONDS = 0.5


class Service(Protocol):
    """What answers the calls of some unary methods."""

    @property
    def methods(self) -> Mapping[str, float | None]:
        """Their full names, each with the timeout in seconds for callers that set none; None for none."""

    def __call__(self, raw: RawCall) -> None:
        """Take a call; as a :data:`~aipod.rpc.front.Handler`."""


class Server:
    """Serves a model from :meth:`start` (or ``with``) to :meth:`stop`.

    Args:
        model_class: A subclass of :class:`~aipod.model.AIModelBase`.
        port: The port to listen on, 0 for a free one; None for the environment's.
        settings: By name, stronger than the environment: ``Server(Digits, port=0, data_path=tmp_path,
            model_pool_size=2)``.

    Raises:
        ConfigError: A setting, or the class, makes no sense.
    """

    def __init__(self, model_class: type[AIModelBase], port: int | None = None, **settings: Any) -> None:
        if port is not None:
            settings["listen_port"] = port
        self._engine = Engine(model_class, **settings)
        self.settings: Settings = self._engine.settings
        self._refusals = Refusals(_sends_tracebacks(self.settings), self._engine.data_root)
        self._services: list[Service] = [
            service(self._engine, self._refusals) for service in (ModelService, AdminService, LegacyService)
        ]
        self._health = HealthService()
        self._jobs = JobsService(self._engine, self._refusals)
        self._services += (self._health, self._jobs)
        self._routes = {method: service for service in self._services for method in service.methods}
        timeouts = {method: timeout for service in self._services for method, timeout in service.methods.items()}
        self._trunks = TrunkService(self._handle, timeouts, self.settings)
        streams = {**self._trunks.streams, **self._health.streams, **self._jobs.streams}
        streams.update(ReflectionService([*timeouts, *streams]).streams)
        self._options = FrontOptions(timeouts, self.settings.max_message_bytes, streams)
        self._front: Front | None = None
        self._started = False
        self.listening = ""

    def __repr__(self) -> str:
        state = f"on {self.listening}" if self._front is not None else "stopped" if self._started else "not started yet"
        return f"<Server of {self._engine.model_class.__name__}, {state}>"

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def engine(self) -> Engine:
        return self._engine

    @property
    def address(self) -> str:
        """What a client on this machine connects to; ``listening`` is what the server bound."""
        host, _, port = self.listening.rpartition(":")
        return f"localhost:{port}" if host in ("[::]", "0.0.0.0") else self.listening

    def start(self) -> None:
        """Open the data path, load what is to be preloaded, listen.

        Raises:
            ConfigError: The front that the settings ask for cannot be had with this grpcio.
            StorageError: The data path cannot be used.
            Unavailable: Nothing can listen on the port, or the server was started before.
        """
        if self._started:
            raise Unavailable("a server starts once; make a new one")
        self._started = True
        front = open_front(self.settings.front, self._handle, self._options)
        self._engine.open()
        try:
            self._trunks.start()
            (self.listening,) = front.start(f"{self.settings.listen_host}:{self.settings.listen_port}")
        except BaseException:
            self._trunks.close()
            self._engine.close(0.0)
            raise
        self._front = front

    def stop(self, grace: float | None = None) -> bool:
        """Refuse new calls, finish running ones.

        Args:
            grace: Seconds they may take; None for ``drain_seconds``.

        Returns:
            False if a model was still running at the end.
        """
        front, self._front = self._front, None
        if front is None:
            return True
        # The engine first: a call that comes now is told so. A front that stops cuts it off without a word.
        self._health.drain()
        self._trunks.drain()
        idle = self._engine.close(grace)
        self._trunks.close()
        self._jobs.close()
        self._health.close()
        front.stop(_LAST_ANSWERS_SECONDS)
        return idle

    def _handle(self, raw: RawCall) -> None:
        try:
            self._routes[raw.method](raw)
        except Exception as error:
            # A bug of ours must cost one call, not leave it without an answer.
            internal = InternalError()
            internal.__cause__ = error
            self._refusals.send(raw, internal)


def serve(model_class: type[AIModelBase], port: int | None = None, **settings: Any) -> None:
    """Serve a model until SIGTERM or SIGINT.

    The first signal drains: new calls are refused, running ones get ``AIPOD_DRAIN_SECONDS``, then the process ends with
    0 even if a model is stuck. A second signal ends it at once. What cannot start ends the process with one line on
    stderr: with 2 if a setting makes no sense, with 1 otherwise.

    Args:
        model_class: A subclass of :class:`~aipod.model.AIModelBase`.
        port: The port to listen on; None and, as in 1.0, 0 mean the environment's.
        settings: By name, as for :class:`Server`.
    """
    reached(model_class)
    signals = Signals()
    reuse_freed_memory()
    _log_to_stderr()
    try:
        server = Server(model_class, port or None, **settings)
        logging.getLogger("aipod").setLevel(server.settings.log_level)
        # A load that hangs at the start must not keep the process; what it leaves on disk the next start removes.
        signals.run(server.start, lambda number: os._exit(0))
    except AipodError as error:
        signals.close()
        print(f"aipod: {error}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from None
    settle_heap()
    # Whoever reads our output may be gone; that is no reason not to serve.
    with suppress(OSError):
        print(f"aipod: serving {model_class.__name__} on {server.listening}", flush=True)
    signals.wait()
    idle = signals.run(server.stop, lambda number: os._exit(128 + number))
    signals.close()
    if not idle:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        # A stuck model holds a thread that the interpreter may wait for at its end.
        os._exit(0)


def _sends_tracebacks(settings: Settings) -> bool:
    if settings.send_tracebacks != "auto":
        return settings.send_tracebacks == "always"
    host = settings.listen_host
    if host == "localhost" or host.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _log_to_stderr() -> None:
    """Show our log, unless the program has set logging up itself."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)

"""A connection that is there again by itself, however long the broker was away."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Callable, Mapping
from typing import Any

import nats.errors
from nats.aio.client import Client, Srv
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from aipod.errors import AipodError, ConfigError, Unauthenticated, Unavailable
from aipod.stream.broker.address import Connect
from aipod.stream.broker.failures import translated
from aipod.stream.broker.requests import Requests
from aipod.stream.ending import end
from aipod.stream.errors import Refused
from aipod.stream.pauses import Pauses

__all__ = ["Connect", "Connection", "connect"]

_log = logging.getLogger(__name__)

_TRY = 2.0  # seconds for one server to answer
# Seconds between two tries of one server, from and to: what is back is used again within two.
_PAUSE = 0.1
_LONGEST_PAUSE = 1.5
# A peer that vanished without a word is noticed after three of these. The client's own default is six minutes.
_PING = 5
_CLOSING = 3.0


async def connect(
    spec: Connect, *, wait: float | None = None, on_change: Callable[[bool], None] | None = None
) -> Connection:
    """Connect to a broker.

    Args:
        wait: For how many seconds to keep trying; None for ever. One try is always made.
        on_change: As :meth:`Connection.watch` takes it.

    Raises:
        Unavailable: Nobody answered in time.
        Unauthenticated: The broker does not know us.
        ConfigError: Files that cannot be read, or a certificate that does not fit.
    """
    connection = Connection(spec)
    if on_change is not None:
        connection.watch(on_change)
    await connection.open(wait)
    return connection


class _Client(Client):
    """Leaves no socket behind, and says nothing in the clear where TLS is asked for.

    That of the package forgets a connection that broke off while it was being made, when it tries again: where a
    listener takes all and answers none, a socket at every try. And it leaves TLS to whoever answers.
    """

    async def close(self) -> None:
        await super().close()
        transport: Any = self._transport
        if transport:  # that did nothing if a close() before it was cut short, perhaps in this very waiting
            transport.close()
            await asyncio.gather(transport.wait_closed(), return_exceptions=True)

    async def _connect_to_server(self, s: Srv) -> None:
        transport: Any = self._transport
        if transport:
            transport.close()
        await super()._connect_to_server(s)

    def _connect_command(self) -> bytes:
        assert self._current_server is not None
        # What is carried by wss is so already.
        clear = self._current_server.uri.scheme != "wss" and not self._server_info.get("tls_required")
        if clear and self.options.get("tls"):
            raise nats.errors.SecureConnWantedError
        return super()._connect_command()


class Connection:
    """Belongs to the event loop that opened it.

    Attributes:
        nc: The client. Where the broker shuts a client out for good, another takes its place, so ask each time.
        js: Its JetStream context; likewise.
        generation: Counts how often the broker was there (again): what was asked under a smaller one may be lost.
    """

    nc: Client
    js: JetStreamContext

    def __init__(self, spec: Connect) -> None:
        self.spec = spec
        self.generation = 0
        self._watchers: list[Callable[[bool], None]] = []
        self._requests: Requests | None = None
        self._closing = False
        self._told: set[str] = set()
        self._reopening: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Connection to {self.spec.where}, {'connected' if self.connected else 'away'}>"

    @property
    def connected(self) -> bool:
        return self.generation > 0 and bool(self.nc.is_connected)

    def watch(self, watcher: Callable[[bool], None]) -> None:
        """Have a function called on the loop with whether the broker is there, whenever that changes."""
        self._watchers.append(watcher)

    def unwatch(self, watcher: Callable[[bool], None]) -> None:
        if watcher in self._watchers:
            self._watchers.remove(watcher)

    async def open(self, wait: float | None = None) -> None:
        await self._use(await self._dial(wait))

    async def api(self, what: str, request: Mapping[str, Any] | None = None, timeout: float = 5.0) -> dict[str, Any]:
        """Ask JetStream's own API, such as ``STREAM.INFO.orders``.

        Not through the client's methods, whose arguments and results differ between its versions.

        Raises:
            Unavailable: No answer.
            Refused: The answer is an error.
        """
        payload = json.dumps(request).encode() if request else b""
        reply = await self.request(f"{self.spec.prefix}.{what}", payload, what=what, timeout=timeout)
        answer: dict[str, Any] = json.loads(reply.data)
        if error := answer.get("error"):
            if error.get("code", 500) >= 500:
                raise Unavailable(f"{what}: {error.get('description', 'JetStream is not available now')}")
            raise Refused(what, error["code"], error.get("err_code", 0), error.get("description", "no reason given"))
        return answer

    async def request(
        self,
        subject: str,
        payload: bytes,
        headers: dict[str, str] | None = None,
        *,
        what: str,
        timeout: float = 5.0,
    ) -> Msg:
        """Publish, and wait for an answer.

        Args:
            what: What it is, where an error says that it failed.

        Raises:
            Unavailable: No answer; it may have been heard all the same. NobodyThere, if not.
            InvalidArgument: It cannot be sent.
        """
        if self._requests is None or not self.connected:
            raise Unavailable(f"{what}: the broker at {self.spec.where} is away")
        with translated(what):
            return await self._requests.ask(subject, payload, timeout, headers)

    def denial(self, error: Unavailable, about: str = "") -> str:
        """Give what the broker last said of our permissions, if that can be why it did not answer; "" if not.

        Args:
            about: What its words have to name.
        """
        said = str(self.nc.last_error or "") if self.generation else ""
        denies = "permissions violation" in said.lower() and about.lower() in said.lower()
        return said if denies and error.may_have_run else ""

    async def close(self) -> None:
        """Send what is still to be sent, if the broker is there, and close; never raises, and never takes long."""
        self._closing = True
        await end({task for task in (self._reopening, self._ending) if task is not None})
        if self.generation == 0:
            return
        # Not drain(): it raises while the client reconnects, and waits for subscribers that may be gone.
        if self.nc.is_connected:
            await _bounded(self.nc.flush())
        await _bounded(self.nc.close())

    async def _use(self, client: Client) -> None:
        requests = Requests(client)
        try:
            with translated("connecting"):
                await requests.open()
        except Unavailable:  # it is gone again already
            await _bounded(client.close())
            raise
        self.nc, self._requests = client, requests
        self.js = client.jetstream(domain=self.spec.domain)
        self._changed(True)

    def _changed(self, connected: bool) -> None:
        self.generation += connected
        self._told.clear()
        if not connected and self._requests is not None:
            self._requests.give_up()
        for watcher in list(self._watchers):
            watcher(connected)

    async def _dial(self, wait: float | None) -> Client:
        loop = asyncio.get_running_loop()
        end = None if wait is None else loop.time() + wait
        client, tries = _Client(), 0
        refused: asyncio.Future[None] = loop.create_future()

        async def on_error(error: Exception) -> None:
            nonlocal tries
            if not client.is_connected:
                client.options["reconnect_time_wait"] = min(client.options["reconnect_time_wait"] * 1.5, _LONGEST_PAUSE)
            if refused.done():
                self._on_error(error)
                if _refusal(error) is not None and not client.is_connected:
                    # It would try the same for ever; another reads the files anew, and says what is wrong.
                    self._ending = asyncio.ensure_future(client.close())
                return
            tries += 1
            refusal = _refusal(error)
            if refusal is None and end is not None and loop.time() >= end and tries >= len(self.spec.servers):
                refusal = Unavailable(f"no broker answers at {self.spec.where}; start it, or name another")
            if refusal is not None:
                refused.set_exception(refusal)

        # The client's connect() tries for ever, whatever it is told, so it is a task that can be given up.
        dialing = asyncio.ensure_future(
            client.connect(**self.spec.options(), **self._callbacks(client), **_SETTINGS, error_cb=on_error)
        )
        try:
            await asyncio.wait({dialing, refused}, return_when=asyncio.FIRST_COMPLETED)
            if refused.done():
                refused.result()
            dialing.result()
        except BaseException as error:
            await _give_up(client, dialing)
            if isinstance(error, AipodError) or not isinstance(error, Exception):
                raise
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigError([f"the client cannot connect like this: {reason}"]) from error
        refused.cancel()
        client.options["reconnect_time_wait"] = _PAUSE
        return client

    def _callbacks(self, client: Client) -> dict[str, Any]:
        # Those of a client that another has replaced, or that never was in use, say nothing.
        def current() -> bool:
            return self.generation > 0 and self.nc is client and not self._closing

        async def disconnected() -> None:
            if current():
                _log.warning("the broker at %s is away; trying again until it is back", self.spec.where)
                self._changed(False)

        async def reconnected() -> None:
            client.options["reconnect_time_wait"] = _PAUSE
            if current():
                _log.info("the broker at %s is back", self.spec.where)
                self._changed(True)

        async def closed() -> None:
            if current():
                self._reopening = asyncio.ensure_future(self._reopen())

        return {"disconnected_cb": disconnected, "reconnected_cb": reconnected, "closed_cb": closed}

    async def _reopen(self) -> None:
        """Take another client in place of one that was closed for good, as after a change of passwords."""
        pauses = Pauses(_PAUSE, _LONGEST_PAUSE)
        while True:
            await asyncio.sleep(pauses.next())
            try:
                return await self._use(await self._dial(None))
            except AipodError as error:
                _log.error("the broker at %s shut us out: %s", self.spec.where, error)

    def _on_error(self, error: Exception) -> None:
        # Said once for each reason, since nobody else can say it: a request that is not permitted is never answered,
        # and a client that is not let in tries again and again.
        text = str(error)
        told = text in self._told or not any(word in text.lower() for word in ("permissions", "authorization"))
        self._told.add(text)
        _log.log(logging.DEBUG if told else logging.WARNING, "the connection to %s: %s", self.spec.where, error)


_SETTINGS: dict[str, Any] = {
    "connect_timeout": _TRY,
    "reconnect_time_wait": _PAUSE,
    "max_reconnect_attempts": -1,
    "ping_interval": _PING,
    "max_outstanding_pings": 2,
}


def _refusal(error: Exception) -> AipodError | None:
    """What trying again will not change; None if it may."""
    text = str(error).lower()
    if isinstance(error, nats.errors.AuthorizationError) or "authorization" in text or "authentication" in text:
        return Unauthenticated("the broker does not let us in; give it the right user, token, creds or nkey_seed")
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConfigError([f"the broker's certificate is not to be trusted: {error.verify_message}; see tls_ca"])
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
        reason = str(error.reason).rpartition("ALERT_")[2].replace("_", " ").lower()
        return ConfigError([f"the broker refuses the TLS handshake: {reason}; see tls_cert and tls_key"])
    if isinstance(error, nats.errors.SecureConnWantedError):
        return ConfigError(["the broker has no TLS, so nothing was said to it; switch it on there, or off here"])
    return None


async def _give_up(client: Client, dialing: asyncio.Future[None]) -> None:
    await end({dialing})
    await _bounded(client.close())


async def _bounded(ending: Any) -> None:
    try:
        await asyncio.wait_for(ending, _CLOSING)
    except Exception as error:  # whatever it is, there is nothing left to do with this client
        _log.debug("while closing: %s", error)

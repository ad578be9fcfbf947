"""The front on grpcio's completion queue, the layer that grpcio's own Python servers are written on.

One thread polls the queue. It takes what arrives to the handlers, and never waits for anything else; what is sent is
sent by whoever has it, on its own thread. Calls that say nothing cost memory, and no thread.

The layer is private to grpcio (``grpc._cython.cygrpc``); ``grpc/_server.py`` is its documentation, and :func:`missing`
says whether it is as we know it. The rules of an RPC are in :mod:`aipod.rpc.front.cq_rpc`; those of the loop are:

1. An RPC that arrives with ``success=False`` is none: the server ends, and to touch its call is a segmentation fault.
2. An event is let go before the next poll: it holds a call, and with it all that the call holds.
3. The loop ends when the server has said that it is down, no request is outstanding and no RPC is left; the server is
   destroyed after that, and by nobody else.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import Any

from grpc._cython import cygrpc

from aipod.rpc.front.cq_rpc import CqCall, CqRefusal, CqRpc, CqStream
from aipod.rpc.front.end import TOO_MANY_STREAMS, UNKNOWN_METHOD
from aipod.rpc.front.interface import FrontOptions, Handler
from aipod.rpc.front.listening import bind_all, server_arguments, server_credentials

__all__ = ["CqFront", "missing"]

_log = logging.getLogger("aipod.rpc")

_ARRIVED = "an RPC arrived"
_DOWN = "the server is down"
# How many RPCs gRPC can hand over without asking again.
_REQUESTS = 32


class CqFront:
    """See :class:`~aipod.rpc.front.interface.Front`.

    Args:
        handler: Takes the calls.
        options: What to keep to.
    """

    def __init__(self, handler: Handler, options: FrontOptions) -> None:
        self._handler = handler
        self._options = options
        self._methods = {method.encode(): method for method in (*options.methods, *options.streams)}
        self._thread = threading.Thread(target=self._serve, name="aipod-front", daemon=True)
        self._queue: Any = None
        self._server: Any = None
        self._stopped = False
        # What follows belongs to the poll thread.
        self._requested = 0
        self._down = False
        self._rpcs: dict[str, set[CqRpc]] = {CqCall.kind: set(), CqStream.kind: set()}
        # For each timeout of ours the calls that have it, the oldest first, and when it passes for each.
        self._patience: dict[float, dict[CqCall, float]] = {limit: {} for limit in options.methods.values() if limit}
        self._next_look = math.inf

    def start(self, *addresses: str) -> list[str]:
        queue = cygrpc.CompletionQueue()
        server = cygrpc.Server(tuple(server_arguments(self._options)), False)
        server.register_completion_queue(queue)
        credentials = server_credentials(self._options.credentials)
        secure = () if credentials is None else (credentials._credentials,)
        try:
            bound = bind_all(addresses, lambda address: int(server.add_http2_port(address.encode(), *secure)))
        except BaseException:
            _abandon(server, queue)
            raise
        server.start()
        self._queue, self._server = queue, server
        self._request()
        self._thread.start()
        return bound

    def stop(self, grace: float) -> None:
        if self._server is None or self._stopped:
            return
        self._stopped = True
        self._server.shutdown(self._queue, _DOWN)
        self._thread.join(grace)
        if self._thread.is_alive():
            self._server.cancel_all_calls()
            self._thread.join()
        self._server.destroy()

    def counters(self) -> dict[str, int]:
        rpcs = {kind: list(these) for kind, these in self._rpcs.items()}
        sends = sum(rpc.sending for these in rpcs.values() for rpc in these)
        return {**{kind: len(these) for kind, these in rpcs.items()}, "sends": sends}

    def adopt(self, rpc: CqRpc) -> None:
        """An RPC has begun. On the poll thread."""
        self._rpcs[rpc.kind].add(rpc)

    def forget(self, rpc: CqRpc) -> None:
        """An RPC is over. On the poll thread."""
        self._rpcs[rpc.kind].discard(rpc)
        if isinstance(rpc, CqCall):
            waiting = self._patience.get(self._options.methods[rpc.method] or 0.0)
            if waiting:
                waiting.pop(rpc, None)

    def _serve(self) -> None:
        while self._requested or not self._down or any(self._rpcs.values()):
            event = self._queue.poll(self._until())
            try:
                self._dispatch(event)
            except BaseException:
                _log.exception("an event could not be handled")
            del event

    def _until(self) -> float | None:
        """When to look at the clock again; gRPC wants the wall's, and any event comes before that anyway."""
        return None if self._next_look == math.inf else time.time() + self._next_look - time.monotonic()

    def _dispatch(self, event: Any) -> None:
        tag = event.tag
        if tag is _ARRIVED:
            self._requested -= 1
            if event.success:
                self._request()
                self._begin(event)
        elif tag is _DOWN:
            self._down = True
        elif tag is not None:
            tag(event)
        if time.monotonic() >= self._next_look:
            self._look()

    def _request(self) -> None:
        """Ask for RPCs, up to as many as may come at a time."""
        while self._requested < _REQUESTS:
            try:
                self._server.request_call(self._queue, self._queue, _ARRIVED)
            except ValueError:  # The server ends.
                return
            self._requested += 1

    def _begin(self, event: Any) -> None:
        method = self._methods.get(event.call_details.method, "")
        if method in self._options.methods:
            call = CqCall(self, method, event, self._handler)
            call.begin()
            self._limit(call)
        elif not method:
            CqRefusal(self, "an unknown method", event).begin(UNKNOWN_METHOD)
        elif len(self._rpcs[CqStream.kind]) >= self._options.max_streams:
            CqRefusal(self, method, event).begin(TOO_MANY_STREAMS)
        else:
            CqStream(self, method, event).begin(self._options.streams[method])

    def _limit(self, call: CqCall) -> None:
        """Hold a call to our timeout, if it has none of its own."""
        limit = self._options.methods[call.method]
        if limit and call.deadline is None:
            call.deadline = time.monotonic() + limit
            self._patience[limit][call] = call.deadline
            self._next_look = min(self._next_look, call.deadline)

    def _look(self) -> None:
        """Answer the calls whose time is over."""
        now = time.monotonic()
        self._next_look = math.inf
        for waiting in self._patience.values():
            while waiting:
                call = next(iter(waiting))
                if waiting[call] > now:
                    self._next_look = min(self._next_look, waiting[call])
                    break
                del waiting[call]
                call.expire()


def _abandon(server: Any, queue: Any) -> None:
    """Give up a server that has not started: only one that did lets go of its sockets."""
    server.start()
    server.shutdown(queue, _DOWN)
    while queue.poll().tag is not _DOWN:
        pass
    server.destroy()


# What we use of the layer.
_NAMES = """
    CompletionQueue.poll
    Server.add_http2_port Server.cancel_all_calls Server.destroy Server.register_completion_queue Server.request_call
    Server.shutdown Server.start
    Call.cancel Call.peer Call.start_server_batch
    ReceiveCloseOnServerOperation.cancelled ReceiveMessageOperation.message
    SendInitialMetadataOperation SendMessageOperation SendStatusFromServerOperation
    StatusCode.ok peer_identities
"""


def missing() -> str:
    """What the layer does not have of what we use, as names; ``""`` if it is as it should be."""
    return " ".join(name for name in _NAMES.split() if not _has(name))


def _has(name: str) -> bool:
    found: Any = cygrpc
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is not None

"""The front: turns sockets into raw calls and streams, and back. The contract; implementations are silent about it.

A front knows method names, metadata, deadlines and bytes. It knows neither protobuf nor models, and it never runs user
code: the handler that it is given takes a call and returns at once, and the answer comes later, from any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from aipod.codec import Room
from aipod.shm import Link

__all__ = [
    "Front",
    "FrontOptions",
    "Handler",
    "Loans",
    "Metadata",
    "RawCall",
    "RawStream",
    "ServerCredentialsSpec",
    "StreamHandler",
    "StreamOpener",
]

Metadata = Sequence[tuple[str, str | bytes]]


class Loans(Protocol):
    """What one message lends."""

    def take_back(self) -> None:
        """The message is not going to be sent."""


class Rpc(Protocol):
    """What calls and streams have in common, on the server's side."""

    @property
    def method(self) -> str:
        """The full name, ``/package.Service/Method``."""

    @property
    def deadline(self) -> float | None:
        """Instant on the monotonic clock at which the caller gives up; None if it never does."""

    @property
    def peer(self) -> str:
        """Who calls, in gRPC's words: ``ipv4:127.0.0.1:5000``, ``unix:``. ``""`` once the call is over."""

    @property
    def metadata(self) -> Metadata:
        """What the caller sent beside its message; a key that ends in ``-bin`` has bytes."""

    @property
    def identities(self) -> Sequence[str]:
        """The names in the caller's certificate, which our authority vouches for; none without one."""


class RawCall(Rpc, Protocol):
    """One unary RPC on the server's side."""

    @property
    def message(self) -> bytes:
        """The request as it came; to be taken while the handler runs, not kept for later."""

    @property
    def link(self) -> Link | None:
        """The memory that is shared with the caller; None on a way that has none."""

    @property
    def room(self) -> Room | None:
        """Memory for a reply; None on a way where replies are bytes."""

    def reply(self, message: bytes | memoryview, loans: Loans | None = None) -> None:
        """Answer. The first answer counts; one to a call that is gone is dropped. Callable from any thread.

        Args:
            message: The reply; where there is :attr:`room`, it may lie there.
            loans: What it lends on the :attr:`link`.
        """

    def fail(self, status: str, details: str, trailing: Metadata) -> None:
        """Answer with the status of that name, as :meth:`reply` does."""

    def on_gone(self, action: Callable[[], None]) -> None:
        """Have an action run when the caller gives up or its deadline passes; it must be short."""


Handler = Callable[[RawCall], None]


class RawStream(Rpc, Protocol):
    """One bidirectional RPC on the server's side, as the front gives it to who handles it.

    The peer learns at once that it is open: the front sends its initial metadata when the handler has been made. A
    method that sends many messages for one is such a stream, too; it gets one message and then the end of them.
    """

    def wake(self) -> None:
        """Say that there is something to send: :meth:`StreamHandler.next_message` is asked soon, perhaps before this
        returns. Callable from any thread, also from within the handler; never blocks.
        """

    def hold(self, held: bool) -> None:
        """Stop to read from the peer, or go on: it must wait then. Callable from any thread.

        At most one message still arrives after ``hold(True)``, none if the handler says it while it takes one.
        """

    def finish(self, status: str = "OK", details: str = "", trailing: Metadata = ()) -> None:
        """End the stream with the status of that name, after all that the handler has to send.

        Callable from any thread; the first one counts. No message is taken from then on. A peer that does not read
        keeps its stream open until it goes.
        """


class StreamHandler(Protocol):
    """What the front talks to for one stream. Nothing of it may raise, or take long."""

    def received(self, message: bytes) -> None:
        """Take a whole message; they come in order, on the front's thread."""

    def next_message(self) -> bytes | None:
        """Give the next message to send; None if there is nothing.

        Asked after :meth:`RawStream.wake`, and again when a message has left, until there is nothing: all that waits by
        then can leave together. One thread asks at a time, the one that woke or the front's.
        """

    def half_closed(self) -> None:
        """The peer sends no more; it may still read. On the front's thread.

        One that is gone looks like this at first: :meth:`gone` follows, unless the stream is finished here.
        """

    def gone(self) -> None:
        """Nothing can be sent any more: cancelled, connection lost, deadline passed, or front stopped.

        Comes once, at the end of a stream that was not finished by us; on the front's thread, perhaps while another
        thread is in :meth:`next_message`.
        """


StreamOpener = Callable[[RawStream], StreamHandler]


@dataclass(frozen=True)
class ServerCredentialsSpec:
    """What TLS needs, as texts in PEM.

    Attributes:
        private_key: The server's key.
        certificate_chain: Its certificate, and those that vouch for it.
        client_authority: Who vouches for clients; None if nobody asks them for a certificate.
        require_client_certificate: Whether a client without one is turned away; needs ``client_authority``.
    """

    private_key: bytes = field(repr=False)
    certificate_chain: bytes
    client_authority: bytes | None = None
    require_client_certificate: bool = False


@dataclass(frozen=True)
class FrontOptions:
    """What a front has to keep to.

    Attributes:
        methods: The full names of the unary methods, each with the timeout in seconds that holds where the caller set
            none (None: none).
        max_message_bytes: The largest message to take, decompressed; a larger one ends its RPC with
            RESOURCE_EXHAUSTED.
        streams: The full names of the bidirectional methods, each with what makes the handler of a new stream. It is
            called on the front's thread.
        max_sent_bytes: The largest message to send, as ``max_message_bytes``; -1 sets no limit.
        max_streams: How many streams may be open at a time; one more is refused with RESOURCE_EXHAUSTED.
        credentials: For TLS; None serves in plain text.
        compression: ``"gzip"`` for what is sent to peers that understand it; None for none.
    """

    methods: Mapping[str, float | None]
    max_message_bytes: int
    streams: Mapping[str, StreamOpener] = field(default_factory=dict)
    max_sent_bytes: int = -1
    max_streams: int = 10_000
    credentials: ServerCredentialsSpec | None = None
    compression: str | None = None


class Front(Protocol):
    """A listening server. It starts once, and ends once."""

    def start(self, *addresses: str) -> list[str]:
        """Listen on each address and take calls from now on; gives the addresses with their real ports.

        Args:
            addresses: ``host:port`` (port 0: a free one), ``unix:/path`` or ``unix-abstract:name``.

        Raises:
            Unavailable: Nothing can listen on one of them, because somebody else does or there is no such address; or
                TLS cannot be had with these credentials. Nothing listens then.
        """

    def stop(self, grace: float) -> None:
        """Refuse new calls at once, give the others ``grace`` seconds, cancel what is left, close the sockets.

        Whoever is still open hears that it is gone before this returns. Not to be called on the front's own thread.
        """

    def counters(self) -> dict[str, int]:
        """What is open: ``calls`` that are not answered, ``streams``, and ``sends`` that have not left yet."""

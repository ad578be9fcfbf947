"""Shared memory between two processes of one host: what is lent is read where it lies, and nothing has a name.

Each of the two has one :class:`~aipod.shm.region.Region`, a sealed ``memfd`` that it alone writes to and that the other
one maps to read. They give each other its descriptor once, on a unix socket, and from then on tell each other places
by whatever way they talk otherwise::

    one process                                     the other
    ───────────                                     ─────────
    loan = link.arena.lend(nbytes)
    … writes loan.view
    sends loan.place ────────── any way ──────────▶ view = link.borrowed.borrow(place)
                                                    … reads it, keeps views of it, drops them
    the slice is free again ◀──── one byte ──────── the last of them dies

A server has a :class:`Listener`. For each of its connections it makes a :class:`Ticket` and tells the client the
ticket's :class:`Invitation`; the client goes to :func:`connect` with that; both have a :class:`Link` then. A parent and
its child, who have a socket between them already, use :func:`exchange`.

``docs/shared-memory.md`` says what holds, and why. Where :func:`available` says that something is missing, nothing else
of this package may be used; to import it is harmless everywhere.
"""

from __future__ import annotations

from aipod.shm.arena import Arena, Loan
from aipod.shm.borrowed import Borrowed
from aipod.shm.budget import Budget
from aipod.shm.lender import Lender
from aipod.shm.link import Invitation, Link, available, connect, exchange
from aipod.shm.listener import Listener, Ticket
from aipod.shm.region import Place

__all__ = [
    "Arena",
    "Borrowed",
    "Budget",
    "Invitation",
    "Lender",
    "Link",
    "Listener",
    "Loan",
    "Place",
    "Ticket",
    "available",
    "connect",
    "exchange",
]

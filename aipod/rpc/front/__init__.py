"""Sockets to raw calls and back: one interface, and what implements it."""

from __future__ import annotations

from aipod.rpc.front.choice import open_front
from aipod.rpc.front.interface import (
    Front,
    FrontOptions,
    Handler,
    Loans,
    Metadata,
    RawCall,
    RawStream,
    ServerCredentialsSpec,
    StreamHandler,
    StreamOpener,
)

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
    "open_front",
]

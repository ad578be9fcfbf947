"""Sockets to raw calls and back: one interface, and what implements it."""

from __future__ import annotations

from aipod.rpc.front.aio import AioFront
from aipod.rpc.front.interface import Front, FrontOptions, Handler, RawCall

__all__ = ["AioFront", "Front", "FrontOptions", "Handler", "RawCall"]

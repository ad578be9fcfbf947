"""Which front serves."""

from __future__ import annotations

import logging
from typing import Literal

import grpc

from aipod.errors import ConfigError
from aipod.rpc.front.aio import AioFront
from aipod.rpc.front.cq import CqFront, missing
from aipod.rpc.front.interface import Front, FrontOptions, Handler

__all__ = ["open_front"]

_log = logging.getLogger("aipod.rpc")

# The versions of grpcio between which the suite was run against the cq front (make test-grpcio): its layer is private,
# and may change with any other.
_OLDEST, _NEWEST = (1, 62), (1, 85)


def open_front(kind: Literal["auto", "cq", "aio"], handler: Handler, options: FrontOptions) -> Front:
    """Make the front of that kind; it does not listen yet.

    Args:
        kind: ``auto`` takes ``cq`` where it is known to work, and ``aio`` elsewhere, with a warning.
        handler: Takes the calls.
        options: What to keep to.

    Raises:
        ConfigError: This grpcio does not have what ``cq`` needs, and it was asked for by name.
    """
    if kind == "aio":
        return AioFront(handler, options)
    reason = f"it does not have {lacking}" if (lacking := missing()) else ""
    if kind == "cq":
        if reason:
            raise ConfigError([f"front is 'cq', and that does not work with grpcio {grpc.__version__}: {reason}"])
        return CqFront(handler, options)
    if not reason and not _OLDEST <= _version(grpc.__version__) <= _NEWEST:
        reason = "it was not tested with that"
    if not reason:
        return CqFront(handler, options)
    _log.warning(
        "calls take longer than they could: the fast front is not used with grpcio %s (%s); AIPOD_FRONT=%s",
        grpc.__version__,
        reason,
        "aio says that this is meant" if lacking else "cq uses it all the same",
    )
    return AioFront(handler, options)


def _version(text: str) -> tuple[int, int]:
    major, minor, *_ = text.split(".")
    return int(major), int(minor)

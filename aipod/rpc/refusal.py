"""How a call that failed is answered and logged; the same for every service."""

from __future__ import annotations

import logging
from secrets import token_hex

from aipod.engine.invoke import traceback_text
from aipod.errors import AipodError, Cancelled, DeadlineExceeded, InvalidArgument, ModelError, Overloaded, Unavailable
from aipod.rpc.front import RawCall
from aipod.rpc.status import status_of_error

__all__ = ["Refusals"]

_log = logging.getLogger("aipod.errors")

# Nobody's fault and possibly many a second: the caller knows all there is to know.
_UNREMARKABLE = (Overloaded, Unavailable, Cancelled, DeadlineExceeded)


class Refusals:
    """Answers calls with errors.

    Args:
        send_tracebacks: Whether callers get the traceback of the model's code; the log always does.
    """

    def __init__(self, send_tracebacks: bool) -> None:
        self._send_tracebacks = send_tracebacks

    def send(self, raw: RawCall, error: AipodError, version: str = "") -> None:
        """Log an error under an id and answer with both; never raises."""
        trace = _traceback(error)
        if not isinstance(error, _UNREMARKABLE):
            error.error_id = token_hex(4)
            level = logging.INFO if isinstance(error, InvalidArgument) else logging.ERROR
            tail = f"\n{trace}" if trace else ""
            _log.log(level, "[%s] %s of version %r: %s%s", error.error_id, raw.method, version, error, tail)
        raw.fail(*status_of_error(error, trace if self._send_tracebacks else ""))


def _traceback(error: AipodError) -> str:
    if isinstance(error, ModelError):
        return error.traceback
    return traceback_text(error.__cause__) if error.__cause__ is not None else ""

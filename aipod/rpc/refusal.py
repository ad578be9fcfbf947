"""How a call that failed is answered and logged; the same for every service."""

from __future__ import annotations

import logging
from pathlib import Path
from secrets import token_hex

from aipod.engine.invoke import traceback_text
from aipod.errors import (
    AipodError,
    Cancelled,
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    Overloaded,
    Unavailable,
)
from aipod.rpc.front import Metadata, RawCall
from aipod.rpc.status import status_of_error

__all__ = ["Refusals"]

_log = logging.getLogger("aipod.errors")

# Nobody's fault and possibly many a second: the caller knows all there is to know.
_UNREMARKABLE = (Overloaded, Unavailable, Cancelled, DeadlineExceeded)


class Refusals:
    """Answers calls with errors.

    Args:
        send_tracebacks: Whether callers get the traceback of the model's code; the log always does.
        data_root: A path that callers need not know; what models raise is full of it.
    """

    def __init__(self, send_tracebacks: bool, data_root: Path) -> None:
        self._send_tracebacks = send_tracebacks
        self._secret = str(data_root)

    def send(self, raw: RawCall, error: AipodError, version: str = "") -> None:
        """Log an error under an id and answer with both; never raises."""
        raw.fail(*self.told(raw.method, error, version))

    def told(self, method: str, error: AipodError, version: str = "") -> tuple[str, str, Metadata]:
        """Log an error under an id; gives the status' name, the details and the trailing metadata; never raises."""
        trace = _traceback(error)
        if not isinstance(error, _UNREMARKABLE):
            error.error_id = token_hex(4)
            level = logging.INFO if isinstance(error, InvalidArgument) else logging.ERROR
            tail = f"\n{trace}" if trace else ""
            _log.log(level, "[%s] %s of version %r: %s%s", error.error_id, method, version, error, tail)
        try:
            status, sentence, trailing = status_of_error(error, trace if self._send_tracebacks else "")
        except Exception:
            # A class of a user's can fail at anything, and its caller still waits.
            _log.exception("[%s] the error cannot be told as it is", error.error_id)
            status, sentence, trailing = status_of_error(InternalError())
        return status, sentence.replace(self._secret, "<data path>"), trailing


def _traceback(error: AipodError) -> str:
    return error.traceback or (traceback_text(error.__cause__) if error.__cause__ is not None else "")

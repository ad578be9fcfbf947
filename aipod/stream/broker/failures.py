"""The one seam where errors of the broker and of its client become errors of our tree."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import nats.errors
from nats.js.errors import APIError

from aipod.errors import InvalidArgument, Unavailable
from aipod.stream.errors import Refused

__all__ = ["translated"]

# What no second try makes better.
_OURS = (
    nats.errors.MaxPayloadError,
    nats.errors.BadSubjectError,
    nats.errors.JsonParseError,
    getattr(nats.errors, "BadHeaderError", nats.errors.BadSubjectError),
)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn what the client raises into what the rest of AIPOD understands.

    Raises:
        Unavailable: The broker is away, or did not answer in time; it may have done what it was asked.
        Refused: It answered with an error.
        InvalidArgument: The client would not even send it.
    """
    try:
        yield
    except APIError as error:
        # Not all of them have the attributes that their class declares.
        code, number = getattr(error, "code", None), getattr(error, "err_code", None)
        reason = getattr(error, "description", None)
        if code is None or code >= 500:
            why = reason or "JetStream is not available now; is it switched on?"
            raise Unavailable(f"{doing}: {why}", may_have_run=True) from error
        raise Refused(doing, code, number or 0, reason or "no reason given") from error
    except _OURS as error:
        raise InvalidArgument(f"{doing}: {error}") from error
    except (nats.errors.Error, asyncio.TimeoutError, OSError) as error:
        raise Unavailable(f"{doing}: the broker does not answer now", may_have_run=True) from error

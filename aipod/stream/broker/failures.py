"""The one seam where errors of the broker and of its client become errors of our tree."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import nats.errors
from nats.js.errors import APIError

from aipod.errors import AipodError, InvalidArgument, Unavailable

__all__ = ["Refused", "Replaced", "translated"]

_NO_MESSAGE = 10037
# What no second try makes better.
_OURS = (
    nats.errors.MaxPayloadError,
    nats.errors.BadSubjectError,
    nats.errors.JsonParseError,
    getattr(nats.errors, "BadHeaderError", nats.errors.BadSubjectError),
)


class Refused(AipodError):
    """The broker understood, and said no.

    Attributes:
        code: As in HTTP.
        err_code: JetStream's own number, which says more.
    """

    status = "FAILED_PRECONDITION"

    def __init__(self, doing: str, code: int, err_code: int, description: str) -> None:
        super().__init__(f"{doing}: the broker refused: {description} ({err_code})")
        self.code = code
        self.err_code = err_code
        self.description = description

    @property
    def is_not_found(self) -> bool:
        """Whether the message that was asked for is not in its stream."""
        return self.err_code == _NO_MESSAGE


class Replaced(Unavailable):
    """The stream is not the one that it was."""

    def __init__(self, stream: str) -> None:
        super().__init__(f"stream {stream!r} was made anew or has lost its end; the task has to start afresh")


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
        code = getattr(error, "code", None)
        if code is None or code >= 500:
            raise Unavailable(f"{doing}: JetStream is not available now", may_have_run=True) from error
        number, reason = getattr(error, "err_code", None), getattr(error, "description", None)
        raise Refused(doing, code, number or 0, reason or "no reason given") from error
    except _OURS as error:
        raise InvalidArgument(f"{doing}: {error}") from error
    except (nats.errors.Error, asyncio.TimeoutError, OSError) as error:
        raise Unavailable(f"{doing}: the broker does not answer now", may_have_run=True) from error

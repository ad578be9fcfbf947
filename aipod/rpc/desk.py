"""Unary verbs that may wait, for the disk or for a load: each request runs on a thread of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from google.protobuf.message import DecodeError, Message

from aipod.engine import Engine
from aipod.errors import AipodError, InternalError, InvalidArgument
from aipod.rpc.front import RawCall
from aipod.rpc.refusal import Refusals

__all__ = ["Desk", "Verb"]

# Takes the request, and the seconds that the caller allows; gives the reply, written already or not.
Verb = Callable[[Any, "float | None"], "Message | bytes | memoryview"]


class Desk:
    """Answers the verbs of one service.

    Args:
        engine: What runs them.
        refusals: How errors are answered.
        service: Its full name, ``/package.Service/``.
        verbs: By name, what their request is, and what they do.
        unlimited: Those that have no timeout where the caller sets none.
    """

    def __init__(
        self,
        engine: Engine,
        refusals: Refusals,
        service: str,
        verbs: Mapping[str, tuple[type[Message], Verb]],
        unlimited: frozenset[str] = frozenset(),
    ) -> None:
        self._engine = engine
        self._refusals = refusals
        self._verbs = {service + name: verb for name, verb in verbs.items()}
        default = engine.settings.default_timeout or None
        self.methods: Mapping[str, float | None] = {
            service + name: None if name in unlimited else default for name in verbs
        }

    def __call__(self, raw: RawCall) -> None:
        try:
            # The message is taken now: it is gone when this returns.
            self._engine.background("admin", partial(self._answer, raw, raw.message))
        except AipodError as error:
            self._refusals.send(raw, error)

    def _answer(self, raw: RawCall, message: bytes) -> None:
        request_type, verb = self._verbs[raw.method]
        request = None
        try:
            request = request_type.FromString(message)
            timeout = None if raw.deadline is None else max(0.0, raw.deadline - time.monotonic())
            reply = verb(request, timeout)
            raw.reply(reply.SerializeToString() if isinstance(reply, Message) else reply)
        except DecodeError:
            self._refusals.send(raw, InvalidArgument(f"the request is no {request_type.DESCRIPTOR.full_name} message"))
        except AipodError as error:
            self._refusals.send(raw, error, getattr(request, "version", ""))
        except Exception as error:
            internal = InternalError()
            internal.__cause__ = error
            self._refusals.send(raw, internal)

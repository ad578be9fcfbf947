"""What the two clients have in common: their options, and where they go; how they wait is their own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar
from uuid import uuid4

from aipod.errors import InvalidArgument
from aipod.rpc.arguments import (
    DEFAULT_RETRY,
    take_flag,
    take_priority,
    take_request_id,
    take_retry,
    take_timeout,
    take_version,
)
from aipod.rpc.calls import Attempts, Content
from aipod.rpc.connection import BaseConnection
from aipod.rpc.methods import MODEL_METHODS

__all__ = ["CONNECT_SECONDS", "UNSET", "BaseClient", "only"]

CONNECT_SECONDS = 5.0

C = TypeVar("C", bound=BaseConnection)


class _Unset:
    def __repr__(self) -> str:
        return "unchanged"


UNSET: Any = _Unset()


class BaseClient:
    """All that a client is, but for how it waits."""

    def _set_up(self, version: str | None, timeout: float | None) -> None:
        self.version = take_version(version)
        seconds = take_timeout(timeout)
        self._timeouts = {method: None if method == "train" else seconds for method in MODEL_METHODS}
        self._retry = DEFAULT_RETRY
        self._priority = 0
        self._timed = False
        self._request_id = ""

    def _variant(
        self, timeout: float | None, retry: int | bool, priority: int, timed: bool, request_id: str | None
    ) -> Any:
        variant = copy.copy(self)
        if timeout is not UNSET:
            variant._timeouts = dict.fromkeys(MODEL_METHODS, take_timeout(timeout))
        if retry is not UNSET:
            variant._retry = take_retry(retry)
        if priority is not UNSET:
            variant._priority = take_priority(priority)
        if timed is not UNSET:
            variant._timed = take_flag("timed", timed)
        if request_id is not UNSET:
            variant._request_id = take_request_id(request_id)
        return variant

    def _content(self, kwargs: dict[str, Any]) -> Content:
        return Content(self.version, kwargs, self._priority, self._timed)

    def _attempts(self, method: str) -> Attempts:
        return Attempts(method, self._timeouts[method], self._retry)

    def _training(self, kwargs: dict[str, Any]) -> Content:
        """A train that may be sent again: whoever gets it twice knows it by its id."""
        return Content(self.version, kwargs, self._priority, self._timed, self._request_id or uuid4().hex)


def only(connections: Sequence[C]) -> C:
    if len(connections) > 1:
        raise InvalidArgument("this client is for several servers; make one for the server that is meant")
    return connections[0]

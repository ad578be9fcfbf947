"""Results as questions to another model; what it answers goes on. No record."""

from __future__ import annotations

from dataclasses import replace

from aipod.errors import (
    Cancelled,
    DeadlineExceeded,
    LoadError,
    ModelCrashed,
    NotInitialized,
    Overloaded,
    Unavailable,
    VersionNotFound,
)
from aipod.rpc.client import AsyncAIClient
from aipod.stream.result import Result
from aipod.stream.sinks.interface import Sink
from aipod.stream.version import find_version

__all__ = ["ModelSink"]

# Of the server's moment, not of what it was asked.
_PASSING = (Overloaded, DeadlineExceeded, Cancelled, LoadError, ModelCrashed, NotInitialized, VersionNotFound)


class ModelSink:
    """Asks ``predict(result=…, window={"key", "id", "revision", "start", "end", "count", "reason"})``.

    Args:
        address: Of the server.
        version: The version, or an alias.
        timeout: Seconds for one call.
        then: Where the answer goes, in place of the result that was asked about; None drops it.
    """

    def __init__(
        self, address: str, version: str = "default", *, timeout: float = 60.0, then: Sink | None = None
    ) -> None:
        self.name = f"model:{address}/{version}"
        self._address = address
        self._version = version
        self._client = AsyncAIClient(address, version, timeout)
        self._then = then

    def __repr__(self) -> str:
        return f"ModelSink({self.name!r})"

    async def open(self) -> None:
        """The server may be away for now: a result waits for it then."""
        if self._then is not None:
            await self._then.open()

    async def foresee(self) -> str:
        """Say how the version is there.

        Raises:
            AipodError: As :func:`~aipod.stream.version.find_version`.
        """
        return await find_version(self._address, self._version)

    async def write(self, result: Result) -> None:
        recorded = result.recorded
        window = {
            "key": recorded.key,
            "id": recorded.id,
            "revision": recorded.revision,
            "start": recorded.start,
            "end": recorded.end,
            "count": result.count,
            "reason": recorded.reason,
        }
        try:
            answer = await self._client.predict(result=result.value, window=window)
        except _PASSING as error:
            raise Unavailable(f"{self.name}: {error}", may_have_run=True) from error
        if self._then is not None:
            await self._then.write(replace(result, value=answer))

    async def close(self) -> None:
        await self._client.close()
        if self._then is not None:
            await self._then.close()

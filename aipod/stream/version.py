"""Whether a model server has a version, asked before anything runs."""

from __future__ import annotations

import asyncio

from aipod.errors import LoadError, NotSupportedError, Unavailable, VersionNotFound
from aipod.rpc.client import AsyncAIClient

__all__ = ["find_version"]

_PATIENCE = 3.0


async def find_version(address: str, version: str) -> str:
    """Say how a version, or what an alias stands for, is there.

    Raises:
        VersionNotFound: It is not, and others are.
        LoadError: It failed to load.
        Unavailable: The server is away.
    """
    async with AsyncAIClient(address, version) as client:
        try:
            there = await asyncio.wait_for(client.admin.versions(), _PATIENCE)
        except NotSupportedError:
            return f"{address} answers, and does not say which versions it has"
        except (TimeoutError, asyncio.TimeoutError):
            raise Unavailable(f"the model server at {address} did not answer within {_PATIENCE:g} s") from None
    found = next((one for one in there if version == one.version or version in one.aliases), None)
    if found is not None and found.state == "failed":
        raise LoadError(found.version, found.reason)
    if found is None or not found.revisions:
        if any(one.revisions for one in there):
            raise VersionNotFound(version)
        # A model that keeps nothing answers under any name.
        return f"{address} answers; no version is initialized there, which is right if the model keeps nothing"
    alias = "" if found.version == version else f", as {found.version}"
    return f"version {version} is at {address}{alias}"

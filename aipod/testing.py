"""A served model inside a test: a real server on a free port of this machine, and a client to talk to it.

::

    @pytest.fixture
    def digits():
        with served(Digits) as client:
            client.initialize(layers=[16])
            client.train(epochs=1)
            yield client

    def test_it_reads_a_digit(digits):
        assert digits.predict(images=[A_THREE])["digits"] == [3]

What a model needs no server for is quicker without one: ``Digits("v1", datapath=tmp_path)`` works in place, and
:class:`aipod.engine.Engine` has all but the wire.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

from aipod.model.base import AIModelBase
from aipod.rpc.client import AIClient, AsyncAIClient
from aipod.rpc.server import Server

__all__ = ["served", "served_async"]


@contextmanager
def served(
    model_class: type[AIModelBase], /, *, version: str = "default", timeout: float | None = 60.0, **settings: Any
) -> Iterator[AIClient]:
    """Serve a model until the end of the block.

    Args:
        model_class: A subclass of :class:`~aipod.model.AIModelBase`.
        version: The version that the client calls; ``AIClient(client.address, version=…)`` calls another.
        timeout: The client's.
        settings: Settings by name, as for :class:`~aipod.rpc.server.Server`. Without ``data_path`` the data are in a
            temporary directory and go with the server; without ``listen_host`` only this machine can connect.

    Yields:
        A client, closed afterwards.

    Raises:
        ConfigError: A setting, or the class, makes no sense.
    """
    with ExitStack() as stack:
        server = stack.enter_context(_server(model_class, settings))
        yield stack.enter_context(AIClient(server.address, version, timeout))


@asynccontextmanager
async def served_async(
    model_class: type[AIModelBase], /, *, version: str = "default", timeout: float | None = 60.0, **settings: Any
) -> AsyncIterator[AsyncAIClient]:
    """:func:`served` for asyncio: the same arguments, and the client is an :class:`~aipod.rpc.client.AsyncAIClient`."""
    stack = ExitStack()
    # To start and to stop can take a while (a preload, a call that still runs), and the loop is the test's.
    server = await asyncio.to_thread(stack.enter_context, _server(model_class, settings))
    try:
        async with AsyncAIClient(server.address, version, timeout) as client:
            yield client
    finally:
        await asyncio.to_thread(stack.close)


@contextmanager
def _server(model_class: type[AIModelBase], settings: dict[str, Any]) -> Iterator[Server]:
    wanted = {"listen_host": "127.0.0.1", "listen_port": 0, **settings}
    with ExitStack() as stack:
        if wanted.get("data_path") is None:
            # A call that did not end in time may still write; what is under a temporary directory is no loss.
            wanted["data_path"] = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="aipod-", ignore_cleanup_errors=True)
            )
        yield stack.enter_context(Server(model_class, **wanted))

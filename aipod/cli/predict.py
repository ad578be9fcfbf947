"""``aipod predict``: one call, its answer as JSON."""

from __future__ import annotations

import logging
import sys
from typing import Any

import click

from aipod.cli.arguments import call_arguments
from aipod.cli.json_text import to_json
from aipod.config import Flagged, Settings
from aipod.rpc.client import AIClient

__all__ = ["predict"]


@click.command()
@click.option("-a", "--address", metavar="HOST:PORT", help="The server (AIPOD_ADDRESS, localhost:50051).")
@click.option("-v", "--version", default="default", show_default=True, help="The version, or an alias.")
@call_arguments
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=60.0, show_default=True, help="Seconds to wait."
)
def predict(address: str | None, version: str, kwargs: dict[str, Any], timeout: float) -> None:
    """Call a model's predict and print what it returns, as JSON.

    \b
      aipod predict --json '{"text": "hello", "top": 3}'
      aipod predict -a gpu1:50051 -v v1 --array images=images.npy
      aipod predict --binary photo.jpg | jq .label

    Arrays come from files that numpy.save wrote; --binary sends a file as binary_data.

    AIPOD_MAX_MESSAGE_BYTES is the largest answer that it takes.

    In the output arrays are lists, bytes are {"base64": "..."}, and times are text in ISO 8601. Numbers that JSON
    lacks are written NaN, Infinity and -Infinity, as Python reads them; complex ones are [real, imaginary].
    """
    logging.basicConfig(format="aipod: %(message)s", stream=sys.stderr)
    settings = Settings.load(address=Flagged("--address", address) if address is not None else None)
    with AIClient(settings.address, version, timeout, max_message_bytes=settings.max_message_bytes) as client:
        result = client.predict(**kwargs)
    # As bytes: JSON is UTF-8 whatever the locale says.
    click.echo(to_json(result).encode())

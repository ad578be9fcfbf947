"""``aipod predict``: one call, its answer as JSON."""

from __future__ import annotations

from typing import Any

import click

from aipod.cli.arguments import call_arguments
from aipod.cli.client import address_option, connected
from aipod.cli.json_text import to_json

__all__ = ["predict"]


@click.command()
@address_option
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
    with connected(address, version) as client:
        result = client.options(timeout=timeout).predict(**kwargs)
    # As bytes: JSON is UTF-8 whatever the locale says.
    click.echo(to_json(result).encode())

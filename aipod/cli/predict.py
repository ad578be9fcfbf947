"""``aipod predict``: one call, its answer as JSON."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any, BinaryIO

import click
import numpy as np
from numpy.typing import NDArray

from aipod.cli.json_text import to_json
from aipod.config import Flagged, Settings
from aipod.rpc.client import AIClient

__all__ = ["predict"]


def _object(ctx: click.Context, parameter: click.Parameter, text: str) -> dict[str, Any]:
    try:
        value = json.loads(sys.stdin.buffer.read() if text == "-" else text)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"this is no JSON ({error}); put it in single quotes.") from None
    if not isinstance(value, dict):
        raise click.BadParameter('it has to be an object with the model\'s arguments, like {"x": 1}.')
    return value


def _arrays(ctx: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for text in given:
        name, equals, file = text.partition("=")
        if not (name and equals and file):
            raise click.BadParameter(f"{text!r} does not read NAME=FILE.npy.")
        if name in arrays:
            raise click.BadParameter(f"{name!r} is given twice.")
        arrays[name] = _array(Path(file))
    return arrays


def _array(path: Path) -> NDArray[Any]:
    try:
        # Pickle would run what the file says.
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise click.BadParameter(f"{str(path)!r} cannot be read: {error.strerror or error}.") from None
    except (ValueError, EOFError):
        raise click.BadParameter(f"{str(path)!r} is no array that numpy.save wrote.") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise click.BadParameter(f"{str(path)!r} holds several arrays; save each with numpy.save.")
    return array


@click.command()
@click.option("-a", "--address", metavar="HOST:PORT", help="The server (AIPOD_ADDRESS, localhost:50051).")
@click.option("-v", "--version", default="default", show_default=True, help="The version, or an alias.")
@click.option("--json", "arguments", default="{}", metavar="OBJECT", callback=_object, help="Arguments; - reads stdin.")
@click.option(
    "--array",
    "arrays",
    multiple=True,
    metavar="NAME=FILE",
    callback=_arrays,
    help="An array as an argument; repeatable.",
)
@click.option("--binary", type=click.File("rb"), metavar="FILE", help="The argument binary_data; - reads stdin.")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=60.0, show_default=True, help="Seconds to wait."
)
def predict(
    address: str | None,
    version: str,
    arguments: dict[str, Any],
    arrays: dict[str, NDArray[Any]],
    binary: BinaryIO | None,
    timeout: float,
) -> None:
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
    given: dict[str, Any] = {"binary_data": binary.read()} if binary is not None else {}
    if twice := sorted((arguments.keys() & arrays.keys()) | (given.keys() & (arguments.keys() | arrays.keys()))):
        raise click.UsageError(f"the argument {twice[0]!r} is given twice; drop one.")
    logging.basicConfig(format="aipod: %(message)s", stream=sys.stderr)
    settings = Settings.load(address=Flagged("--address", address) if address is not None else None)
    with AIClient(settings.address, version, timeout, max_message_bytes=settings.max_message_bytes) as client:
        result = client.predict(**arguments, **arrays, **given)
    # As bytes: JSON is UTF-8 whatever the locale says.
    click.echo(to_json(result).encode())

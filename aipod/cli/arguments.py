"""The arguments of a call, as the command line gives them: one set of options for every command that makes calls."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import click
import numpy as np
from numpy.typing import NDArray

__all__ = ["call_arguments"]


def call_arguments(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command --json, --array and --binary; it takes them together as ``kwargs``."""

    @click.option(
        "--json", "arguments", default="{}", metavar="OBJECT", callback=_object, help="Arguments; - reads stdin."
    )
    @click.option(
        "--array",
        "arrays",
        multiple=True,
        metavar="NAME=FILE",
        callback=_arrays,
        help="An array as an argument; repeatable.",
    )
    @click.option("--binary", type=click.File("rb"), metavar="FILE", help="The argument binary_data; - reads stdin.")
    @functools.wraps(command)
    def with_kwargs(
        *, arguments: dict[str, Any], arrays: dict[str, NDArray[Any]], binary: BinaryIO | None, **options: Any
    ) -> None:
        given: dict[str, Any] = {"binary_data": binary.read()} if binary is not None else {}
        if twice := sorted((arguments.keys() & arrays.keys()) | (given.keys() & (arguments.keys() | arrays.keys()))):
            raise click.UsageError(f"the argument {twice[0]!r} is given twice; drop one.")
        command(kwargs={**arguments, **arrays, **given}, **options)

    return with_kwargs


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

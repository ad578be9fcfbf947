"""``aipod stream dev``: a JetStream on this machine."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import click

from aipod.cli.stream.running import PATIENCE
from aipod.errors import AipodError, ConfigError, Unavailable
from aipod.rpc.signals import Signals
from aipod.stream.broker.connection import Connect, connect
from aipod.stream.dev import DevServer

__all__ = ["dev"]


def _streams(ctx: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, list[str]]:
    streams: dict[str, list[str]] = {}
    for text in given:
        name, colon, subjects = text.partition(":")
        streams[name] = [subject.strip() for subject in subjects.split(",")]
        if not (colon and name and all(streams[name])):
            raise click.BadParameter(f"{text!r} does not read NAME:SUBJECT; write 'SENSORS:sensors.>', for example.")
    return streams


@click.command()
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("nats-data"),
    show_default=True,
    help="Where it keeps everything.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=4222, show_default=True, help="0 picks a free one.")
@click.option(
    "--stream",
    "streams",
    multiple=True,
    metavar="NAME:SUBJECT[,SUBJECT]",
    callback=_streams,
    help="Make a stream; may be repeated.",
)
def dev(directory: Path, port: int, streams: dict[str, list[str]]) -> None:
    """Run a JetStream of one's own until SIGTERM or SIGINT.

    \b
      aipod stream dev
      aipod stream dev --port 0 --stream 'SENSORS:sensors.>' --stream 'RESULTS:results.>'

    When it is ready it prints one line with its URL. It listens on this machine alone, asks nobody who he is, and
    finds what it had kept when it is started again. It is for trying things out.
    """
    with DevServer(directory, port) as server:
        if streams:
            asyncio.run(_make(server.url, streams))
        signals = Signals()
        click.echo(f"aipod: JetStream on {server.url}, its data in {directory}")
        told = False

        def on_signal(number: int) -> None:
            nonlocal told
            if told:
                os._exit(128 + number)
            told = True
            threading.Thread(target=server.stop, name="aipod-dev-stop").start()

        signals.run(server.wait, on_signal)
        signals.close()
    if not told:
        raise Unavailable("the server ended by itself; server.log in its directory says why")


async def _make(url: str, streams: dict[str, list[str]]) -> None:
    connection = await connect(Connect(servers=(url,)), wait=PATIENCE)
    try:
        for name, subjects in streams.items():
            await connection.api(f"STREAM.CREATE.{name}", {"name": name, "subjects": subjects})
    # The broker answers, so whatever it is, it is the stream; JetStream calls some of that a failure of its own.
    except AipodError as error:
        raise ConfigError([f"the stream {name!r} cannot be made: {error}"]) from error
    finally:
        await connection.close()
